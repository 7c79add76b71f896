"""The covariances that pass from layer to layer of an infinitely wide network.

A layer's channels are exchangeable, and in the limit of many they are summed up by second moments. For inputs x, x'
and positions p, p',

    nngp[x, x', p, p'] = E[z(x, p) z(x', p')],      ntk[x, x', p, p'] = <dz(x, p)/dθ, dz(x', p')/dθ>

where z is one channel (Lee et al. 2018; Jacot et al. 2018; Novak et al. 2019 for positions). `cov1` and `cov2` are the
same second moments of the first and of the second batch with itself, of which nonlinearities need the diagonal.

Layout: the batches come first, then each spatial axis twice, side by side: `(n1, n2, H, H', W, W')`, the first copy
belonging to x1, always in the order of the activations' axes. With `diagonal_spatial` only p = p' is held,
`(n1, n2, H, W)`; with `diagonal_batch` `cov1` holds each example only with itself, `(n1, H, H', W, W')`.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, UnsupportedError
from aijax.typing import Array, Callable

COVARIANCES = ("nngp", "ntk", "cov1", "cov2")


def _static(**options) -> Any:
    return dataclasses.field(metadata={"static": True, "pytree_node": False}, **options)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kernel:
    """Second moments of a layer's activations on two batches, and what later layers must know of them.

    Attributes:
      nngp: covariance of the first batch with the second, `(n1, n2, H, H', W, W', ...)`.
      ntk: tangent kernel, of the same shape; zero for inputs, None where it was not asked for.
      cov1: covariance of the first batch with itself.
      cov2: that of the second batch; None when there is no second batch, which is then the first.
      x1_is_x2: whether the batches are the same; a Python bool where that is known without looking at the values.
      is_gaussian: whether the channels are independent Gaussians given the inputs, which nonlinearities need.
      is_reversed: always False here: spatial axes keep their order.
      is_input: whether this is the kernel of the network's inputs.
      diagonal_batch: whether `cov1` and `cov2` hold each example only with itself.
      diagonal_spatial: whether all covariances hold each position only with itself.
      shape1, shape2: shapes of the activations of the two batches.
      batch_axis, channel_axis: axes of the activations, counted from the front.
      mask1, mask2: True where an activation is padding; as many axes as the activations, broadcastable to them.
    """

    nngp: Array
    ntk: Array | None
    cov1: Array
    cov2: Array | None
    x1_is_x2: Array | bool
    is_gaussian: bool = _static()
    is_reversed: bool = _static()
    is_input: bool = _static()
    diagonal_batch: bool = _static()
    diagonal_spatial: bool = _static()
    shape1: tuple[int, ...] | None = _static()
    shape2: tuple[int, ...] | None = _static()
    batch_axis: int = _static()
    channel_axis: int = _static()
    mask1: Array | None = None
    mask2: Array | None = None

    def replace(self, **changes) -> "Kernel":
        """Returns a copy with other values in the named fields."""
        return dataclasses.replace(self, **changes)

    def asdict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def astuple(self) -> tuple:
        """Returns the fields in order."""
        return tuple(self.asdict().values())

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        """The axes of the activations that are neither batch nor channels."""
        return tuple(a for a in range(len(self.shape1)) if a not in (self.batch_axis, self.channel_axis))

    def is_diagonal_batch(self, name: str) -> bool:
        """Whether the covariance called `name` has one batch axis only."""
        return name in ("cov1", "cov2") and self.diagonal_batch

    def map(self, function: Callable[[Array, int], Array], *, names: tuple[str, ...] = COVARIANCES) -> "Kernel":
        """Returns the kernel with `function(covariance, axis)` for each covariance; `axis` is its first spatial axis.

        Covariances that are None, and an NTK that is a scalar (zero, as for inputs), stay as they are.
        """
        changes = {}
        for name in names:
            value = getattr(self, name)
            if value is not None and jnp.ndim(value):
                changes[name] = function(value, 1 if self.is_diagonal_batch(name) else 2)
        return self.replace(**changes)

    def slice(self, n1_slice: slice, n2_slice: slice) -> "Kernel":
        """Returns the kernel of the chosen examples of the first and of the second batch."""
        return _take(self, n1_slice, n2_slice, ())

    def __getitem__(self, index) -> "Kernel":
        """Returns the kernel of `activations[index]`; `index` may not touch the channels nor drop the batch axis."""
        entries = _full_index(index, len(self.shape1))
        batch = entries[self.batch_axis]
        if entries[self.channel_axis] != slice(None):
            raise UnsupportedError(
                f"index {index!r}: the channel axis {self.channel_axis} is infinite and has no entries"
            )
        if isinstance(batch, int):
            raise UnsupportedError(
                f"index {index!r}: the batch axis {self.batch_axis} must stay; use a slice of length one"
            )
        return _take(self, batch, batch, tuple(entries[axis] for axis in self.spatial_axes))

    def transpose(self, axes: tuple[int, ...] | None = None) -> "Kernel":
        """Returns the kernel with its spatial axes in the order `axes`, counted among the spatial axes alone."""
        if axes is None or (self.diagonal_spatial and len(axes) < 2):
            return self
        copies = tuple(axes) if self.diagonal_spatial else tuple(2 * a + side for a in axes for side in range(2))
        return self.map(lambda cov, first: jnp.transpose(cov, (*range(first), *(first + a for a in copies))))

    def reverse(self) -> "Kernel":
        """Returns the kernel with its spatial axes in reversed order."""
        return self.transpose(tuple(reversed(range(len(self.spatial_axes)))))

    def mask(self, mask1: Array | None, mask2: Array | None) -> "Kernel":
        """Returns the kernel with these masks, and zeros wherever an activation of either side is masked."""
        kernel = self.replace(mask1=mask1, mask2=mask2)
        if mask1 is None and mask2 is None:
            return kernel
        kept1 = _kept(mask1, self, self.shape1)
        kept2 = kept1 if self.cov2 is None else _kept(mask2, self, self.shape2)
        sides = {"nngp": (kept1, kept2), "ntk": (kept1, kept2), "cov1": (kept1, kept1), "cov2": (kept2, kept2)}
        changes = {}
        for name, (first, second) in sides.items():
            value = getattr(self, name)
            if value is not None and jnp.ndim(value):
                first, second = self.outer(first, second, name)
                changes[name] = jnp.where(first & second, value, 0)
        return kernel.replace(**changes)

    def outer(self, first: Array, second: Array, name: str = "nngp") -> tuple[Array, Array]:
        """Returns `first (n1, H, W)` and `second (n2, H, W)` with axes of length one, to broadcast against `name`.

        For a covariance of one batch axis both are of the same examples.
        """
        spatial = first.ndim - 1
        both = self.is_diagonal_batch(name)
        if self.diagonal_spatial:
            axes1, axes2 = (), ()
        else:
            axes1 = tuple(2 + 2 * i for i in range(spatial))
            axes2 = tuple(1 + 2 * i for i in range(spatial))
        shift = 0 if both else 1
        axes1 = tuple(axis + shift for axis in axes1)
        axes2 = tuple(axis + shift for axis in axes2)
        if not both:
            axes1, axes2 = (1, *axes1), (0, *axes2)
        return jnp.expand_dims(first, axes1), jnp.expand_dims(second, axes2)

    def variances(self) -> tuple[Array, Array]:
        """Returns the variances of the first and the second batch at each position, `(n, H, W)` each."""
        var1 = self._variance(self.cov1)
        return var1, var1 if self.cov2 is None else self._variance(self.cov2)

    def _variance(self, cov: Array) -> Array:
        if not self.diagonal_batch:
            cov = diagonal(cov, 0)
        if not self.diagonal_spatial:
            for axis in range(1, 1 + len(self.spatial_axes)):
                cov = diagonal(cov, axis)
        return cov

    def __mul__(self, other: float) -> "Kernel":
        return self.replace(**{n: v * other**2 for n in COVARIANCES if (v := getattr(self, n)) is not None})

    __rmul__ = __mul__

    def __truediv__(self, other: float) -> "Kernel":
        return self * (1 / other)

    def __add__(self, other: float) -> "Kernel":
        names = ("nngp", "cov1", "cov2")
        return self.replace(**{n: v + other**2 for n in names if (v := getattr(self, n)) is not None})

    __radd__ = __sub__ = __rsub__ = __add__

    def __neg__(self) -> "Kernel":
        return self

    __pos__ = __neg__


def diagonal(x: Array, axis: int) -> Array:
    """Returns the diagonal of the equal axes `axis` and `axis + 1`, in their place: a slice of stride n + 1."""
    size = x.shape[axis]
    merged = x.reshape(*x.shape[:axis], size * size, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(merged, 0, None, size + 1, axis)


def same_entry(kernel: Kernel, name: str = "nngp") -> Array:
    """Returns a bool array that broadcasts to the covariance `name`: True where both sides are one activation."""
    covariance = getattr(kernel, name)
    first = 1 if kernel.is_diagonal_batch(name) else 2
    pairs = [] if first == 1 else [0]
    if not kernel.diagonal_spatial:
        pairs += range(first, covariance.ndim, 2)
    same = jnp.ones((1,) * covariance.ndim, bool)
    for axis in pairs:
        rest = tuple(a for a in range(covariance.ndim) if a not in (axis, axis + 1))
        same = same & jnp.expand_dims(jnp.eye(*covariance.shape[axis : axis + 2], dtype=bool), rest)
    return same


def spatial_size(kernel: Kernel) -> int:
    """Returns the number of positions."""
    return math.prod(kernel.shape1[axis] for axis in kernel.spatial_axes)


def _take(kernel: Kernel, n1: slice, n2: slice, spatial: tuple[int | slice, ...]) -> Kernel:
    copies = spatial if kernel.diagonal_spatial else tuple(entry for entry in spatial for _ in range(2))
    second = n1 if kernel.cov2 is None else n2
    batches = {"nngp": (n1, n2), "ntk": (n1, n2), "cov1": (n1, n1), "cov2": (second, second)}
    taken = {}
    for name, pair in batches.items():
        value = getattr(kernel, name)
        if value is not None and jnp.ndim(value):
            taken[name] = value[(pair[0], *copies) if kernel.is_diagonal_batch(name) else (*pair, *copies)]
    if kernel.cov2 is None and n1 != n2:
        taken["cov2"] = kernel.cov1[(n2, *copies) if kernel.diagonal_batch else (n2, n2, *copies)]
        taken["mask2"] = kernel.mask1
    of_axis = dict(zip(kernel.spatial_axes, spatial or (slice(None),) * len(kernel.spatial_axes), strict=True))
    dropped = sum(isinstance(entry, int) for axis, entry in of_axis.items() if axis < kernel.batch_axis)
    dropped_channel = sum(isinstance(entry, int) for axis, entry in of_axis.items() if axis < kernel.channel_axis)
    masked = kernel.replace(**taken)
    for shape, mask, batch in (("shape1", "mask1", n1), ("shape2", "mask2", n2)):
        full = tuple({kernel.batch_axis: batch}.get(a, of_axis.get(a, slice(None))) for a in range(len(kernel.shape1)))
        taken[shape] = jax.eval_shape(lambda x, full=full: x[full], _abstract(getattr(kernel, shape))).shape
        if getattr(masked, mask) is not None:
            taken[mask] = _index_broadcast(getattr(masked, mask), full)
    return kernel.replace(
        **taken,
        x1_is_x2=kernel.x1_is_x2 if n1 == n2 else False,
        batch_axis=kernel.batch_axis - dropped,
        channel_axis=kernel.channel_axis - dropped_channel,
    )


def _kept(mask: Array | None, kernel: Kernel, shape: tuple[int, ...]) -> Array:
    if mask is None:
        kept = jnp.ones((1,) * len(shape), bool)
    else:
        kept = ~jnp.all(mask, axis=kernel.channel_axis, keepdims=True)
    kept = jnp.moveaxis(kept, (kernel.batch_axis, kernel.channel_axis), (0, -1))
    return kept[..., 0]


def _full_index(index, ndim: int) -> list[int | slice]:
    index = index if isinstance(index, tuple) else (index,)
    if not all(entry is Ellipsis or isinstance(entry, (int, slice)) for entry in index):
        raise ConfigError(f"index {index!r}: expected integers, slices and an ellipsis")
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index = index[:at] + (slice(None),) * (ndim - len(index) + 1) + index[at + 1 :]
    if len(index) > ndim:
        raise ConfigError(f"index {index!r}: more entries than the {ndim} axes of the activations")
    return list(index) + [slice(None)] * (ndim - len(index))


def _index_broadcast(mask: Array, full: tuple[int | slice, ...]) -> Array:
    entries = []
    for size, entry in zip(mask.shape, full, strict=True):
        whole = slice(None) if isinstance(entry, slice) else 0
        entries.append(whole if size == 1 else entry)
    return mask[tuple(entries)]


def _abstract(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
