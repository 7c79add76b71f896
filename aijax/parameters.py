"""Nouns with parameters: frozen dataclasses that are pytrees and know where each parameter may lie.

    @noun
    class RBF(Kernel):
        lengthscale: Array = parameter(1.0, "positive")
        name: str = static("rbf")

A field made by `parameter` is a leaf (or a tree of them); one made by `static` is part of the structure. Constraints
are declared here once: a constructor checks them on concrete values, and a fit maps each parameter to the whole line by
the bijection of its constraint. Trees that JAX builds (gradients, batches, tracers) are not checked, unless the
function that they are in is put through `jax.experimental.checkify`: see `debug_check_parameters`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from aijax.errors import ConfigError, choose
from aijax.typing import Any, PyTree

CONSTRAINTS = {
    "real": (lambda x: True, "a real number"),
    "positive": (lambda x: x > 0, "a positive number"),
    "nonnegative": (lambda x: x >= 0, "a number of at least 0"),
    "unit_interval": (lambda x: (x > 0) & (x < 1), "a number between 0 and 1"),
}
"""Name of a constraint: the test of each element, and what is expected, in words."""


def parameter(default: Any = dataclasses.MISSING, constraint: str = "real") -> Any:
    """Returns a dataclass field for a parameter: an array, a number or a tree of them, each within `constraint`."""
    choose(CONSTRAINTS, constraint, "constraint")
    return dataclasses.field(default=default, metadata={"constraint": constraint})


def static(default: Any = dataclasses.MISSING) -> Any:
    """Returns a dataclass field of the structure: it must be hashable, and a change of it compiles anew."""
    return dataclasses.field(default=default, metadata={"static": True})


def noun(cls: type) -> type:
    """Returns `cls` as a frozen dataclass registered as a pytree; its constructor checks parameters that are concrete.

    A parameter given as an int is taken as a float, one given as a list of numbers as an array. Fields made by neither
    `parameter` nor `static` are subtrees: other nouns, or any tree. A method `check(self)`, where there
    is one, is called by the constructor after the constraints.
    """

    def post_init(self):
        for field in dataclasses.fields(self):
            if "constraint" in field.metadata:
                object.__setattr__(self, field.name, _as_numbers(getattr(self, field.name)))
        check_parameters(self)
        if hasattr(self, "check"):
            self.check()

    cls.__post_init__ = post_init
    cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(cls)
    data = [f.name for f in fields if not f.metadata.get("static")]
    meta = [f.name for f in fields if f.metadata.get("static")]

    def flatten_with_keys(self):
        children = [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in data]
        return children, tuple(getattr(self, name) for name in meta)

    def flatten(self):
        return [getattr(self, name) for name in data], tuple(getattr(self, name) for name in meta)

    def unflatten(structure, children):
        self = object.__new__(cls)
        for name, value in zip(data + meta, (*children, *structure), strict=True):
            object.__setattr__(self, name, value)
        return self

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def check_parameters(tree: PyTree, where: str = "") -> None:
    """Raises `ConfigError` for the first concrete parameter of the nouns in `tree` that its constraint forbids or that
    is not finite. Values known only inside `jit` are passed over, and so are functions where no number is required."""
    for name, value, constraint in named_parameters(tree):
        allowed, expected = CONSTRAINTS[constraint]
        if isinstance(value, jax.core.Tracer | jax.ShapeDtypeStruct) or (callable(value) and constraint == "real"):
            continue
        array = np.asarray(value)
        if not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            raise ConfigError(f"{where}{name}: expected {expected}, got {value!r}")
        if not np.isfinite(array).all() or not np.all(allowed(array)):
            shown = value if array.ndim == 0 else array.reshape(-1)[np.argmin(_good(array, allowed))]
            raise ConfigError(f"{where}{name}: expected {expected}, got {shown}")


def debug_check_parameters(tree: PyTree, where: str = "") -> None:
    """Checks the constraints of values known only inside `jit` where `checkify` is at work; else it does nothing."""
    for name, value, constraint in named_parameters(tree):
        if isinstance(value, jax.core.Tracer) and constraint != "real":
            allowed, expected = CONSTRAINTS[constraint]
            checkify.debug_check(jnp.all(allowed(value)), f"{where}{name}: expected {expected}")


def named_parameters(tree: PyTree) -> list[tuple[str, Any, str]]:
    """Returns `(path, value, constraint)` of every leaf of `tree`, in the order of `jax.tree.leaves`.

    The path is dotted from the root, such as `"kernel.lengthscale"`; a leaf in no field of `parameter` is "real".
    """
    return list(_walk(tree, "", "real"))


def _walk(tree, path, constraint):
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        declared = {f.name: f.metadata.get("constraint") for f in dataclasses.fields(tree)}
    else:
        declared = {}
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is not tree)
    for keys, child in leaves:
        if not keys:
            yield path, child, constraint
            continue
        name = _key_name(keys[-1])
        yield from _walk(child, f"{path}.{name}" if path else name, declared.get(name) or constraint)


def _as_numbers(value):
    if isinstance(value, list | tuple) and all(isinstance(item, int | float | list | tuple) for item in value):
        try:
            return np.asarray(value, float)
        except ValueError:  # rows of different lengths: each is a parameter of its own
            return tuple(_as_numbers(item) for item in value)
    if isinstance(value, int):
        return float(value)
    whole = isinstance(value, jax.Array | np.ndarray | np.generic) and jnp.issubdtype(value.dtype, jnp.integer)
    return value.astype(jnp.result_type(float)) if whole else value


def _key_name(key):
    return str(next(getattr(key, field) for field in ("name", "key", "idx") if hasattr(key, field)))


def _good(array, allowed):
    return (np.isfinite(array) & allowed(array)).reshape(-1)
