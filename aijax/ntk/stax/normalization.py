"""Layer normalisation (Ba, Kiros and Hinton 2016) without trained scale and shift.

In the limit of many channels the mean over Gaussian channels is 0 and the mean square is the variance q, so that each
covariance, and the tangent kernel, is divided by sqrt((q1 + eps) (q2 + eps)); q is averaged over those positions that
are normalised together.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax.kernel import Kernel
from aijax.ntk.stax.layer import Layer, layer
from aijax.ntk.stax.masking import supports_masking
from aijax.ntk.stax.requirements import Bool, Diagonal, requires
from aijax.typing import Array


@layer
@supports_masking(remask_kernel=True)
def LayerNorm(axis: int | Sequence[int] = -1, eps: float = 1e-12, batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Returns the layer (x - mean) / sqrt(variance + eps), mean and variance being over `axis`.

    Args:
      axis: axes that are normalised together, the channels among them; with the examples among them too, a kernel
        depends on the whole batch. Padding does not count.
      eps: added to the variance.
      batch_axis: axis of the examples.
      channel_axis: axis of the channels.

    Raises:
      ConfigError: a negative `eps`; on a call, an `axis` that inputs do not have, or, for a kernel, without the
        channels, and a kernel that is not Gaussian.

    >>> from aijax.ntk import stax
    >>> _, _, kernel_fn = stax.serial(stax.Dense(1, 3.0), stax.LayerNorm())
    >>> round(float(kernel_fn(jnp.ones((1, 4)), get="nngp")[0, 0]), 6)
    1.0
    """
    if isinstance(eps, (int, float)) and not eps >= 0:
        raise ConfigError(f"LayerNorm: eps={eps}, expected a number that is not negative")
    axes_given = (axis,) if isinstance(axis, int) else tuple(axis)

    def axes_of(ndim: int) -> tuple[int, ...]:
        axes = tuple(sorted({a % ndim for a in axes_given}))
        if not axes or any(not -ndim <= a < ndim for a in axes_given):
            raise ConfigError(f"LayerNorm: axis={axis} must name axes of inputs of rank {ndim}")
        return axes

    def init_fn(key, input_shape):
        axes_of(len(input_shape))
        return input_shape, ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        axes = axes_of(inputs.ndim)
        kept = True if mask is None else jnp.broadcast_to(~mask, inputs.shape)
        mean = jnp.mean(inputs, axes, keepdims=True, where=kept)
        variance = jnp.var(inputs, axes, keepdims=True, where=kept)
        result = (inputs - mean) / jnp.sqrt(eps + variance)
        return result if mask is None else jnp.where(kept, result, 0)

    @requires(batch_axis=batch_axis, channel_axis=channel_axis, diagonal_spatial=Diagonal(Bool.YES, Bool.NO))
    def kernel_fn(kernel, **kwargs):
        axes = axes_of(len(kernel.shape1))
        if kernel.channel_axis not in axes:
            raise ConfigError(f"LayerNorm: a kernel needs the channel axis {channel_axis} in axis={axis}")
        if not kernel.is_gaussian:
            raise ConfigError(
                "LayerNorm: needs Gaussian inputs; put a layer with random weights (Dense, Conv) before it"
            )
        examples = (0,) if kernel.batch_axis in axes else ()
        positions = examples + tuple(1 + i for i, a in enumerate(kernel.spatial_axes) if a in axes)
        scale1, scale2 = (
            1 / jnp.sqrt(_mean(q, mask, kernel, positions) + eps)
            for q, mask in zip(kernel.variances(), (kernel.mask1, kernel.mask2), strict=True)
        )
        scale2 = scale1 if kernel.cov2 is None else scale2
        sides = {"nngp": (scale1, scale2), "ntk": (scale1, scale2), "cov1": (scale1, scale1), "cov2": (scale2, scale2)}
        for name, pair in sides.items():
            first, second = kernel.outer(*pair, name)
            kernel = kernel.map(lambda cov, _, scale=first * second: cov * scale, names=(name,))
        return kernel

    return init_fn, apply_fn, kernel_fn


def _mean(q: Array, mask: Array | None, kernel: Kernel, positions: tuple[int, ...]) -> Array:
    """The mean of the variances q (n, H, W) over axes, of what is not padding."""
    if mask is None or not positions:
        return jnp.mean(q, positions, keepdims=True)
    kept = ~jnp.all(mask, kernel.channel_axis, keepdims=True)
    kept = jnp.moveaxis(kept, (kernel.batch_axis, kernel.channel_axis), (0, -1))[..., 0]
    return jnp.mean(q, positions, keepdims=True, where=jnp.broadcast_to(kept, q.shape))
