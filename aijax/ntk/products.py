"""The products that weights enter, in one form: activations [b, t, d], weight [b, d, k], product [b, t, k].

`b` are the axes that weight and activations share (batch axes of a dot, groups of a convolution), `t` the positions
that share the weight, `d` what is contracted (features; for a convolution the taps of the filter times its features).
A look-up of rows is the product with one-hot activations, of which only the indices are kept. An added weight (a bias)
is the product with activations of one, d = 1; a weight that multiplies element by element (a gain) is one product for
each of its elements, `b` of them with d = k = 1.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from aijax.typing import Array

NO_ROW = -1
"""Index of a look-up that is out of bounds: its derivative is zero."""


@dataclasses.dataclass(frozen=True)
class Product:
    """A product of activations and a weight: what is known of it from shapes.

    Attributes:
      shape: shape of the product as the function has it.
      dtype: its type.
      arrange: brings cotangents [..., *shape] to [..., b, t, k].
      axes: the sizes (b, t, d, k).
      roles: which axes of the weight are `b`, `d` and `k`, in order.
    """

    shape: tuple[int, ...]
    dtype: jnp.dtype
    arrange: Callable[[Array], Array]
    axes: tuple[int, int, int, int]
    roles: tuple


def product(equation: JaxprEqn, inputs: Sequence[Array], weight: int) -> tuple[Array, Product] | None:
    """Returns the activations [b, t, d] and the product of an equation with the weight `inputs[weight]`, if it is one.

    Of a look-up the activations are the rows' indices [b, t].
    """
    name = equation.primitive.name
    if name == "dot_general":
        return dot(equation, inputs, weight)
    if name == "conv_general_dilated" and weight == 1:
        return convolution(equation, inputs)
    if name == "gather" and weight == 0:
        return look_up(equation, inputs)
    if name in ("add", "sub", "mul") and inputs[0].ndim == inputs[1].ndim > 0:
        return elementwise(equation, inputs, weight)
    return None


def dot(equation: JaxprEqn, inputs: Sequence[Array], weight: int) -> tuple[Array, Product]:
    """Returns a `dot_general` as a product."""
    (contract, batch) = equation.params["dimension_numbers"]
    other = 1 - weight
    x, w = inputs[other], inputs[weight]
    shared, inner = tuple(batch[other]), tuple(contract[other])
    positions = tuple(axis for axis in range(x.ndim) if axis not in shared + inner)
    free = tuple(axis for axis in range(w.ndim) if axis not in tuple(batch[weight]) + tuple(contract[weight]))
    activations = x.transpose(shared + positions + inner)
    b, t, k = sizes(x, shared), sizes(x, positions), sizes(w, free)
    out = equation.outvars[0].aval

    def arrange(cotangents):
        lead = cotangents.shape[: cotangents.ndim - len(out.shape)]
        if weight == 0 and free and positions:
            first = len(lead) + len(shared)
            cotangents = jnp.moveaxis(
                cotangents, range(first, first + len(free)), range(cotangents.ndim - len(free), cotangents.ndim)
            )
        return cotangents.reshape(*lead, b, t, k)

    roles = ("dot", tuple(batch[weight]), tuple(contract[weight]), free)
    d = sizes(x, inner)
    return activations.reshape(b, t, d), Product(out.shape, out.dtype, arrange, (b, t, d, k), roles)


def convolution(equation: JaxprEqn, inputs: Sequence[Array]) -> tuple[Array, Product] | None:
    """Returns a `conv_general_dilated` as the product of its patches and its filter."""
    params = equation.params
    if params["batch_group_count"] != 1:
        return None
    x, w = inputs
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    rank = x.ndim - 2
    taps = tuple(w.shape[axis] for axis in numbers.rhs_spec[2:])
    x = x.transpose(numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])  # [n, *space, channels]
    patches = extract_patches(
        x, taps, params["window_strides"], params["padding"], params["lhs_dilation"], params["rhs_dilation"]
    )  # [n, *space, taps, channels]
    n, channels = x.shape[0], x.shape[-1]
    space = patches.shape[1:-2]
    patches = patches.reshape(n * math.prod(space), math.prod(taps), groups, channels // groups)
    activations = patches.transpose(2, 0, 1, 3)
    inner = math.prod(taps) * (channels // groups)
    out = equation.outvars[0].aval
    order = (numbers.out_spec[1], numbers.out_spec[0], *numbers.out_spec[2:])
    k = out.shape[numbers.out_spec[1]] // groups

    def arrange(cotangents):
        lead = cotangents.ndim - rank - 2
        moved = cotangents.transpose(*range(lead), *(lead + axis for axis in order))  # [..., k, n, *space]
        moved = moved.reshape(*moved.shape[:lead], groups, k, n * math.prod(space))
        return moved.swapaxes(-1, -2)

    roles = ("conv", tuple(numbers.rhs_spec), groups)
    axes = (groups, n * math.prod(space), inner, k)
    return activations.reshape(axes[:3]), Product(out.shape, out.dtype, arrange, axes, roles)


def extract_patches(
    x: Array,
    taps: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    tap_dilation: Sequence[int],
) -> Array:
    """Returns what each position of a convolution sees, [n, *out, taps, c] with the taps in row-major order.

    Args:
      x: the input [n, *space, c].
      taps: sizes of the filter.
      strides: steps between two positions.
      padding: zeros (or, if negative, cuts) before and after.
      dilation: distance between two elements of the input.
      tap_dilation: distance between two elements of the filter.
    """
    config = [(low, high, d - 1) for (low, high), d in zip(padding, dilation, strict=True)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)])
    out = [
        (size - (tap - 1) * d - 1) // stride + 1
        for size, tap, d, stride in zip(x.shape[1:-1], taps, tap_dilation, strides, strict=True)
    ]
    pieces = []
    for tap in np.ndindex(*taps):
        start = [i * d for i, d in zip(tap, tap_dilation, strict=True)]
        limit = [s + (o - 1) * stride + 1 for s, o, stride in zip(start, out, strides, strict=True)]
        pieces.append(jax.lax.slice(x, [0, *start, 0], [x.shape[0], *limit, x.shape[-1]], [1, *strides, 1]))
    return jnp.stack(pieces, axis=-2)


def elementwise(equation: JaxprEqn, inputs: Sequence[Array], weight: int) -> tuple[Array, Product]:
    """Returns a sum or an elementwise product as a product; axes along which the weight is the same are positions."""
    out, shape = equation.outvars[0].aval, inputs[weight].shape
    shared = tuple(axis for axis, (size, own) in enumerate(zip(out.shape, shape, strict=True)) if size != own)
    own = tuple(axis for axis in range(len(shape)) if axis not in shared)
    t, k = (math.prod(out.shape[axis] for axis in axes) for axes in (shared, own))
    gain = equation.primitive.name == "mul"

    def arrange(cotangents):
        lead = cotangents.ndim - len(out.shape)
        order = own + shared if gain else shared + own
        moved = cotangents.transpose(*range(lead), *(lead + axis for axis in order))
        return moved.reshape(*moved.shape[:lead], *((k, t, 1) if gain else (1, t, k)))

    if gain:
        activations = jnp.broadcast_to(inputs[1 - weight], out.shape).transpose(own + shared).reshape(k, t, 1)
        return activations, Product(out.shape, out.dtype, arrange, (k, t, 1, 1), ("gain", own))
    sign = -1 if equation.primitive.name == "sub" and weight == 1 else 1
    activations = jnp.full((1, t, 1), sign, out.dtype)
    return activations, Product(out.shape, out.dtype, arrange, (1, t, 1, k), ("bias", own))


def look_up(equation: JaxprEqn, inputs: Sequence[Array]) -> tuple[Array, Product] | None:
    """Returns a `gather` of whole rows of a table [v, ...] as a product, or None for any other gather."""
    params = equation.params
    numbers = params["dimension_numbers"]
    table, indices = inputs
    trailing = table.shape[1:]
    whole_rows = (
        numbers.start_index_map == (0,)
        and numbers.collapsed_slice_dims == (0,)
        and not numbers.operand_batching_dims
        and tuple(params["slice_sizes"]) == (1, *trailing)
    )
    if not whole_rows:
        return None
    out = equation.outvars[0].aval
    offset = numbers.offset_dims
    places = tuple(axis for axis in range(len(out.shape)) if axis not in offset)
    rows = indices[..., 0]
    if params["mode"] == jax.lax.GatherScatterMode.CLIP:
        rows = jnp.clip(rows, 0, table.shape[0] - 1)
    else:
        rows = jnp.where((rows >= 0) & (rows < table.shape[0]), rows, NO_ROW)

    count = rows.size

    def arrange(cotangents):
        lead = cotangents.ndim - len(out.shape)
        moved = cotangents.transpose(*range(lead), *(lead + axis for axis in places + offset))
        return moved.reshape(*moved.shape[:lead], 1, count, math.prod(trailing))

    axes = (1, count, table.shape[0], math.prod(trailing))
    return rows.reshape(1, count), Product(out.shape, out.dtype, arrange, axes, ("rows",))


def sizes(x: Array, axes: Sequence[int]) -> int:
    """Returns the number of elements along some axes together."""
    return math.prod(x.shape[axis] for axis in axes)
