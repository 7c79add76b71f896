"""Indexing: layers that keep part of the examples or of the positions, as `x[idx]` does."""

import types

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax.layer import Layer, layer
from aijax.ntk.stax.masking import supports_masking
from aijax.ntk.stax.requirements import Bool, Diagonal, requires

Entry = int | slice | types.EllipsisType


class _Slice:
    """What stands in brackets is the result: `Slice[1:3, ..., ::2]` is `(slice(1, 3), ..., slice(None, None, 2))`."""

    def __getitem__(self, idx: Entry | tuple[Entry, ...]) -> Entry | tuple[Entry, ...]:
        return idx


Slice = _Slice()
"""Makes an index for `Index` from the notation in brackets.

>>> Slice[:, 1:3]
(slice(None, None, None), slice(1, 3, None))
"""


@layer
@supports_masking(remask_kernel=False)
def Index(idx: Entry | tuple[Entry, ...], batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Returns the layer `x[idx]`.

    Args:
      idx: integers, slices and an ellipsis, as `stax.Slice[...]` makes them.
      batch_axis: axis of the examples; in the infinite network it may be sliced but not dropped.
      channel_axis: axis of the channels; in the infinite network it cannot be indexed.

    Raises:
      ConfigError: on a call, an index that does not fit, or an axis of unknown size that is sliced.

    >>> from aijax.ntk import stax
    >>> stax.Index(stax.Slice[:, 0])[2](jnp.ones((2, 4, 3, 5)), get="nngp").shape
    (2, 2, 3, 3)
    """

    def init_fn(key, input_shape):
        entries = _entries(idx, len(input_shape))
        for size, entry in zip(input_shape, entries, strict=True):
            if size is None or (size < 0 and entry != slice(None)):
                raise ConfigError(f"Index: the sliced axes of shape {tuple(input_shape)} must have a known size")
        sizes = [max(size, 0) for size in input_shape]
        indexed = jax.eval_shape(lambda x: x[idx], jax.ShapeDtypeStruct(sizes, jnp.float32)).shape
        kept = [size for size, entry in zip(input_shape, entries, strict=True) if isinstance(entry, slice)]
        return tuple(old if old < 0 else new for old, new in zip(kept, indexed, strict=True)), ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        return inputs[idx]

    @requires(batch_axis=batch_axis, channel_axis=channel_axis, diagonal_spatial=Diagonal(Bool.YES, Bool.NO))
    def kernel_fn(kernel, **kwargs):
        return kernel[idx]

    def mask_fn(mask, input_shape):
        pairs = zip(mask.shape, _entries(idx, len(input_shape)), strict=True)
        whole = [(slice(None) if isinstance(e, slice) else 0) if size == 1 else e for size, e in pairs]
        return mask[tuple(whole)]

    return init_fn, apply_fn, kernel_fn, mask_fn


def _entries(idx: Entry | tuple[Entry, ...], ndim: int) -> list[int | slice]:
    """One entry for each axis."""
    idx = idx if isinstance(idx, tuple) else (idx,)
    given = sum(entry is not Ellipsis for entry in idx)
    if given > ndim or len(idx) - given > 1:
        raise ConfigError(f"Index: {idx!r} does not fit inputs of {ndim} axes")
    rest = [slice(None)] * (ndim - given)
    at = idx.index(Ellipsis) if Ellipsis in idx else len(idx)
    return [*idx[:at], *rest, *idx[at + 1 :]]
