"""Padding: inputs of different sizes in one array, their missing entries marked by a constant.

A masked activation counts as zero on its way into a layer, and after a layer its covariances are zero. Which outputs
are padding follows from which inputs are: a layer says how by its `mask_fn(mask, input_shape)`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax.inputs import apart_from_mask
from aijax.typing import Any, Array, Callable


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MaskedArray:
    """Activations and where they are padding.

    Attributes:
      masked_value: the activations; what stands at masked entries means nothing.
      mask: True where masked; broadcastable to `masked_value`.
    """

    masked_value: Array
    mask: Array | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the activations."""
        return self.masked_value.shape

    @property
    def dtype(self) -> Any:
        """Type of the activations."""
        return self.masked_value.dtype


def unmask_fn(fn: Callable) -> Callable:
    """Returns `fn` with each `MaskedArray` in its output turned into an array with zeros where it is masked."""

    @functools.wraps(fn)
    def unmasked(*args, **kwargs):
        is_masked = lambda leaf: isinstance(leaf, MaskedArray)  # noqa: E731
        return jax.tree.map(_filled, fn(*args, **kwargs), is_leaf=is_masked)

    return unmasked


def supports_masking(remask_kernel: bool) -> Callable[[Callable], Callable]:
    """Returns a decorator for a layer function that lets masks pass through the layer.

    The layer function returns `(init_fn, apply_fn, kernel_fn)` or `(init_fn, apply_fn, kernel_fn, mask_fn)`, where
    `apply_fn(params, inputs, *, mask=None, **kwargs)` is given inputs that are zero where masked, and
    `mask_fn(mask, input_shape)` returns the mask of the outputs; without one masks stay as they are. Of the decorated
    layer `apply_fn` takes `mask_constant=None` in place of `mask` and returns a `MaskedArray` when there is a mask.
    Use below `layer`.

    Args:
      remask_kernel: set covariances of masked outputs to zero after `kernel_fn`; False for a layer where zeros stay.
    """

    def decorate(layer_fn: Callable) -> Callable:
        @functools.wraps(layer_fn)
        def masked_layer(*args, **kwargs):
            init_fn, apply_fn, kernel_fn, *rest = layer_fn(*args, **kwargs)
            mask_fn = rest[0] if rest else lambda mask, input_shape: mask
            return init_fn, _masked_apply(apply_fn, mask_fn), _masked_kernel(kernel_fn, mask_fn, remask_kernel)

        return masked_layer

    return decorate


def one_mask(mask: Array | None, axis: int, layer: str) -> Array | None:
    """Returns a mask that is the same for all channels, with a channel axis of length one, or refuses."""
    if mask is not None and mask.shape[axis] != 1:
        raise ConfigError(
            f"{layer}: masks that differ between channels are not supported; put a Dense or Conv before it"
        )
    return mask


def all_masked(mask: Array | None, axis: int | tuple[int, ...]) -> Array | None:
    """Returns the mask of outputs that see all entries along `axis`: masked where all of them are."""
    return None if mask is None else jnp.all(mask, axis=axis, keepdims=True)


def _filled(leaf):
    if not isinstance(leaf, MaskedArray):
        return leaf
    return leaf.masked_value if leaf.mask is None else jnp.where(leaf.mask, 0, leaf.masked_value)


def _split(x, mask_constant):
    if isinstance(x, (list, tuple)):
        values, masks = zip(*(_split(one, mask_constant) for one in x), strict=True)
        return type(x)(values), list(masks)
    if isinstance(x, MaskedArray):
        return _filled(x), x.mask
    return apart_from_mask(x, mask_constant)


def _shapes(x):
    return [_shapes(one) for one in x] if isinstance(x, (list, tuple)) else x.shape


def _is_masked(mask) -> bool:
    return any(_is_masked(one) for one in mask) if isinstance(mask, (list, tuple)) else mask is not None


def _masked_apply(apply_fn: Callable, mask_fn: Callable) -> Callable:
    @functools.wraps(apply_fn)
    def apply(params, inputs, *, mask_constant=None, **kwargs):
        values, mask = _split(inputs, mask_constant)
        if not _is_masked(mask):
            return apply_fn(params, values, mask=mask, **kwargs)
        return MaskedArray(apply_fn(params, values, mask=mask, **kwargs), mask_fn(mask, _shapes(values)))

    return apply


def _masked_kernel(kernel_fn: Callable, mask_fn: Callable, remask: bool) -> Callable:
    @functools.wraps(kernel_fn)
    def masked(kernel, **kwargs):
        many = isinstance(kernel, (list, tuple))
        masks = []
        for mask, shape in (("mask1", "shape1"), ("mask2", "shape2")):
            given = [getattr(k, mask) for k in kernel] if many else getattr(kernel, mask)
            shapes = [getattr(k, shape) for k in kernel] if many else getattr(kernel, shape)
            masks.append(mask_fn(given, shapes) if _is_masked(given) else None)
        after = kernel_fn(kernel, **kwargs)
        return after.mask(*masks) if remask else after.replace(mask1=masks[0], mask2=masks[1])

    return masked
