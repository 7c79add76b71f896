"""Paths between two solutions: the straight line and its barrier, and curves that are trained to avoid one.

    line        (1 - t) A + t B
    Bezier      (1 - t)^2 A + 2 t (1 - t) M + t^2 B
    polygon     A to M for t in [0, 1/2], M to B for t in [1/2, 1]

(Garipov et al. 2018, section 3.2.) A curve with a trainable M is found by the ordinary train loop: `path_loss` is the
loss at a point of the curve drawn at random.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.landscape.batches import as_batches, mean_over
from aijax.landscape.directions import check_like_parameters
from aijax.landscape.operators import LossFn, check_loss
from aijax.typing import Any, Array, Callable, Float, Params, PRNGKey, PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Barrier:
    """The loss along a path, and how far it rises above the chord between its ends.

    Args:
      t: places on the path, `[n]`.
      losses: there, `[n]`.
      height: `max_t L(t) - ((1 - t) L(0) + t L(1))` (Frankle et al. 2020).
    """

    t: Array
    losses: Array
    height: Array


def line(t: Array, a: Params, b: Params) -> Params:
    """Returns `(1 - t) a + t b`."""
    return jax.tree.map(lambda p, q: (1 - t) * p + t * q, a, b)


def bezier(t: Array, a: Params, middle: Params, b: Params) -> Params:
    """Returns the point t of the quadratic Bezier curve from a to b that bends towards `middle`."""
    return jax.tree.map(lambda p, m, q: (1 - t) ** 2 * p + 2 * t * (1 - t) * m + t**2 * q, a, middle, b)


def polygon(t: Array, a: Params, middle: Params, b: Params) -> Params:
    """Returns the point t of the two straight pieces from a to b by way of `middle`."""
    return jax.tree.map(
        lambda p, m, q: jnp.where(t < 0.5, (1 - 2 * t) * p + 2 * t * m, (2 - 2 * t) * m + (2 * t - 1) * q), a, middle, b
    )


CURVES = {"bezier": bezier, "polygon": polygon}


def barrier(
    loss_fn: LossFn, path: Callable[[Array], Params], batches: Any, t: Float[Array, " n"] | int = 25
) -> Barrier:
    """Returns the mean loss along a path and the height of its barrier.

    Args:
      loss_fn: `(params, batch)` to the mean loss of the batch.
      path: `t -> params` for t from 0 to 1, such as `lambda t: line(t, a, b)`.
      batches: one batch, or a list of batches.
      t: places, 0 first and 1 last, or how many.

    >>> found = barrier(lambda w, x: jnp.mean(x * (w**2 - 1) ** 2), lambda t: line(t, -1.0, 1.0), jnp.ones(2), 3)
    >>> float(found.height)
    1.0
    """
    t = jnp.linspace(0.0, 1.0, t) if isinstance(t, int) else jnp.asarray(t)
    batches = as_batches(batches)
    check_loss(loss_fn, jax.eval_shape(path, t[0]), batches)
    losses = jax.jit(
        lambda t, batches: jax.lax.map(lambda t: mean_over(lambda batch: loss_fn(path(t), batch), batches), t)
    )(t, batches)
    return Barrier(t, losses, jnp.max(losses - ((1 - t) * losses[0] + t * losses[-1])))


def path_loss(
    loss_fn: LossFn, a: Params, b: Params, curve: str = "bezier"
) -> Callable[[Params, PyTree, PRNGKey], tuple[Array, dict]]:
    """Returns `(middle, batch, key) -> (loss, {})` at a random point of the curve, a loss that the train loop takes.

    Args:
      loss_fn: `(params, batch)` to the mean loss of the batch.
      a, b: the ends, which stay.
      curve: "bezier" or "polygon".

    Raises:
      ConfigError: ends of different structures or shapes, an unknown curve.

    Source: Garipov et al. 2018, equation 2.
    """
    check_like_parameters("b", b, a)
    point = choose(CURVES, curve, "curve")
    return lambda middle, batch, key: (loss_fn(point(jax.random.uniform(key), a, middle, b), batch), {})


def middle_of(a: Params, b: Params) -> Params:
    """Returns the middle of the line, where training of a curve begins.

    Raises:
      ConfigError: ends of different structures or shapes.
    """
    check_like_parameters("b", b, a)
    if not jax.tree.leaves(a):
        raise ConfigError("a: expected parameters, got an empty tree")
    return line(0.5, a, b)
