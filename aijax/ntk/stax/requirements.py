"""What a layer needs of the kernel it is given: axes, and which covariances must be held in full.

A CNN under `Flatten` needs of each covariance only the entries of a position with itself; under average pooling it
needs all pairs (Novak et al. 2019, section 3). Each layer states a `Diagonal`; composing them from first to last tells,
before anything is computed, which of the two a network needs. `Diagonal` composition `a >> b` ("a, then b") is
associative; `&` is for branches side by side.
"""

import dataclasses
import enum
import functools

from aijax.errors import ConfigError
from aijax.typing import Any, Callable


class Bool(enum.Enum):
    """Yes, no, or maybe."""

    NO = 0
    MAYBE = 1
    YES = 2

    def __and__(self, other: "Bool") -> "Bool":
        return min(self, other, key=lambda b: b.value)

    __rand__ = __and__


@dataclasses.dataclass(frozen=True)
class Diagonal:
    """Whether a layer, or a network, gets by with the diagonal of its input covariance.

    Attributes:
      input: YES if the diagonal of the input is enough, NO if all entries are needed, MAYBE if the diagonal is enough
        only where all other entries are known to be zero.
      output: YES if from this layer on there are no off-diagonal entries that could be lost, MAYBE if they are zero
        after this layer, NO if they are not zero.
    """

    input: Bool = Bool.YES
    output: Bool = Bool.NO

    def __rshift__(self, other: "Diagonal") -> "Diagonal":
        """Returns the requirement of this layer followed by `other`."""
        if self.output == Bool.YES:
            return self
        lost = other.input == Bool.NO or (other.input == Bool.MAYBE and self.output == Bool.NO)
        return Diagonal(Bool.NO if lost else self.input, other.output)

    def __lshift__(self, other: "Diagonal") -> "Diagonal":
        """Returns the requirement of `other` followed by this layer."""
        return other >> self

    def __and__(self, other: "Diagonal") -> "Diagonal":
        """Returns the requirement of this layer beside `other`."""
        return Diagonal(self.input & other.input, self.output & other.output)

    @property
    def suffices(self) -> bool:
        """Whether a network with this requirement is given the diagonal when nothing else is asked for."""
        return self.input == Bool.YES and self.output != Bool.NO


@dataclasses.dataclass(frozen=True)
class Requirements:
    """The requirements of a `kernel_fn`; None where it states none, tuples (nested) for parallel inputs.

    Attributes:
      batch_axis: axis of the examples.
      channel_axis: axis of the channels.
      diagonal_batch: False if the covariance between different examples of one batch is needed.
      diagonal_spatial: whether the diagonal over positions is enough.
      is_gaussian: True if the channels must be independent Gaussians.
    """

    batch_axis: int | tuple | None = None
    channel_axis: int | tuple | None = None
    diagonal_batch: bool | None = None
    diagonal_spatial: Diagonal | None = None
    is_gaussian: bool | None = None


def requires(**static_reqs) -> Callable[[Callable], Callable]:
    """Returns a decorator for a `kernel_fn(kernel, **kwargs)` that states its needs, which `layer` checks.

    Args:
      **static_reqs: any of `batch_axis`, `channel_axis` (axes of the activations), `diagonal_batch` (False: covariances
        between examples of one batch are needed), `diagonal_spatial` (a `Diagonal`), `is_gaussian`.

    Raises:
      ConfigError: an unknown requirement; on a call of the layer, a kernel that does not meet them.

    >>> @requires(batch_axis=0, channel_axis=-1)
    ... def kernel_fn(kernel, **kwargs):
    ...     return kernel
    """
    static_reqs = dict(static_reqs)
    if isinstance(static_reqs.get("diagonal_spatial"), bool):
        static_reqs["diagonal_spatial"] = Diagonal() if static_reqs["diagonal_spatial"] else Diagonal(Bool.NO, Bool.NO)
    if isinstance(static_reqs.get("diagonal_batch"), Diagonal):
        static_reqs["diagonal_batch"] = static_reqs["diagonal_batch"].input != Bool.NO
    names = {field.name for field in dataclasses.fields(Requirements)}
    if unknown := set(static_reqs) - names:
        raise ConfigError(f"requires: unknown requirement {sorted(unknown)[0]!r}; expected one of {sorted(names)}")
    requirements = Requirements(**static_reqs)

    def decorate(kernel_fn: Callable) -> Callable:
        @functools.wraps(kernel_fn)
        def stated(kernel, **kwargs):
            return kernel_fn(kernel, **kwargs)

        stated.requirements = requirements
        return stated

    return decorate


def requirements_of(kernel_fn: Callable) -> Requirements:
    """Returns the requirements that `kernel_fn` states."""
    return getattr(kernel_fn, "requirements", Requirements())


def in_series(*reqs: Requirements) -> Requirements:
    """Returns the requirements of layers one after another: axes are those of the first layer that states them."""
    stated = [r.diagonal_spatial for r in reqs if r.diagonal_spatial is not None]
    batches = [r.diagonal_batch for r in reqs if r.diagonal_batch is not None]
    return Requirements(
        batch_axis=next((r.batch_axis for r in reqs if _is_stated(r.batch_axis)), None),
        channel_axis=next((r.channel_axis for r in reqs if _is_stated(r.channel_axis)), None),
        diagonal_batch=all(batches) if batches else None,
        diagonal_spatial=functools.reduce(lambda a, b: a >> b, stated) if stated else None,
    )


def in_parallel(*reqs: Requirements) -> Requirements:
    """Returns the requirements of layers side by side; their axes as a tuple, one entry a branch."""
    batches = [r.diagonal_batch for r in reqs if r.diagonal_batch is not None]
    spatial = [r.diagonal_spatial for r in reqs]
    if any(d is not None for d in spatial):
        spatial = functools.reduce(lambda a, b: a & b, (Diagonal() if d is None else d for d in spatial))
    else:
        spatial = None
    return Requirements(
        batch_axis=tuple(r.batch_axis for r in reqs),
        channel_axis=tuple(r.channel_axis for r in reqs),
        diagonal_batch=all(batches) if batches else None,
        diagonal_spatial=spatial,
    )


def check(kernel, reqs: Requirements, layer: str) -> None:
    """Raises a `ConfigError` that names the layer when a kernel, or one of several, does not meet its requirements."""
    if isinstance(kernel, (list, tuple)):
        for one in kernel:
            check(one, reqs, layer)
        return
    ndim = len(kernel.shape1)
    for name in ("batch_axis", "channel_axis"):
        wanted, given = getattr(reqs, name), getattr(kernel, name)
        if isinstance(wanted, int) and (not -ndim <= wanted < ndim or wanted % ndim != given):
            raise ConfigError(f"{layer}: {name}={wanted}, but the activations {kernel.shape1} have theirs at {given}")
    if reqs.diagonal_batch is False and kernel.diagonal_batch:
        raise ConfigError(f"{layer}: needs covariances between examples, but was given diagonal_batch=True")
    if kernel.diagonal_spatial and reqs.diagonal_spatial is not None and reqs.diagonal_spatial.input == Bool.NO:
        raise ConfigError(f"{layer}: needs covariances between positions, but was given diagonal_spatial=True")
    if reqs.is_gaussian and not kernel.is_gaussian:
        raise ConfigError(f"{layer}: needs Gaussian inputs; put a layer with random weights (Dense, Conv) before it")


def common_axis(axis: Any, default: int, name: str, ndim: int) -> int:
    """Returns the one axis, of inputs of so many, that all branches which state it agree on."""
    leaves = {leaf for leaf in _leaves(axis) if leaf is not None}
    if len({leaf % max(ndim, 1) for leaf in leaves}) > 1:
        raise ConfigError(f"{name}: branches that see the same input ask for different axes {sorted(leaves)}")
    return leaves.pop() if leaves else default


def _is_stated(axis: Any) -> bool:
    return any(leaf is not None for leaf in _leaves(axis))


def _leaves(axis: Any) -> list:
    return [leaf for part in axis for leaf in _leaves(part)] if isinstance(axis, tuple) else [axis]
