"""Convolutions of channels-last images whose derivatives are as fast as they, alone and inside of compiled loops.

    y[b, h, w, o] = sum_{i, j, c} x[b, s h + i - p, s w + j - p, c] k[i, j, c, o]

is bilinear, so its derivatives are two more bilinear maps of the same numbers:

    dL/dx = g, with s - 1 zeros after each pixel, convolved with k turned by 180 degrees, inputs and outputs exchanged;
    dL/dk[i, j, c, o] = sum_{b, h, w} x[b, s h + i - p, s w + j - p, c] g[b, h, w, o].

On a CPU, XLA computes dL/dk of a 3 x 3 convolution at a quarter of the speed of the convolution itself, and two hundred
times slower yet inside a loop such as `jax.lax.scan`, where its convolutions of exchanged dimensions are slow too. Here
dL/dx is a convolution as any other. So is dL/dk on CPUs, with channels c for images, images b for channels and g for
the kernel, each copied into that order, on one device for so many images at a time as the cache holds. `convolve` can
be differentiated forwards, backwards and again, mapped by `vmap` and sharded; inside of `shard_map` and where axes of
a mesh are explicit it is XLA's own, as is dL/dk on other platforms. A 1 x 1 kernel is a matrix and its convolution a
product.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType

from aijax.errors import ConfigError
from aijax.parallel import on_one_device
from aijax.typing import Array, Float

Pair = tuple[int, int]
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
CHUNK_BYTES = 2**20
"""Size of the gradients g of images that the derivative by the kernel takes at a time on a CPU."""


class Conv(nn.Module):
    """A convolution with a bias: images [b, h, w, c] -> [b, h', w', features].

    Attributes:
      features: channels of the result.
      size: (height, width) of the kernel.
      stride, padding: see `convolve`.
      zero: whether the kernel is zero at first.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.
    """

    features: int
    size: Pair = (3, 3)
    stride: int = 1
    padding: int | tuple[Pair, Pair] = 1
    zero: bool = False
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b k l o"]:
        init = nn.initializers.zeros if self.zero else nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (*self.size, x.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return convolve(x, kernel, stride=self.stride, padding=self.padding) + bias


def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "i j c o"],
    *,
    stride: int | Pair = 1,
    padding: int | tuple[Pair, Pair] = 0,
) -> Float[Array, "b k l o"]:
    """Returns the convolution (as networks call it; no axis is turned) of images and a kernel.

    Args:
      x: images.
      kernel: of the same floating-point type.
      stride: step of the kernel in both directions, or in each.
      padding: zeros on every side, or ((before, after), (before, after)) of rows and columns.

    Raises:
      ConfigError: arrays of other shapes or of different types, a stride below 1, a kernel larger than the image.

    >>> x, kernel = jnp.ones((1, 3, 3, 1)), jnp.ones((2, 2, 1, 1))
    >>> convolve(x, kernel, stride=2, padding=((0, 1), (0, 1)))[0, :, :, 0].tolist()
    [[4.0, 2.0], [2.0, 1.0]]
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[-1] != kernel.shape[2] or x.dtype != kernel.dtype:
        raise ConfigError(
            "kernel: expected [i, j, c, o] of the type of images [b, h, w, c], "
            f"got {kernel.dtype}{list(kernel.shape)} for {x.dtype}{list(x.shape)}"
        )
    stride = (stride, stride) if isinstance(stride, int) else tuple(stride)
    if min(stride) < 1:
        raise ConfigError(f"stride: expected steps of at least 1, got {stride!r}")
    padding = ((padding, padding),) * 2 if isinstance(padding, int) else tuple(map(tuple, padding))
    space = tuple(n + sum(p) for n, p in zip(x.shape[1:3], padding, strict=True))
    if any(n < size for n, size in zip(space, kernel.shape[:2], strict=True)):
        raise ConfigError(f"kernel: expected one no larger than {list(space)} pixels, got {list(kernel.shape[:2])}")
    if kernel.shape[:2] == stride == (1, 1) and padding == ((0, 0), (0, 0)):
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])
    convolution = conv_p.bind if set(jax.sharding.get_abstract_mesh().axis_types) <= {AxisType.Auto} else _convolution
    return convolution(x, kernel, stride=stride, dilation=(1, 1), padding=padding)


def _convolution(x, kernel, *, stride, dilation, padding):
    return jax.lax.conv_general_dilated(x, kernel, stride, padding, dilation, dimension_numbers=DIMENSIONS)


def _input_gradient(g, kernel, space, *, stride, dilation, padding):
    """dL/dx for x of `space` pixels; strides become dilations of g and the other way round."""
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    sizes = zip(space, g.shape[1:3], kernel.shape[:2], stride, dilation, padding, strict=True)
    around = []
    for n, m, size, step, spread, (before, _) in sizes:
        first = size - 1 - before
        around.append((first, (n - 1) * spread + size - 1 - (m - 1) * step - first))
    return conv_p.bind(g, turned, stride=dilation, dilation=stride, padding=tuple(around))


def _kernel_gradient(x, g, *, size, stride, dilation, padding, cut):
    """dL/dk as XLA has it."""
    del cut
    kernel = jax.ShapeDtypeStruct((*size, x.shape[-1], g.shape[-1]), x.dtype)
    options = {"stride": stride, "dilation": dilation, "padding": padding}
    return jax.linear_transpose(lambda kernel: _convolution(x, kernel, **options), kernel)(g)[0]


def _kernel_gradient_by_chunks(x, g, *, size, stride, dilation, padding, cut):
    """dL/dk as a sum of convolutions of the channels of x by g, one for each chunk of images (`cut`), or as one."""
    b, h, w, o = g.shape
    fitting = max(CHUNK_BYTES // max(h * w * o * g.dtype.itemsize, 1), 1) if cut else b
    chunk = max(n for n in range(1, b + 1) if b % n == 0 and n <= fitting) if b else 1
    around = []
    for n, m, window, step, spread, (before, _) in zip(
        x.shape[1:3], (h, w), size, stride, dilation, padding, strict=True
    ):
        around.append((before, window + (m - 1) * step - (n - 1) * spread - 1 - before))
    total = jnp.zeros((x.shape[-1], *size, o), jnp.promote_types(x.dtype, jnp.float32))

    def add(total, images):
        x, g = images
        options = {"lhs_dilation": dilation, "rhs_dilation": stride, "preferred_element_type": total.dtype}
        x, g = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
        return total + jax.lax.conv_general_dilated(x, g, (1, 1), around, dimension_numbers=DIMENSIONS, **options), None

    total, _ = jax.lax.scan(add, total, [a.reshape(b // chunk, chunk, *a.shape[1:]) for a in (x, g)])
    return total.transpose(1, 2, 0, 3).astype(x.dtype)


def _primitive(name, function, *options):
    """A primitive that computes `function(x, y, stride=..., dilation=..., padding=...)` of images x."""
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(function, static_argnames=("stride", "dilation", "padding", *options)))

    def types(x, y, **options):
        shapes = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, y))
        out = jax.eval_shape(functools.partial(function, **options), *shapes)
        return jax.core.ShapedArray(out.shape, out.dtype)

    primitive.def_abstract_eval(types)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    return primitive


def _space(x):
    return x.aval.shape[1:3]


conv_p = _primitive("convolve", _convolution)
kernel_gradient_p = _primitive("convolve_kernel_gradient", _kernel_gradient, "size", "cut")
mlir.register_lowering(
    kernel_gradient_p, mlir.lower_fun(_kernel_gradient_by_chunks, multiple_results=False), platform="cpu"
)
ad.defbilinear(
    conv_p,
    lambda g, x, kernel, **options: _input_gradient(g, kernel, _space(x), **options),
    lambda g, x, kernel, **options: kernel_gradient_p.bind(
        x, g, size=kernel.aval.shape[:2], cut=on_one_device(), **options
    ),
)
ad.defbilinear(
    kernel_gradient_p,
    lambda kernel, x, g, size, cut, **options: _input_gradient(g, kernel, _space(x), **options),
    lambda kernel, x, g, size, cut, **options: conv_p.bind(x, kernel, **options),
)


def _map_convolution(arrays, axes, **options):
    """Copies of x are more images, copies of the kernel more channels of the result."""
    (x, kernel), (of_x, of_kernel) = arrays, axes
    if of_kernel is None:
        x = jnp.moveaxis(x, of_x, 0)
        y = conv_p.bind(x.reshape(-1, *x.shape[2:]), kernel, **options)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0
    if of_x is None:
        y = conv_p.bind(x, _join_last(kernel, of_kernel), **options)
        return y.reshape(*y.shape[:-1], kernel.shape[of_kernel], -1), y.ndim - 1
    return _pairs(conv_p, _convolution, arrays, axes, options)


def _map_kernel_gradient(arrays, axes, **options):
    (x, g), (of_x, of_g) = arrays, axes
    if of_g is None:
        kernel = kernel_gradient_p.bind(_join_last(x, of_x), g, **options)
        return kernel.reshape(*kernel.shape[:2], x.shape[of_x], -1, kernel.shape[-1]), 2
    if of_x is None:
        kernel = kernel_gradient_p.bind(x, _join_last(g, of_g), **options)
        return kernel.reshape(*kernel.shape[:-1], g.shape[of_g], -1), kernel.ndim - 1
    return _pairs(kernel_gradient_p, _kernel_gradient, arrays, axes, options)


def _join_last(a, axis):
    a = jnp.moveaxis(a, axis, -2)
    return a.reshape(*a.shape[:-2], -1)


def _pairs(primitive, function, arrays, axes, options):
    """Copies of both arguments go one by one on one device, and where they may be split over devices XLA's own way."""
    arrays = tuple(jnp.moveaxis(a, axis, 0) for a, axis in zip(arrays, axes, strict=True))
    if on_one_device():
        return jax.lax.map(lambda xy: primitive.bind(*xy, **options), arrays), 0
    return jax.vmap(functools.partial(function, **options))(*arrays), 0


batching.primitive_batchers[conv_p] = _map_convolution
batching.primitive_batchers[kernel_gradient_p] = _map_kernel_gradient
