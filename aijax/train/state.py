"""The state of a training run: one pytree that a step takes and gives back, and that a checkpoint holds."""

import flax.struct
import jax.numpy as jnp
import optax

from aijax.typing import Array, Params, PyTree


@flax.struct.dataclass
class TrainState:
    """What a run carries from step to step.

    Attributes:
      step: int32 scalar, the number of updates made.
      params: the parameters, float32 (or whatever the model was made with).
      opt_state: the optimiser's state.
      ema: exponential moving average of the parameters, or None when it is not kept.
    """

    step: Array
    params: Params
    opt_state: PyTree
    ema: Params | None = None

    @property
    def best_params(self) -> Params:
        """The parameters to evaluate and to use: the average when it is kept."""
        return self.params if self.ema is None else self.ema


def init_state(params: Params, optimizer: optax.GradientTransformation, *, keep_ema: bool = False) -> TrainState:
    """Returns the state before the first step; the average, when kept, begins as the parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        ema=params if keep_ema else None,
    )
