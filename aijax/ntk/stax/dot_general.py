"""Products with a fixed array: `jax.lax.dot_general` of the activations and a constant, a linear map of positions."""

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax.kernel import Kernel, diagonal
from aijax.ntk.stax.layer import Layer, layer
from aijax.ntk.stax.linear_map import map_positions, with_zeros
from aijax.ntk.stax.masking import supports_masking
from aijax.ntk.stax.requirements import Bool, Diagonal, requires
from aijax.typing import Array, Callable


@layer
@supports_masking(remask_kernel=False)
def DotGeneral(
    *,
    lhs: Array | float | None = None,
    rhs: Array | float | None = None,
    dimension_numbers: tuple = (((), ()), ((), ())),
    precision: jax.lax.Precision | None = None,
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Returns the layer `dot_general(x, rhs)` or `dot_general(lhs, x)` with a constant; without either, the identity.

    Args:
      lhs: the constant on the left.
      rhs: the constant on the right; one of the two is None.
      dimension_numbers: as of `jax.lax.dot_general`: contracted axes of both sides, then batched axes of both sides.
      precision: of the product.
      batch_axis: axis of the examples; it may be batched, or contracted, and then no layer can follow.
      channel_axis: axis of the channels, neither contracted nor batched.

    Raises:
      ConfigError: both `lhs` and `rhs`; on a call, dimensions that touch the channels.

    >>> from aijax.ntk import stax
    >>> layer = stax.DotGeneral(rhs=jnp.array([1.0, -1.0]), dimension_numbers=(((1,), (0,)), ((), ())))
    >>> layer[2](jnp.ones((3, 2, 5)), get="nngp").shape
    (3, 3)
    """
    if lhs is not None and rhs is not None:
        raise ConfigError("DotGeneral: expected a constant on one side, got both lhs and rhs")
    constant = lhs if rhs is None else rhs
    left = rhs is None
    (contracted, batched), of_constant = (tuple(tuple(side[i]) for side in dimension_numbers) for i in _order(left))

    def product(x: Array) -> Array:
        if constant is None:
            return x
        other = jnp.asarray(constant, x.dtype)
        pair = (other, x) if left else (x, other)
        return jax.lax.dot_general(*pair, dimension_numbers, precision=precision)

    def place(axis: int, ndim: int) -> int:
        """Where an axis of the inputs is found in the outputs."""
        axis = axis % ndim
        used = [a % ndim for a in (*contracted, *batched)]
        if axis in used[len(contracted) :]:
            return used[len(contracted) :].index(axis)
        fixed = jnp.ndim(constant) - sum(map(len, of_constant)) if left and constant is not None else 0
        return len(batched) + fixed + sum(a not in used for a in range(axis))

    of_examples = batch_axis in contracted and constant is not None
    of_positions = constant is not None and set(contracted) - {batch_axis}

    def init_fn(key, input_shape):
        shape = jax.ShapeDtypeStruct(tuple(max(n, 1) for n in input_shape), jnp.float32)
        return jax.eval_shape(product, shape).shape, ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        return product(inputs)

    @requires(
        batch_axis=batch_axis,
        channel_axis=channel_axis,
        diagonal_batch=not of_examples,
        diagonal_spatial=Diagonal(Bool.NO if of_positions else Bool.YES, Bool.NO),
    )
    def kernel_fn(kernel, **kwargs):
        ndim = len(kernel.shape1)
        if kernel.channel_axis in [a % ndim for a in (*contracted, *batched)]:
            raise ConfigError(f"DotGeneral: dimension_numbers may not name the channel axis {kernel.channel_axis}")
        if constant is None:
            return kernel
        if kernel.batch_axis in [a % ndim for a in contracted] and not of_examples:
            raise ConfigError(f"DotGeneral: batch_axis={batch_axis} is contracted; count it as dimension_numbers does")
        channel = place(kernel.channel_axis, ndim)
        if of_examples:
            return without_examples(kernel, product, channel)
        return map_positions(kernel, product, product, batch_axis=place(kernel.batch_axis, ndim), channel_axis=channel)

    def mask_fn(mask, input_shape):
        full = list(input_shape)
        full[channel_axis] = mask.shape[channel_axis]
        kept = (~jnp.broadcast_to(mask, full)).astype(jnp.float32)
        reach = jnp.abs(jnp.asarray(constant, jnp.float32)) if constant is not None else None
        if reach is None:
            return mask
        pair = (reach, kept) if left else (kept, reach)
        return jax.lax.dot_general(*pair, dimension_numbers) == 0

    return init_fn, apply_fn, kernel_fn, mask_fn


def without_examples(kernel: Kernel, product: Callable[[Array], Array], channel_axis: int) -> Kernel:
    """Returns the kernel after a product that sums over the examples: covariances have axes of positions alone."""
    diagonal_spatial = kernel.diagonal_spatial

    def one_example(x: Array) -> Array:
        return product(x)[None]

    kernel = with_zeros(kernel) if diagonal_spatial else kernel
    kernel = map_positions(kernel, one_example, one_example, batch_axis=0, channel_axis=channel_axis + 1)

    def squeezed(cov: Array, first: int) -> Array:
        cov = cov.reshape(cov.shape[first:])
        for axis in range(cov.ndim // 2 if diagonal_spatial else 0):
            cov = diagonal(cov, axis)
        return cov

    return kernel.map(squeezed).replace(
        batch_axis=-1, channel_axis=channel_axis, diagonal_spatial=diagonal_spatial, is_gaussian=False
    )


def _order(left: bool) -> tuple[int, int]:
    """Which of the two sides of `dimension_numbers` are the inputs', and which the constant's."""
    return (1, 0) if left else (0, 1)
