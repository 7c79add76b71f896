"""The edge of stability: how near the largest eigenvalue of the Hessian is to where gradient descent diverges.

On a quadratic of curvature lambda, gradient descent with step size r shrinks as long as lambda stays below

    2 / r                                       without momentum
    (2 + 2 b) / r                               with heavy-ball momentum b
    (2 + 2 b) / (r (1 + 2 b))                   with Nesterov's

In full-batch training of networks lambda rises until it meets that threshold, and hovers there while the loss goes on
falling, unevenly (Cohen, Kaur, Li, Kolter and Talwalkar 2021, section 3 and appendix B).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.landscape.operators import LossFn
from aijax.landscape.spectrum import compute_hessian_eigenvalues
from aijax.typing import Any, Array, Callable, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stability:
    """The largest eigenvalue of the Hessian, and the one from which on gradient descent diverges."""

    sharpness: Array
    threshold: Array

    @property
    def ratio(self) -> Array:
        """The sharpness over the threshold: 1 at the edge of stability."""
        return self.sharpness / self.threshold


def stability(
    loss_fn: LossFn,
    params: Params,
    batches: Any,
    learning_rate: Array | float,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    **options: Any,
) -> Stability:
    """Returns how near full-batch gradient descent is to its edge of stability.

    Args:
      loss_fn: `(params, batch)` to the mean loss of the batch.
      params: where.
      batches: the whole training set: one batch, or a list of batches.
      learning_rate: r.
      momentum: b, from 0 up to 1.
      nesterov: whether the momentum is Nesterov's.
      options: of `compute_hessian_eigenvalues`.

    Raises:
      ConfigError: a momentum outside of [0, 1), a loss that is no scalar or has no second derivative.

    Source: Cohen et al. 2021, equation 1 and appendix B.

    >>> found = stability(lambda w, x: jnp.mean(x @ w**2), jnp.ones(2), jnp.array([[1.0, 0.5]]), 0.5)
    >>> round(float(found.sharpness), 4), float(found.threshold)
    (2.0, 4.0)
    """
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum: expected a number from 0 up to 1, got {momentum}")
    pairs = compute_hessian_eigenvalues(loss_fn, params, batches, 1, **options)
    threshold = (2 + 2 * momentum) / learning_rate / (1 + 2 * momentum if nesterov else 1)
    return Stability(pairs.values[0], jnp.asarray(threshold, pairs.values.dtype))


def track_stability(
    loss_fn: LossFn, batches: Any, learning_rate: float | Callable[[int], Array], **options: Any
) -> Callable[[int, Any], dict[str, float]]:
    """Returns `(step, state) -> {"sharpness", "stability"}`, which a `Hook` of the train loop runs.

    "stability" is the sharpness over the threshold, 1 at the edge.

    Args:
      loss_fn, batches: as in `stability`.
      learning_rate: a number, or a schedule `step -> learning rate`.
      options: of `stability`.
    """

    def run(step: int, state: Any) -> dict[str, float]:
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        found = stability(loss_fn, state.params, batches, rate, **options)
        return {"sharpness": float(found.sharpness), "stability": float(found.ratio)}

    return run
