"""Kernels with zipped output axes as matrices, outputs as columns, and back.

Outputs f(X) have axes (n, ...). A kernel has two copies of every axis of f(X) that is not in `trace_axes`, zipped:
(n1, n2, H, H', ...), the first copy belonging to the first argument; over the axes in `trace_axes` it is the identity.
Let p be the product of the kept axes and c that of the traced ones. Then the kernel is a matrix `[p, p]` that acts on
each of the c columns of f(X) as `[p, c]`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.ntk.arguments import as_axes, real_array
from aijax.typing import Array, Callable


@dataclass(frozen=True)
class Layout:
    """The shape of the targets, and which of their axes the kernels have (`kept`) and lack (`traced`)."""

    shape: tuple[int, ...]
    kept: tuple[int, ...]
    traced: tuple[int, ...]

    @property
    def kept_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.kept)

    @property
    def traced_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.traced)


def make_layout(y_train: Array, trace_axes: int | Sequence[int]) -> Layout:
    """Returns the layout of targets and trace axes (which may be negative or repeated)."""
    if y_train.ndim == 0:
        raise ConfigError("y_train: expected targets [n, ...], got a scalar")
    axes = as_axes("trace_axes", trace_axes)
    for axis in axes:
        if not -y_train.ndim <= axis < y_train.ndim:
            raise ConfigError(f"trace_axes: {axis!r} is not an axis of y_train, whose shape is {y_train.shape}")
    traced = tuple(sorted({axis % y_train.ndim for axis in axes}))
    kept = tuple(axis for axis in range(y_train.ndim) if axis not in traced)
    return Layout(y_train.shape, kept, traced)


def train_matrix(name: str, kernel: Array, layout: Layout) -> Array:
    """Returns a train-train kernel as `[p, p]`.

    Raises:
      ConfigError: it is not the kernel of the targets' shape without the trace axes, or its diagonal is no kernel's.
    """
    kernel = real_array(name, kernel)
    expected = tuple(size for size in layout.kept_shape for _ in range(2))
    if kernel.shape != expected:
        raise ConfigError(
            f"{name}: y_train of shape {layout.shape} with trace_axes {layout.traced} calls for a kernel of shape "
            f"{expected}, got {kernel.shape}"
        )
    matrix = as_matrix(kernel)
    check_diagonal(name, matrix)
    return matrix


def check_diagonal(name: str, matrix: Array) -> None:
    """Raises a `ConfigError` if values at hand on the diagonal are negative beyond rounding, or NaN."""
    if isinstance(matrix, jax.core.Tracer) or not len(matrix):
        return
    with jax.ensure_compile_time_eval():  # the values of a constant within a trace are at hand as well
        diagonal = np.asarray(jnp.diagonal(matrix))
    if not diagonal.min() >= -1e-3 * np.abs(diagonal).max():
        raise ConfigError(f"{name}: expected a kernel, with nothing below 0 on its diagonal, got {diagonal.min()}")


def cross_matrix(name: str, kernel: Array, layout: Layout) -> tuple[Array, tuple[int, ...]]:
    """Returns a test-train kernel as `[q, p]`, and the shape of the outputs on the test points.

    Raises:
      ConfigError: its second copies of the axes are not those of the targets.
    """
    kernel = real_array(name, kernel)
    if kernel.ndim != 2 * len(layout.kept) or kernel.shape[1::2] != layout.kept_shape:
        raise ConfigError(
            f"{name}: y_train of shape {layout.shape} with trace_axes {layout.traced} calls for a kernel whose axes "
            f"1, 3, ... are {layout.kept_shape}, got the shape {kernel.shape}"
        )
    shape = list(layout.shape)
    for axis, size in zip(layout.kept, kernel.shape[0::2], strict=True):
        shape[axis] = size
    return as_matrix(kernel), tuple(shape)


def as_matrix(kernel: Array) -> Array:
    """Returns a zipped kernel as a matrix: first copies of the axes are rows, second copies columns."""
    order = (*range(0, kernel.ndim, 2), *range(1, kernel.ndim, 2))
    rows, columns = math.prod(kernel.shape[0::2]), math.prod(kernel.shape[1::2])
    return kernel.transpose(order).reshape(rows, columns)


def from_matrix(matrix: Array, row_shape: tuple[int, ...], column_shape: tuple[int, ...]) -> Array:
    """Returns `[..., rows, columns]` as a zipped kernel; leading axes stay."""
    lead = matrix.ndim - 2
    axes = len(row_shape)
    unfolded = matrix.reshape(*matrix.shape[:-2], *row_shape, *column_shape)
    order = [lead + offset + axis for axis in range(axes) for offset in (0, axes)]
    return unfolded.transpose(*range(lead), *order)


def as_columns(outputs: Array, layout: Layout) -> Array:
    """Returns outputs on any points as `[p, c]`."""
    rows = math.prod(outputs.shape[axis] for axis in layout.kept)
    return outputs.transpose(*layout.kept, *layout.traced).reshape(rows, -1)


def from_columns(columns: Array, shape: tuple[int, ...], layout: Layout) -> Array:
    """Returns `[..., p, c]` as outputs of this shape; leading axes stay."""
    lead = columns.ndim - 2
    order = (*layout.kept, *layout.traced)
    unfolded = columns.reshape(*columns.shape[:-2], *(shape[axis] for axis in order))
    return unfolded.transpose(*range(lead), *(lead + order.index(axis) for axis in range(len(order))))


def check_image(name: str, operator: Callable[[Array], Array], layout: Layout, dtype) -> tuple[int, ...]:
    """Returns the shape of what an operator makes of outputs at the training points.

    Raises:
      ConfigError: it is no array, or, where the operator is the training points' own, not of the outputs' shape.
    """
    image = jax.eval_shape(operator, jax.ShapeDtypeStruct(layout.shape, dtype))
    if not hasattr(image, "shape"):
        raise ConfigError(f"{name}: expected a product that gives an array, got {image!r}")
    if name == "k_train_train" and image.shape != layout.shape:
        raise ConfigError(f"{name}: expected a product that gives outputs of shape {layout.shape}, got {image.shape}")
    return image.shape


def on_columns(operator: Callable[[Array], Array], layout: Layout) -> Callable[[Array], Array]:
    """Returns an operator on outputs at the training points as one on columns `[p, k]`.

    For any k: the operator takes them as many at a time as outputs have columns.
    """
    width = math.prod(layout.traced_shape)

    def apply(columns):
        return as_columns(operator(from_columns(columns, layout.shape, layout)), layout)

    def apply_any(columns):
        rows, count = columns.shape
        if count == width:
            return apply(columns)
        groups = -(-count // width)
        padded = jnp.pad(columns, ((0, 0), (0, groups * width - count)))
        images = jax.lax.map(apply, padded.reshape(rows, groups, width).swapaxes(0, 1))
        return images.swapaxes(0, 1).reshape(-1, groups * width)[:, :count]

    return apply_any


def broadcast_outputs(name: str, value, shape: tuple[int, ...], dtype) -> Array:
    """Returns first outputs, given whole or as one number, in the shape that they must have."""
    value = real_array(name, value).astype(dtype)
    if value.ndim and value.shape != shape:
        raise ConfigError(f"{name}: expected a number or outputs of shape {shape}, got {value.shape}")
    return jnp.broadcast_to(value, shape)


def at_all_times(constant: Array, changing: Array) -> Array:
    """Returns an array with axes of length one in front, as many as `changing` has times in front."""
    return jnp.expand_dims(constant, tuple(range(changing.ndim - constant.ndim)))
