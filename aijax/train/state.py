"""The state of a training run: one pytree that a step takes and gives back, and that a checkpoint holds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax.numpy as jnp
import optax

from aijax.typing import Array, Params, PyTree


class Carry(NamedTuple):
    """What an objective carries from step to step beside the parameters, such as a centre or a queue of features.

    With it the loss is `loss_fn(params, batch, key, past) -> (loss, metrics, seen)`: it is told the `Past`, and says
    what it has seen, an array or a tree of them, each a mean over the batch.

    Attributes:
      init: `init(params) -> carried`, a tree of arrays, before the first step.
      update: `update(carried, seen) -> carried`, after each step.
    """

    init: Callable[[Params], PyTree]
    update: Callable[[PyTree, PyTree], PyTree]


class Past(NamedTuple):
    """What a loss is told of the steps before.

    Attributes:
      step: updates made.
      average: of the parameters, in the type of the computation; None when it is not kept.
      carried: of the `Carry`.
    """

    step: Array
    average: Params | None
    carried: Any


@flax.struct.dataclass
class TrainState:
    """What a run carries from step to step.

    Attributes:
      step: int32 scalar, the number of updates made.
      params: the parameters, float32 (or whatever the model was made with).
      opt_state: the optimiser's state.
      ema: exponential moving average of the parameters, or None when it is not kept.
      carried: what the objective carries (see `Carry`), or None.
    """

    step: Array
    params: Params
    opt_state: PyTree
    ema: Params | None = None
    carried: PyTree = None

    @property
    def best_params(self) -> Params:
        """The parameters to evaluate and to use: the average when it is kept."""
        return self.params if self.ema is None else self.ema


def init_state(
    params: Params, optimizer: optax.GradientTransformation, *, keep_ema: bool = False, carry: Carry | None = None
) -> TrainState:
    """Returns the state before the first step; the average, when kept, begins as the parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        ema=params if keep_ema else None,
        carried=None if carry is None else carry.init(params),
    )
