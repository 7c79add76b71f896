"""Sliding windows along an axis, or along the two copies of an axis in step.

A convolution of stride s averages a covariance along its diagonals (Novak et al. 2019, eq. 7; Xiao et al. 2018):

    K'[p, p'] = 1/F Σ_q K[s p + q, s p' + q].

The filter of ones on the diagonal is a product over spatial axes, so that axes H, W are dealt with one after the other,
each as a sum of its few taps: shifted arrays, which XLA fuses into one pass over memory. A tap costs one addition an
entry; a general convolution of the same arrays costs ten to a hundred times as much on a CPU.
"""

import dataclasses
import enum
import functools

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, did_you_mean
from aijax.typing import Array


class Padding(enum.Enum):
    """How inputs are continued beyond their ends; layers take the name or the member."""

    SAME = "SAME"
    VALID = "VALID"
    CIRCULAR = "CIRCULAR"


@dataclasses.dataclass(frozen=True)
class Window:
    """A window along one axis.

    Attributes:
      size: taps.
      stride: step between outputs.
      low, high: entries padded before and after, zeros or, if `circular`, the other end.
      dilation: distance between neighbouring inputs, in steps of the window (more than 1 for a transposed convolution).
      fold: period by which the outputs are wrapped and added up, None for no wrapping.
      turn: places by which wrapped outputs are turned back.
    """

    size: int
    stride: int = 1
    low: int = 0
    high: int = 0
    circular: bool = False
    dilation: int = 1
    fold: int | None = None
    turn: int = 0

    def outputs(self, inputs: int) -> int:
        """Returns the number of outputs, before folding."""
        length = self.low + (inputs - 1) * self.dilation + 1 + self.high
        return (length - self.size) // self.stride + 1

    def out_size(self, inputs: int) -> int:
        """Returns the number of outputs."""
        return self.outputs(inputs) if self.fold is None else self.fold


def window(inputs: int, size: int, stride: int, padding: str) -> Window:
    """Returns the window of a convolution or a pooling over `inputs` entries; SAME pads as TensorFlow and XLA do.

    Raises:
      ConfigError: a window that is larger than what it slides over.
    """
    if padding == "VALID":
        low, high = 0, 0
        if size > inputs:
            raise ConfigError(f"padding='VALID': a window of {size} does not fit into {inputs} positions")
    else:
        total = max((-(-inputs // stride) - 1) * stride + size - inputs, 0)
        low, high = total // 2, total - total // 2
    return Window(size, stride, low, high, circular=padding == "CIRCULAR")


def transposed_window(inputs: int, size: int, stride: int, padding: str) -> Window:
    """Returns the window of a transposed convolution: as `jax.lax.conv_transpose`; CIRCULAR wraps VALID's outputs.

    The wrapped outputs are turned so that the layer is the transpose of the circular convolution.
    """
    if padding == "SAME":
        total = size + stride - 2
        low = size - 1 if stride > size - 1 else -(-total // 2)
        return Window(size, low=low, high=total - low, dilation=stride)
    overlap = max(size - stride, 0)
    win = Window(size, low=size - 1, high=stride - 1 + overlap, dilation=stride)
    return win if padding == "VALID" else dataclasses.replace(win, fold=inputs * stride, turn=overlap // 2)


@functools.partial(jax.jit, static_argnums=(1, 2))
def windowed_sum(x: Array, axes: tuple[int, ...], win: Window) -> Array:
    """Returns the sum over the window's taps of `x` shifted along all of `axes` in step.

    With the two copies of a spatial axis this is what a convolution does to a covariance; with one axis it is pooling.
    """
    if win.circular:
        for axis in axes:
            x = wrap_pad(x, axis, win.low, win.high)
        win = dataclasses.replace(win, low=0, high=0, circular=False)
    count = {axis: win.outputs(x.shape[axis]) for axis in axes}
    x = _taps(x, count, win)
    if win.fold is not None:
        for axis in axes:
            x = fold(x, axis, win)
    return x


def wrap_pad(x: Array, axis: int, low: int, high: int) -> Array:
    """Returns `x` continued periodically along `axis` by `low` entries before and `high` after."""
    if low == high == 0:
        return x
    return jnp.pad(x, [(low, high) if a == axis else (0, 0) for a in range(x.ndim)], mode="wrap")


def fold(x: Array, axis: int, win: Window) -> Array:
    """Returns `x` wrapped around a circle of `win.fold` entries along `axis`, overlaps added."""
    times = -(-x.shape[axis] // win.fold)
    x = jnp.pad(x, [(0, times * win.fold - x.shape[axis]) if a == axis else (0, 0) for a in range(x.ndim)])
    x = x.reshape(*x.shape[:axis], times, win.fold, *x.shape[axis + 1 :]).sum(axis)
    return jnp.roll(x, -win.turn, axis)


def centre_entries(x: Array, axis: int, inputs: int, win: Window, padding: str) -> Array:
    """Returns for each output the entry of `x` at the centre of its window (at its stride's start where it is padded).

    It decides whether the output counts as padding. An axis of one entry for all `inputs` stays as it is.
    """
    if x.shape[axis] == 1:
        return x
    start = (win.size - 1) // 2 if padding == "VALID" else 0
    return jax.lax.slice_in_dim(x, start, start + (win.out_size(inputs) - 1) * win.stride + 1, win.stride, axis)


def check_window(name: str, shape, strides, padding) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """Returns the window and its strides as tuples, and the name of the padding; strides of None are ones.

    Raises:
      ConfigError: sizes or strides that are not positive, or of different numbers, or an unknown padding.
    """
    shape = _positive(name, "window", shape)
    strides = (1,) * len(shape) if strides is None else _positive(name, "strides", strides)
    if len(strides) != len(shape):
        raise ConfigError(f"{name}: {len(strides)} strides {strides} for {len(shape)} spatial axes")
    padding = padding.name if isinstance(padding, Padding) else padding
    if padding not in Padding.__members__:
        raise ConfigError(f"{name}: unknown padding {padding!r}{did_you_mean(str(padding), Padding.__members__)}")
    return shape, strides, padding


def _positive(name: str, argument: str, values) -> tuple[int, ...]:
    values = tuple(values) if isinstance(values, (tuple, list)) else values
    if not isinstance(values, tuple) or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise ConfigError(f"{name}: {argument} {values!r}, expected a tuple of positive integers, one a spatial axis")
    return values


def _taps(x: Array, count: dict[int, int], win: Window) -> Array:
    """The sum over taps, in a loop: unrolled, XLA fuses them with the layers before, works those out for each tap."""
    pads = [(0, 0, 0)] * x.ndim
    sizes, strides = list(x.shape), [1] * x.ndim
    for axis, outputs in count.items():
        span = (outputs - 1) * win.stride + 1
        pads[axis] = (win.low, span + win.size - 1 - win.low - (x.shape[axis] - 1) * win.dilation - 1, win.dilation - 1)
        sizes[axis], strides[axis] = span, win.stride
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), pads)

    def tap(q: Array) -> Array:
        seen = jax.lax.dynamic_slice(x, [q if axis in count else 0 for axis in range(x.ndim)], sizes)
        return seen if win.stride == 1 else jax.lax.slice(seen, (0,) * x.ndim, sizes, strides)

    if win.size == 1:
        return tap(0)
    total, _ = jax.lax.scan(lambda total, q: (total + tap(q), None), tap(0), jnp.arange(1, win.size))
    return total
