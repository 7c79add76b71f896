"""Which parameters a fit moves, where they may go, and how they are put back into the model.

The names are those of `aijax.parameters.named_parameters`; those of the solver begin with `solver.`, and only patterns
that begin so mean them.
"""

import dataclasses
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from aijax.bijections import from_line, to_line
from aijax.errors import ConfigError, did_you_mean
from aijax.parameters import named_parameters, static
from aijax.typing import Any, Array, Callable, Mapping, PyTree

_SOLVER = "solver."

Line = tuple[Array, ...]
"""A point on the line: an array for each parameter that is moved."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moved:
    """The parameters that a fit moves: some leaves of the tree `(model, solver)`.

    Args:
      priors: a prior or None for each.
      bounds: (lowest, highest) or None for each.
      names: of each.
      constraints: of each.
      positions: of each among the leaves.
    """

    priors: tuple
    bounds: tuple
    names: tuple[str, ...] = static()
    constraints: tuple[str, ...] = static()
    positions: tuple[int, ...] = static()

    def to_line(self, tree: PyTree, dtype: Any) -> Line:
        """Returns where the parameters of `tree` are on the line."""
        leaves = jax.tree.leaves(tree)
        values = [jnp.asarray(leaves[position], dtype) for position in self.positions]
        return tuple(to_line(value, name) for value, name in zip(values, self.constraints, strict=True))

    def values(self, line: Line) -> Line:
        """Returns the parameters at a point on the line."""
        return tuple(from_line(u, name) for u, name in zip(line, self.constraints, strict=True))

    def place(self, tree: PyTree, line: Line) -> PyTree:
        """Returns `tree` with the parameters at a point on the line."""
        leaves, structure = jax.tree.flatten(tree)
        for position, value in zip(self.positions, self.values(line), strict=True):
            leaves[position] = value
        return jax.tree.unflatten(structure, leaves)

    def log_prior(self, line: Line) -> Array:
        """Returns the sum of the priors' log densities."""
        pairs = zip(self.priors, self.values(line), strict=True)
        return sum(jnp.sum(prior.log_density(value)) for prior, value in pairs if prior is not None)

    def edges(self, line: Line) -> tuple[Line | None, Line | None]:
        """Returns the lowest and the highest point on the line; None where nothing is bounded."""
        if not any(self.bounds):
            return None, None
        ends = []
        for side, free in ((0, -jnp.inf), (1, jnp.inf)):
            ends.append(
                tuple(
                    jnp.full_like(u, free) if pair is None else jnp.full_like(u, to_line(pair[side], constraint))
                    for u, pair, constraint in zip(line, self.bounds, self.constraints, strict=True)
                )
            )
        return tuple(ends)


def choose_moved(
    model: Any, solver: Any, trainable: Any, priors: Mapping[str, Any], bounds: Mapping[str, Any]
) -> Moved:
    """Returns the parameters that a fit is to move; see `aijax.gp.fit`."""
    found = named_parameters(model)
    found += [(f"{_SOLVER}{name}", value, constraint) for name, value, constraint in named_parameters(solver)]
    floating = {name: index for index, (name, value, _) in enumerate(found) if _is_floating(value)}
    names = [name for name in floating if _selected(name, trainable)]
    _refuse_idle(trainable, names, floating)
    rows = []
    for name in names:
        _, value, constraint = found[floating[name]]
        bound = _of(bounds, name)
        _check_start(name, value, constraint, bound)
        rows.append((_of(priors, name), bound, name, constraint, floating[name]))
    for what, patterns in (("priors", priors), ("bounds", bounds)):
        for pattern in patterns:
            if not any(_matches(pattern, name, what) for name in names):
                raise ConfigError(
                    f"{what}: {pattern!r} matches no parameter that is fitted{did_you_mean(pattern, names)}"
                )
    return Moved(*zip(*rows, strict=True))


@dataclasses.dataclass(frozen=True)
class Rest:
    """What of a tree is no array: its structure, and leaves such as functions, by position."""

    structure: Any
    others: tuple[tuple[int, Any], ...]

    def join(self, arrays: Sequence[Any]) -> PyTree:
        leaves = list(arrays)
        for position, leaf in self.others:
            leaves.insert(position, leaf)
        return jax.tree.unflatten(self.structure, leaves)


def split_arrays(tree: PyTree) -> tuple[list[Any], Rest]:
    """Returns the leaves of `tree` that are arrays or numbers, and the rest, which is hashable."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [leaf for leaf in leaves if _is_array(leaf)]
    others = tuple((position, leaf) for position, leaf in enumerate(leaves) if not _is_array(leaf))
    return arrays, Rest(structure, others)


def _is_array(leaf):
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)


def _is_floating(value):
    return isinstance(value, float) or (hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating))


def _selected(name: str, trainable: Any) -> bool:
    if trainable is None:
        return not name.startswith(_SOLVER)
    if callable(trainable):
        return bool(trainable(name))
    return any(_matches(pattern, name, "trainable") for pattern in _listed(trainable))


def _refuse_idle(trainable: str | Sequence[str] | Callable | None, names: list[str], floating: Mapping) -> None:
    """Raises a `ConfigError` for a pattern that matches nothing, and where nothing at all is to be fitted."""
    if trainable is not None and not callable(trainable):
        for pattern in _listed(trainable):
            if not any(_matches(pattern, name, "trainable") for name in floating):
                raise ConfigError(f"trainable: {pattern!r} matches no parameter{did_you_mean(pattern, floating)}")
    if not names:
        told = ", ".join(floating) or "none"
        raise ConfigError(f"trainable: nothing to fit; the floating parameters are: {told}")


def _listed(trainable):
    return (trainable,) if isinstance(trainable, str) else tuple(trainable)


def _matches(pattern: Any, name: str, where: str) -> bool:
    try:
        matched = re.fullmatch(pattern, name) is not None
    except (re.error, TypeError) as error:
        raise ConfigError(f"{where}: expected a regular expression, got {pattern!r}: {error}") from None
    return matched and (not name.startswith(_SOLVER) or pattern.startswith("solver"))


def _of(table: Mapping[str, Any], name: str) -> Any:
    """Returns the entry of the first pattern that matches the name, or None."""
    return next((value for pattern, value in table.items() if _matches(pattern, name, "patterns")), None)


def _check_start(name: str, value: Any, constraint: str, bound: Any) -> None:
    if bound is not None and not (len(bound) == 2 and bound[0] < bound[1]):
        raise ConfigError(f"bounds: expected (lowest, highest) for {name}, got {bound!r}")
    if isinstance(value, jax.core.Tracer):
        return
    array = np.asarray(value)
    if constraint == "nonnegative" and np.any(array == 0):
        raise ConfigError(
            f"{name}: 0 is the edge of where it may lie, from which a fit cannot move it; start from a positive value, "
            "or leave it out of `trainable`"
        )
    if bound is not None and (np.any(array < bound[0]) or np.any(array > bound[1])):
        shown = array if array.ndim == 0 else array[(array < bound[0]) | (array > bound[1])][0]
        raise ConfigError(f"{name}: expected a start within its bounds {tuple(bound)}, got {shown}")
