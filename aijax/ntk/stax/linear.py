"""Dense layers, and layers that only look at their input differently.

With `parameterization="ntk"` (Jacot et al. 2018) `z = W_std / sqrt(N) W x + b_std b`, W and b standard normal and N the
number of inputs:

    nngp <- W_std^2 nngp + b_std^2,      ntk <- nngp_new + W_std^2 ntk.

With "standard" (Sohl-Dickstein et al. 2020) `z = W x / sqrt(s_in) + b`, W ~ N(0, W_std^2 / N), b ~ N(0, b_std^2), and
N = fan_in / s_in counts the inputs before widths are scaled by `s = (s_in, s_out)`:

    nngp <- W_std^2 nngp + b_std^2,      ntk <- N nngp + W_std^2 ntk + [1 with a bias].
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, did_you_mean
from aijax.ntk.stax.kernel import Kernel, diagonal, spatial_size
from aijax.ntk.stax.layer import Layer, layer, standard_normal
from aijax.ntk.stax.masking import all_masked, supports_masking
from aijax.ntk.stax.requirements import Bool, Diagonal, requires
from aijax.typing import Array

PARAMETERIZATIONS = ("ntk", "standard")


@layer
@supports_masking(remask_kernel=False)
def Identity() -> Layer:
    """Returns the layer that passes its input on."""

    def init_fn(key, input_shape):
        return input_shape, ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        return inputs

    def kernel_fn(kernel, **kwargs):
        return kernel

    return init_fn, apply_fn, kernel_fn


@layer
@supports_masking(remask_kernel=True)
def Dense(
    out_dim: int,
    W_std: float = 1.0,
    b_std: float | None = None,
    batch_axis: int = 0,
    channel_axis: int = -1,
    parameterization: str = "ntk",
    s: tuple[int, int] = (1, 1),
) -> Layer:
    """Returns the dense layer over the channels, applied to each position alike. Its parameters are `(W, b)`.

    Args:
      out_dim: output channels; matters to the finite network, and to the kernel of a "standard" layer above.
      W_std: standard deviation of the weights.
      b_std: that of the biases; None for no biases, which is not the same as 0.0.
      batch_axis: axis of the examples.
      channel_axis: axis of the channels.
      parameterization: "ntk" or "standard".
      s: scales of the input and output widths, for "standard" only: W is `(s[0] in, s[1] out_dim)`.

    Raises:
      ConfigError: a negative deviation, a width below one, an unknown parameterization.

    >>> from aijax.ntk import stax
    >>> kernel_fn = stax.Dense(1, W_std=2.0, b_std=1.0)[2]
    >>> kernel_fn(jnp.ones((1, 3)), get="ntk").item()
    5.0
    """
    check_affine("Dense", out_dim, W_std, b_std, parameterization, s)

    def init_fn(key, input_shape):
        batch, channels = batch_axis % len(input_shape), channel_axis % len(input_shape)
        width = s[1] * out_dim
        output_shape = tuple(width if a == channels else size for a, size in enumerate(input_shape))
        bias_shape = [1] * len(input_shape)
        bias_shape[channels] = width
        if batch == channels:
            raise ConfigError(f"Dense: batch_axis and channel_axis are one axis of shape {input_shape}")
        key_w, key_b = jax.random.split(key)
        fan_in = input_shape[channels]
        w = weights(key_w, (fan_in, width), fan_in, W_std, parameterization, s)
        return output_shape, (w, biases(key_b, tuple(bias_shape), b_std, parameterization))

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        w, b = params
        outputs = jnp.moveaxis(jnp.tensordot(inputs, w, ((channel_axis,), (0,))), -1, channel_axis)
        return affine(outputs, b, inputs.shape[channel_axis], W_std, b_std, parameterization, s)

    @requires(batch_axis=batch_axis, channel_axis=channel_axis, diagonal_spatial=Diagonal(Bool.YES, Bool.NO))
    def kernel_fn(kernel, **kwargs):
        return affine_kernel(kernel, kernel.shape1[kernel.channel_axis], W_std, b_std, parameterization, s)

    def mask_fn(mask, input_shape):
        return all_masked(mask, channel_axis)

    return init_fn, apply_fn, kernel_fn, mask_fn


@layer
@supports_masking(remask_kernel=False)
def Flatten(batch_axis: int = 0, batch_axis_out: int = 0) -> Layer:
    """Returns the layer that makes every position a channel: `(n, H, W, c) -> (n, H W c)`.

    Its kernel is the mean over positions of the covariance of a position with itself.

    Args:
      batch_axis: axis of the examples in the input.
      batch_axis_out: axis of the examples in the output, 0 or 1 (or -1, -2).

    Raises:
      ConfigError: a `batch_axis_out` that is none of these.
    """
    if batch_axis_out not in (0, 1, -1, -2):
        raise ConfigError(f"Flatten: batch_axis_out={batch_axis_out}, expected 0 or 1 of two axes")
    batch_out = batch_axis_out % 2

    def flat(x: Array) -> Array:
        x = jnp.moveaxis(x, batch_axis, 0)
        return jnp.moveaxis(x.reshape(x.shape[0], -1), 0, batch_out)

    def init_fn(key, input_shape):
        batch = input_shape[batch_axis]
        rest = math.prod(size for a, size in enumerate(input_shape) if a != batch_axis % len(input_shape))
        return (batch, rest) if batch_out == 0 else (rest, batch), ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        return flat(inputs)

    @requires(batch_axis=batch_axis, diagonal_spatial=Diagonal(Bool.YES, Bool.YES))
    def kernel_fn(kernel, **kwargs):
        positions = spatial_size(kernel)
        flattened = kernel.map(lambda cov, first: _trace_positions(cov, first, kernel.diagonal_spatial) / positions)
        return flattened.replace(
            is_gaussian=kernel.is_gaussian and not kernel.spatial_axes,
            diagonal_spatial=False,
            batch_axis=batch_out,
            channel_axis=1 - batch_out,
        )

    def mask_fn(mask, input_shape):
        full = [1 if a == batch_axis % len(input_shape) else size for a, size in enumerate(input_shape)]
        full[batch_axis] = mask.shape[batch_axis]
        return flat(jnp.broadcast_to(mask, full))

    return init_fn, apply_fn, kernel_fn, mask_fn


def weights(key, shape, fan_in: int, W_std, parameterization: str, s: tuple[int, int]) -> Array:
    """Returns weights as the parameterization draws them, for `fan_in` inputs of a scaled network."""
    w = standard_normal(key, shape)
    return w if parameterization == "ntk" else w * (W_std / math.sqrt(fan_in / s[0]))


def biases(key, shape, b_std, parameterization: str) -> Array | None:
    """Returns biases as the parameterization draws them, or None."""
    if b_std is None:
        return None
    b = standard_normal(key, shape)
    return b if parameterization == "ntk" else b * b_std


def affine(outputs: Array, b: Array | None, fan_in: int, W_std, b_std, parameterization: str, s) -> Array:
    """Returns the layer's outputs from those of its bare weights: scaled, with the bias added."""
    if parameterization == "ntk":
        outputs = outputs * (W_std / math.sqrt(fan_in))
        return outputs if b is None else outputs + b * b_std
    outputs = outputs / math.sqrt(s[0])
    return outputs if b is None else outputs + b


def affine_kernel(kernel: Kernel, fan_in: int, W_std, b_std, parameterization: str, s) -> Kernel:
    """Returns the kernel after random weights and biases, from that of the inputs each output sees.

    Args:
      kernel: its covariances are means over the `fan_in` inputs of an output.
      fan_in: number of inputs of an output in the finite network, at its scaled width.
    """
    w2 = W_std**2
    b2 = 0 if b_std is None else b_std**2
    new = {n: v * w2 + b2 for n in ("nngp", "cov1", "cov2") if (v := getattr(kernel, n)) is not None}
    if kernel.ntk is not None:
        if parameterization == "ntk":
            new["ntk"] = new["nngp"] + w2 * kernel.ntk
        else:
            bias = 0 if b_std is None else 1
            new["ntk"] = (fan_in / s[0]) * kernel.nngp + w2 * kernel.ntk + bias
    return kernel.replace(**new, is_gaussian=True)


def check_stds(name: str, **stds) -> None:
    """Raises a `ConfigError` for a standard deviation that is known to be negative or no number."""
    for argument, value in stds.items():
        if isinstance(value, (int, float, np.generic, np.ndarray)) and not value >= 0:
            raise ConfigError(f"{name}: {argument}={value}, expected a standard deviation that is not negative")


def check_affine(name: str, width: int, W_std, b_std, parameterization: str, s) -> None:
    """Raises a `ConfigError` for arguments that no layer with random weights can have."""
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ConfigError(f"{name}: {width!r} output channels, expected a positive number")
    check_stds(name, W_std=W_std, b_std=b_std)
    if parameterization not in PARAMETERIZATIONS:
        near = did_you_mean(str(parameterization), PARAMETERIZATIONS)
        raise ConfigError(f"{name}: unknown parameterization {parameterization!r}{near}")
    if not isinstance(s, tuple) or len(s) != 2 or any(not scale > 0 for scale in s):
        raise ConfigError(f"{name}: s={s!r}, expected two positive scales of the widths, (input, output)")


def _trace_positions(cov: Array, first: int, is_diagonal: bool) -> Array:
    while not is_diagonal and cov.ndim > first:
        cov = jnp.sum(diagonal(cov, first), first)
    return jnp.sum(cov, tuple(range(first, cov.ndim)))
