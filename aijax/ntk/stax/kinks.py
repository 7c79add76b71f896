"""Where a function of one variable jumps: found by bisection, so that integrals need not approximate jumps.

An interval on which f changes is halved, keeping the half with the larger change. For a smooth f the change shrinks
with the interval; at a jump it stays. The search is done once, on concrete numbers, before anything is compiled.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from aijax.typing import Array

REACH = 20.0
"""Jumps are looked for on a fine grid (0.02) up to this distance from 0, on a grid of 5 % steps up to 1000."""

_HALVINGS = 80
_MOST = 32


def find_jumps(fn: Callable[[Array], Array], dtype: jnp.dtype) -> list[tuple[float, float]]:
    """Returns the jumps of `fn` as pairs (place, height), by place; none where `fn` depends on traced values.

    Found are jumps that are not small against the function's values beside them (1e-8 of these in float64, 3e-4 in
    float32) and near 0 (the same of the largest on [-3, 3]); of two within one cell of the grid one is found; of more
    than 32, those nearest to 0.

    Args:
      fn: an elementwise function of arrays.
      dtype: the precision in which `fn` is evaluated.

    >>> find_jumps(lambda x: jnp.where(x > 1, 3.0, 0.0), jnp.float32)
    [(1.0, 3.0)]
    """

    @jax.jit
    def bisect(edges):
        def change(low, high):
            return jnp.nan_to_num(jnp.abs(fn(high) - fn(low)), posinf=0.0)

        def halve(_, cell):
            low, high = cell
            middle = (low + high) / 2
            left = change(low, middle) > change(middle, high)
            return jnp.where(left, low, middle), jnp.where(left, middle, high)

        low, high = edges[:-1], edges[1:]
        before = change(low, high)
        low, high = jax.lax.fori_loop(0, _HALVINGS, halve, (low, high))
        # on the very place of a kink automatic differentiation may give the mean of both slopes: a step aside
        aside = 16 * jnp.finfo(dtype).eps * jnp.maximum(jnp.abs(high), 1)
        return (low + high) / 2, before, fn(low - aside), fn(high + aside), jnp.max(jnp.abs(fn(edges[near])))

    # an irrational shift keeps the grid off the places where kinks usually are
    fine = np.arange(-REACH, REACH, 0.02) + 0.02 * (np.sqrt(5) - 1) / 2
    coarse = np.geomspace(1.01 * REACH, 1000.0, 80)
    edges = np.concatenate([-coarse[::-1], fine, coarse])
    near = np.flatnonzero(np.abs(edges) < 3)
    with jax.ensure_compile_time_eval():
        found = bisect(jnp.asarray(edges, dtype))
    if any(isinstance(x, jax.core.Tracer) for x in found):
        return []
    places, before, left, right, scale = (np.asarray(x, np.float64) for x in found)
    height = right - left
    with np.errstate(invalid="ignore"):
        size = np.maximum(np.maximum(np.abs(left), np.abs(right)), scale)
        real = (np.abs(height) > np.sqrt(jnp.finfo(dtype).eps) * size) & (np.abs(height) > 0.1 * before)
    places = np.where(np.abs(places) < jnp.finfo(dtype).eps, 0, places)
    jumps = sorted(zip(places[real].tolist(), height[real].tolist(), strict=True), key=lambda jump: abs(jump[0]))
    return sorted(jumps[:_MOST])
