"""Convolutions of any number of spatial axes: shared weights, transposed, and unshared ("locally connected").

An output sees `fan_in = channels * prod(filter)` inputs; what `windows` gives, divided by the number of taps, is the
mean over them, and `linear.affine_kernel` does the rest. Unshared weights of different positions are independent, so
that their covariances are zero (Novak et al. 2019, section 3.3).
"""

import dataclasses
import math
import string
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax.kernel import Kernel, diagonal
from aijax.ntk.stax.layer import Layer, layer
from aijax.ntk.stax.linear import affine, affine_kernel, biases, check_affine, weights
from aijax.ntk.stax.linear_map import with_zeros
from aijax.ntk.stax.masking import all_masked, supports_masking
from aijax.ntk.stax.requirements import Bool, Diagonal, requires
from aijax.ntk.stax.windows import (
    Window,
    centre_entries,
    check_window,
    fold,
    transposed_window,
    window,
    windowed_sum,
    wrap_pad,
)
from aijax.typing import Array

DimensionNumbers = tuple[str, str, str]


@layer
def Conv(
    out_chan: int,
    filter_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    W_std: float = 1.0,
    b_std: float | None = None,
    dimension_numbers: DimensionNumbers | None = None,
    parameterization: str = "ntk",
    s: tuple[int, int] = (1, 1),
) -> Layer:
    """Returns the convolution with one filter for all positions. Its parameters are `(W, b)`.

    Args:
      out_chan: output channels; matters to the finite network, and to the kernel of a "standard" layer above.
      filter_shape: taps along each spatial axis, in the order of `dimension_numbers[1]`; `()` for a dense layer.
      strides: steps along them; None for ones.
      padding: "VALID", "SAME" (zeros, as XLA) or "CIRCULAR" (as much as SAME, with the other end).
      W_std: standard deviation of the weights.
      b_std: that of the biases, one a channel; None for no biases.
      dimension_numbers: axes of input, filter and output, as of `jax.lax.conv_general_dilated`; None for channels last.
      parameterization: "ntk" or "standard" (see `linear`).
      s: scales of the input and output widths, for "standard" only.

    Raises:
      ConfigError: a negative deviation, a width below one, an unknown padding or parameterization, strides that do
        not fit the filter; on a call, dimension numbers that do not, inputs of another rank.

    >>> from aijax.ntk import stax
    >>> kernel_fn = stax.Conv(1, (3, 3), padding="SAME", W_std=3.0)[2]
    >>> kernel_fn(jnp.ones((1, 4, 4, 2)), get="nngp")[0, 0, 0, 0, 0].round(2).tolist()
    [4.0, 4.0, 4.0, 2.0]
    """
    spec = _spec("Conv", filter_shape, strides, padding, dimension_numbers, out_chan, W_std, b_std, parameterization, s)
    return _convolution(spec)


@layer
def ConvTranspose(
    out_chan: int,
    filter_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    W_std: float = 1.0,
    b_std: float | None = None,
    dimension_numbers: DimensionNumbers | None = None,
    parameterization: str = "ntk",
    s: tuple[int, int] = (1, 1),
) -> Layer:
    """Returns the transposed convolution, `jax.lax.conv_transpose` without a flip of the filter.

    `W_std` is divided by the square root of the same fan-in as in `Conv`, whose arguments these are. CIRCULAR is
    the transpose of a circular `Conv`.

    Raises:
      ConfigError: as of `Conv`.
    """
    name = "ConvTranspose"
    spec = _spec(name, filter_shape, strides, padding, dimension_numbers, out_chan, W_std, b_std, parameterization, s)
    return _convolution(spec)


@layer
def ConvLocal(
    out_chan: int,
    filter_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    W_std: float = 1.0,
    b_std: float | None = None,
    dimension_numbers: DimensionNumbers | None = None,
    parameterization: str = "ntk",
    s: tuple[int, int] = (1, 1),
) -> Layer:
    """Returns the convolution with weights and biases of its own at each position; arguments are those of `Conv`.

    Raises:
      ConfigError: as of `Conv`.
    """
    name = "ConvLocal"
    spec = _spec(name, filter_shape, strides, padding, dimension_numbers, out_chan, W_std, b_std, parameterization, s)
    return _convolution(spec)


@dataclasses.dataclass(frozen=True)
class _Spec:
    name: str
    filter_shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    dimensions: DimensionNumbers
    out_chan: int
    W_std: float
    b_std: float | None
    parameterization: str
    s: tuple[int, int]

    @property
    def batch_axis(self) -> int:
        return self.dimensions[0].index("N")

    @property
    def channel_axis(self) -> int:
        return self.dimensions[0].index("C")

    @property
    def letters(self) -> str:
        """Spatial axes in the order of the input."""
        return "".join(c for c in self.dimensions[0] if c not in "NC")

    @property
    def filter_letters(self) -> str:
        return "".join(c for c in self.dimensions[1] if c not in "IO")

    @property
    def out_letters(self) -> str:
        return "".join(c for c in self.dimensions[2] if c not in "NC")

    @property
    def width(self) -> int:
        return self.s[1] * self.out_chan

    def windows(self, shape: tuple[int, ...]) -> dict[str, Window]:
        """The window of each spatial axis over inputs of this shape."""
        spatials = [set(letters) for letters in (self.letters, self.filter_letters, self.out_letters)]
        if not spatials[0] == spatials[1] == spatials[2] or len(spatials[0]) != len(self.filter_shape):
            raise ConfigError(
                f"{self.name}: dimension_numbers {self.dimensions} do not fit a filter of shape {self.filter_shape}"
            )
        if len(shape) != len(self.dimensions[0]):
            raise ConfigError(f"{self.name}: inputs of shape {shape}, expected the axes {self.dimensions[0]}")
        make = transposed_window if self.name == "ConvTranspose" else window
        sizes = zip(self.filter_letters, self.filter_shape, self.strides, strict=True)
        return {c: make(shape[self.dimensions[0].index(c)], size, step, self.padding) for c, size, step in sizes}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = {c: win.out_size(shape[self.dimensions[0].index(c)]) for c, win in self.windows(shape).items()}
        sizes |= {"N": shape[self.batch_axis], "C": self.width}
        return tuple(sizes[c] for c in self.dimensions[2])

    def fan_in(self, shape: tuple[int, ...]) -> int:
        return shape[self.channel_axis] * math.prod(self.filter_shape)


def _spec(
    name, filter_shape, strides, padding, dimension_numbers, out_chan, W_std, b_std, parameterization, s
) -> _Spec:
    filter_shape, strides, padding = check_window(name, filter_shape, strides, padding)
    check_affine(name, out_chan, W_std, b_std, parameterization, s)
    if dimension_numbers is None:
        free = [c for c in "HWD" + string.ascii_uppercase[::-1] if c not in "NCIO"]
        spatial = "".join(dict.fromkeys(free))[: len(filter_shape)]
        dimension_numbers = ("N" + spatial + "C", spatial + "IO", "N" + spatial + "C")
    for spec, pair in zip(dimension_numbers, ("NC", "IO", "NC"), strict=True):
        if any(spec.count(c) != 1 for c in pair) or len(set(spec)) != len(spec):
            raise ConfigError(
                f"{name}: dimension_numbers {spec!r}, expected {pair[0]}, {pair[1]} and one letter an axis"
            )
    dimensions = tuple(dimension_numbers)
    return _Spec(name, filter_shape, strides, padding, dimensions, out_chan, W_std, b_std, parameterization, s)


@supports_masking(remask_kernel=True)
def _convolution(spec: _Spec) -> Layer:
    local = spec.name == "ConvLocal"

    def init_fn(key, input_shape):
        output_shape = spec.output_shape(input_shape)
        sizes = dict(zip(spec.filter_letters, spec.filter_shape, strict=True))
        if local:
            taps = math.prod(spec.filter_shape) * input_shape[spec.channel_axis]
            sizes = {c: output_shape[spec.dimensions[2].index(c)] for c in sizes} | {"I": taps}
        else:
            sizes["I"] = input_shape[spec.channel_axis]
        sizes["O"] = spec.width
        shape = tuple(sizes[c] for c in spec.dimensions[1])
        key_w, key_b = jax.random.split(key)
        w = weights(key_w, shape, spec.fan_in(input_shape), spec.W_std, spec.parameterization, spec.s)
        kept = "C" + spec.letters if local else "C"
        bias_shape = tuple(n if c in kept else 1 for c, n in zip(spec.dimensions[2], output_shape, strict=True))
        return output_shape, (w, biases(key_b, bias_shape, spec.b_std, spec.parameterization))

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        w, b = params
        outputs = _apply(spec, inputs, w)
        fan_in = spec.fan_in(inputs.shape)
        return affine(outputs, b, fan_in, spec.W_std, spec.b_std, spec.parameterization, spec.s)

    needs = Diagonal(Bool.YES, Bool.MAYBE if local else Bool.NO)

    @requires(batch_axis=spec.batch_axis, channel_axis=spec.channel_axis, diagonal_spatial=needs)
    def kernel_fn(kernel, **kwargs):
        fan_in = spec.fan_in(kernel.shape1)
        kernel = _windowed(spec, _only_diagonal(kernel) if local else kernel)
        kernel = affine_kernel(kernel, fan_in, spec.W_std, spec.b_std, spec.parameterization, spec.s)
        return kernel.replace(batch_axis=spec.dimensions[2].index("N"), channel_axis=spec.dimensions[2].index("C"))

    def unshared_kernel_fn(kernel, **kwargs):
        full = not kernel.diagonal_spatial
        kernel = kernel_fn(kernel, **kwargs)
        return with_zeros(kernel) if full else kernel

    def mask_fn(mask, input_shape):
        return _out_mask(spec, mask, input_shape)

    if local:
        unshared_kernel_fn.requirements = kernel_fn.requirements
    return init_fn, apply_fn, unshared_kernel_fn if local else kernel_fn, mask_fn


def _apply(spec: _Spec, inputs: Array, w: Array) -> Array:
    windows = spec.windows(inputs.shape)
    padding = "VALID" if spec.padding == "CIRCULAR" else spec.padding
    if spec.name == "ConvTranspose":
        outputs = jax.lax.conv_transpose(inputs, w, spec.strides, padding, dimension_numbers=spec.dimensions)
        for letter, win in windows.items():
            if win.fold is not None:
                outputs = fold(outputs, spec.dimensions[2].index(letter), win)
        return outputs
    if spec.padding == "CIRCULAR":
        for letter, win in windows.items():
            inputs = wrap_pad(inputs, spec.dimensions[0].index(letter), win.low, win.high)
    if spec.name == "ConvLocal":
        args = (inputs, w, spec.strides, padding, spec.filter_shape)
        return jax.lax.conv_general_dilated_local(*args, dimension_numbers=spec.dimensions)
    return jax.lax.conv_general_dilated(inputs, w, spec.strides, padding, dimension_numbers=spec.dimensions)


def _windowed(spec: _Spec, kernel: Kernel) -> Kernel:
    """Means over the taps, with spatial axes in the order of the output."""
    windows = spec.windows(kernel.shape1)
    taps = math.prod(spec.filter_shape)

    def mean(cov: Array, first: int) -> Array:
        for i, letter in enumerate(spec.letters):
            axes = (first + i,) if kernel.diagonal_spatial else (first + 2 * i, first + 2 * i + 1)
            cov = windowed_sum(cov, axes, windows[letter])
        return cov / taps

    return kernel.map(mean).transpose(tuple(spec.letters.index(c) for c in spec.out_letters))


def _only_diagonal(kernel: Kernel) -> Kernel:
    if kernel.diagonal_spatial:
        return kernel

    def take(cov: Array, first: int) -> Array:
        for axis in range(first, first + len(kernel.spatial_axes)):
            cov = diagonal(cov, axis)
        return cov

    return kernel.map(take).replace(diagonal_spatial=True)


def _out_mask(spec: _Spec, mask: Array, shape: tuple[int, ...]) -> Array:
    """The centre of the window decides; for a transposed convolution any masked input that is seen."""
    mask = all_masked(mask, spec.channel_axis)
    for letter, win in spec.windows(shape).items():
        axis = spec.dimensions[0].index(letter)
        if spec.name != "ConvTranspose":
            mask = centre_entries(mask, axis, shape[axis], win, spec.padding)
        elif mask.shape[axis] > 1:
            mask = windowed_sum(mask.astype(jnp.float32), (axis,), win) > 0
    return jnp.transpose(mask, [spec.dimensions[0].index(c) for c in spec.dimensions[2]])
