"""What was observed: targets, their noise, and which of them are missing, checked before any solver sees them.

Values that are known (not traced) are checked here and refused in a sentence; inside `jit` solvers report in what they
return (`Evidence.converged`).
"""

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, DataError
from aijax.gp.model import GP, prior_mean
from aijax.known import all_finite
from aijax.parameters import check_parameters, debug_check_parameters
from aijax.typing import Any, Array, Bool, Float


def residuals(
    gp: GP, x: Any, y: Any, observed: Any = None
) -> tuple[Float[Array, "n *m"], Float[Array, " n"], Bool[Array, " n"] | None]:
    """Returns `(y - mean(x), noise_variance [n], observed)`; the first is 0 where a target is missing.

    Args:
      gp: the prior.
      x: n points, whatever the kernel takes.
      y: targets `[n]`, or `[n, m]` for m outputs.
      observed: None, or `[n]` of bool: False where the target is missing (and y may be NaN).

    Raises:
      ConfigError: a parameter out of its range, a noise variance that is neither a number nor `[n]`.
      DataError: x, y, observed of different lengths; targets that are not floating; values that are not finite.
    """
    check_parameters(gp, "gp.")
    debug_check_parameters(gp, "gp.")
    y = jnp.asarray(y)
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise DataError(f"y: expected floating targets [n] or [n, m], got {y.dtype}; convert them first")
    if y.ndim not in (1, 2) or len(y) == 0:
        raise DataError(f"y: expected targets [n] or [n, m], n at least 1, got an array of shape {y.shape}")
    n = len(y)
    check_points(x, n)
    noise = jnp.asarray(gp.noise_variance, y.dtype)
    if noise.shape not in ((), (n,)):
        raise ConfigError(f"gp.noise_variance: expected a number or one for each of {n} points, got {noise.shape}")
    if observed is not None:
        observed = jnp.asarray(observed)
        if observed.dtype != bool or observed.shape != (n,):
            raise DataError(
                f"observed: expected a mask [{n}] of bool, one for each target, got {observed.dtype} {observed.shape}"
            )
    residual = _zero_where_missing(y, observed)
    refuse_unless_finite("y", residual)
    if gp.mean is not None:
        mean = prior_mean(gp, x, n).astype(y.dtype)
        if mean.shape not in ((n,), y.shape):
            raise ConfigError(f"gp.mean: expected values of shape {(n,)}, got {mean.shape}")
        residual = _zero_where_missing(y - (mean if mean.shape == y.shape else mean[:, None]), observed)
    return residual, jnp.broadcast_to(noise, (n,)), observed


def check_points(x: Any, n: int | None = None) -> None:
    """Raises a `DataError` for points that are not finite, or not n."""
    for leaf in jax.tree.leaves(x):
        if not hasattr(leaf, "shape"):
            return
        if n is not None and leaf.shape[:1] != (n,):
            raise DataError(f"x: expected {n} points, as many as targets in y, got an array of shape {leaf.shape}")
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            refuse_unless_finite("x", leaf)


def refuse_unless_finite(name: str, value: Any) -> None:
    """Raises a `DataError` that names the first row with a value that is not finite, where the values are known."""
    if all_finite(value) is False:
        row = int(np.argmin(np.isfinite(value).reshape(len(value), -1).all(1)))
        raise DataError(f"{name}: row {row} has a value that is not finite; {name} must be finite")


def _zero_where_missing(y, observed):
    return y if observed is None else jnp.where(jnp.expand_dims(observed, tuple(range(1, y.ndim))), y, 0)
