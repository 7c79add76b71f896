"""Where the restarts of a fit begin: drawn from the priors, within the bounds, or on the scale of the data.

lengthscale       exp N(log(sqrt(2 d) std(x_j)), 1) for each input j; one for all: sqrt(2 sum_j var(x_j)),
                  the root of the mean squared distance of two points
variance          exp N(log var(y), 1)
noise_variance    exp N(log var(y) - 2, 1)
other             N(u, 1) around the model's own u on the line; a real parameter, around its value with its root
                  mean square for a standard deviation (of y for a single 0; zeros of an array stay)
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from aijax.bijections import to_line
from aijax.gp.trainable import Line, Moved
from aijax.typing import Any, Array, PRNGKey


def draw_starts(
    keys: Sequence[PRNGKey], moved: Moved, first: Line, x: Any, y: Array, observed: Any, restarts: int
) -> tuple[Array, ...]:
    """Returns `first` and `restarts - 1` draws, stacked: for each parameter `[restarts, ...]`.

    keys: one for all that have no prior, then one for each parameter.
    """
    if restarts == 1:
        return jax.tree.map(lambda u: u[None], first)
    variance = _variance(y, observed)
    edges = list(zip(*moved.edges(first), strict=True)) if any(moved.bounds) else [None] * len(first)
    sizes = np.cumsum([u.size for u in first])
    draws = jax.random.normal(keys[0], ((restarts - 1) * sizes[-1],), first[0].dtype)  # flat: the faster to compile
    draws = jnp.split(draws.reshape(restarts - 1, -1), sizes[:-1], axis=1)
    starts = []
    for i, u in enumerate(first):
        shape = (restarts - 1, *u.shape)
        name, constraint, prior = moved.names[i].rpartition(".")[2], moved.constraints[i], moved.priors[i]
        if prior is not None:
            drawn = to_line(prior.sample(keys[i + 1], shape, u.dtype), constraint)
        else:
            centre, spread = _scale(name, constraint, u, x, variance)
            drawn = centre + spread * draws[i].reshape(shape)
        if moved.bounds[i] is not None:
            low, high = edges[i]
            even = low + (high - low) * jax.scipy.stats.norm.cdf(draws[i].reshape(shape))
            drawn = jnp.where(jnp.isfinite(low) & jnp.isfinite(high), even, jnp.clip(drawn, low, high))
        starts.append(jnp.concatenate([u[None], drawn.astype(u.dtype)]))
    return tuple(starts)


def _scale(name, constraint, u, x, variance):
    """Returns centre and spread on the line."""
    spreads = _input_spreads(x)
    if constraint == "real":
        size = jnp.sqrt(jnp.mean(u**2))
        return u, jnp.where(size > 0, size, jnp.sqrt(variance)) if u.ndim == 0 else size
    if name == "lengthscale" and spreads is not None and u.shape in ((), spreads.shape):
        scale = jnp.sqrt(2 * jnp.sum(spreads**2)) if u.ndim == 0 else jnp.sqrt(2 * spreads.size) * spreads
        return jnp.log(scale), 1.0
    if name in ("variance", "noise_variance") and constraint in ("positive", "nonnegative"):
        return jnp.log(variance) - 2 * (name == "noise_variance"), 1.0
    return u, 1.0


def _input_spreads(x):
    """Returns the standard deviation of each input, 1 where it is constant; None for points that are no vectors."""
    if not hasattr(x, "dtype") or x.ndim not in (1, 2) or not jnp.issubdtype(x.dtype, jnp.floating):
        return None
    spreads = jnp.std(x.reshape(len(x), -1), 0)
    return jnp.where(spreads > 0, spreads, 1)


def _variance(y, observed):
    """Returns the variance of the targets that were observed; 1 where there is none, or where they are classes."""
    if not jnp.issubdtype(y.dtype, jnp.floating):
        return jnp.ones(())
    seen = jnp.ones(len(y), bool) if observed is None else observed
    weights = jnp.broadcast_to(jnp.expand_dims(seen, tuple(range(1, y.ndim))), y.shape)
    variance = jnp.var(jnp.where(weights, y, 0), where=weights)
    return jnp.where(variance > 0, variance, 1)
