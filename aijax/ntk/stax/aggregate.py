"""Aggregation over a graph: y[n, j] = sum_i A[n, i, j] x[n, i], with a graph A for each example.

It is the propagation step of graph networks (Du, Hou, Salakhutdinov, Poczos, Wang and Xu 2019, "Graph neural tangent
kernel"), a linear map of positions that differs between examples: K[n, n'] <- A[n]^T K[n, n'] A'[n'].
"""

import enum
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, did_you_mean
from aijax.ntk.stax.layer import Layer, layer
from aijax.ntk.stax.linear_map import map_positions
from aijax.ntk.stax.masking import supports_masking
from aijax.ntk.stax.requirements import Bool, Diagonal, requires
from aijax.typing import Array


class AggregateImplementation(enum.StrEnum):
    """How neighbours are summed; `Aggregate` takes the name or the member."""

    DENSE = "DENSE"
    SPARSE = "SPARSE"


@layer
@supports_masking(remask_kernel=True)
def Aggregate(
    aggregate_axis: int | Sequence[int] | None = None,
    batch_axis: int = 0,
    channel_axis: int = -1,
    to_dense: Callable[[Array], Array] | None = lambda pattern: pattern,
    implementation: str = "DENSE",
) -> Layer:
    """Returns the layer that sums over the predecessors of each vertex.

    `apply_fn(params, x, pattern=A)` and `kernel_fn(x1, x2, pattern=(A1, A2))` take the graphs; None in place of one
    leaves its examples as they are, and without any the layer is the identity. Dense, A has the shape
    `(n, *vertices, *vertices)`, tails first and heads last, with any weights. Sparse, it holds edges as integers,
    `(n, edges, axes, 2)` or, for one axis, `(n, edges, 2)`, tail and head last; an edge that is there twice counts
    twice, and one whose head has a negative coordinate not at all.

    Args:
      aggregate_axis: the axes that make up the vertices; None for all spatial axes.
      batch_axis: axis of the examples.
      channel_axis: axis of the channels.
      to_dense: applied to a pattern before it is used as a dense one.
      implementation: "DENSE" (products with A) or "SPARSE" (sums over edges).

    Raises:
      ConfigError: an unknown implementation; on a call, an axis that is batch or channels, no pattern, or one of a
        wrong shape.

    >>> from aijax.ntk import stax
    >>> graph = jnp.ones((1, 3, 3))
    >>> stax.Aggregate()[1]((), jnp.ones((1, 3, 2)), pattern=graph)[0, :, 0].tolist()
    [3.0, 3.0, 3.0]
    """
    if implementation not in list(AggregateImplementation):
        near = did_you_mean(str(implementation), AggregateImplementation)
        raise ConfigError(f"Aggregate: unknown implementation {implementation!r}{near}")
    sparse = implementation == "SPARSE"

    def axes_of(ndim: int) -> tuple[int, ...]:
        taken = (batch_axis % ndim, channel_axis % ndim)
        if aggregate_axis is None:
            return tuple(a for a in range(ndim) if a not in taken)
        given = (aggregate_axis,) if isinstance(aggregate_axis, int) else tuple(aggregate_axis)
        axes = tuple(a % ndim for a in given)
        if set(axes) & set(taken) or len(set(axes)) != len(axes):
            raise ConfigError(f"Aggregate: aggregate_axis={aggregate_axis} names batch, channels or an axis twice")
        return axes

    def aggregate(pattern: Array | None, x: Array) -> Array:
        if pattern is None:
            return x
        axes = axes_of(x.ndim)
        front = jnp.moveaxis(x, (batch_axis, *axes), range(1 + len(axes)))
        vertices = front.shape[1 : 1 + len(axes)]
        flat = front.reshape(front.shape[0], math.prod(vertices), -1)
        summed = _sum_edges(pattern, flat, vertices) if sparse else _product(to_dense(pattern), flat, vertices)
        return jnp.moveaxis(summed.reshape(front.shape), range(1 + len(axes)), (batch_axis, *axes))

    def init_fn(key, input_shape):
        return input_shape, ()

    def apply_fn(params, inputs, *, pattern=None, mask=None, **kwargs):
        return aggregate(pattern, inputs)

    @requires(batch_axis=batch_axis, channel_axis=channel_axis, diagonal_spatial=Diagonal(Bool.NO, Bool.NO))
    def kernel_fn(kernel, *, pattern=None, **kwargs):
        if pattern is None:
            return kernel
        if not isinstance(pattern, (tuple, list)) or len(pattern) != 2:
            raise ConfigError("pattern: expected a pair, the graphs of x1 and those of x2 (or None without x2)")
        first, second = (functools.partial(aggregate, graphs) for graphs in pattern)
        return map_positions(kernel, first, second)

    return init_fn, apply_fn, kernel_fn


def _product(pattern: Array, x: Array, vertices: tuple[int, ...]) -> Array:
    """x (n, V, rest) with dense graphs."""
    if pattern.shape != (x.shape[0], *vertices, *vertices):
        expected = (x.shape[0], *vertices, *vertices)
        raise ConfigError(f"pattern: expected shape {expected}, got {pattern.shape}")
    graphs = pattern.reshape(x.shape[0], x.shape[1], x.shape[1]).astype(x.dtype)
    return jnp.einsum("nir,nij->njr", x, graphs, precision=jax.lax.Precision.HIGHEST)


def _sum_edges(pattern: Array, x: Array, vertices: tuple[int, ...]) -> Array:
    """x (n, V, rest) with graphs given by their edges."""
    if pattern.ndim == 3:
        pattern = pattern[:, :, None]
    if pattern.ndim != 4 or pattern.shape[0] != x.shape[0] or pattern.shape[2:] != (len(vertices), 2):
        expected = (x.shape[0], "edges", len(vertices), 2)
        raise ConfigError(f"pattern: expected shape {expected}, got {pattern.shape}")

    def one(edges: Array, values: Array) -> Array:
        strides = jnp.asarray([math.prod(vertices[i + 1 :]) for i in range(len(vertices))])
        tails, heads = jnp.sum(edges * strides[None, :, None], axis=1).T
        heads = jnp.where(jnp.any(edges[:, :, 1] < 0, axis=1), len(values), heads)
        return jnp.zeros_like(values).at[heads].add(values[tails], mode="drop")

    return jax.vmap(one)(pattern, x)
