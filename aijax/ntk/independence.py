"""Whether the examples of a batch interact in a function, and whether the function is pure: told from its jaxpr.

The function is traced for batches of two and of three examples. Where the two programs differ in the size of an axis,
that axis runs over examples. A value that has no such axis although it was made from values that have, such as the mean
of a batch normalisation, mixes the examples; so does what is sorted, reversed or accumulated along one. If an output
depends on such a value, its row for one example depends on the others. Nothing is computed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxprs_in_params

from aijax.errors import ConfigError

ALONG = {
    "cumsum": "axis",
    "cumprod": "axis",
    "cummax": "axis",
    "cummin": "axis",
    "cumlogsumexp": "axis",
    "sort": "dimension",
    "rev": "dimensions",
}
"""Primitives that mix along an axis and keep its size, with the parameter that names the axis."""


def check_independent(function: Callable[[Any], Any], batch_of: Callable[[int], Any], where: str = "apply_fn") -> None:
    """Raises a `ConfigError` if the examples of a batch interact in `function`.

    Args:
      function: of a batch.
      batch_of: returns the shapes of a batch of so many examples.
      where: what the function is called, for the message.
    """
    try:
        two, three = jax.make_jaxpr(function)(batch_of(2)), jax.make_jaxpr(function)(batch_of(3))
    except (TypeError, ValueError):  # it takes one size of batch only: nothing can be compared
        return
    mixing = first_mixing(two.jaxpr, three.jaxpr, [False] * len(two.jaxpr.invars))
    if mixing is not None:
        raise ConfigError(
            f"{where}: the examples of a batch interact (in {mixing!r}), so that its kernel is not that of examples "
            "alone; pass batch_independent=False, or vmap_axes=None, for the exact kernel of the whole batch"
        )


def first_mixing(two: Jaxpr, three: Jaxpr, mixed: Sequence[bool]) -> str | None:
    """Returns the primitive that mixes examples on the way to an output, or None; `mixed` says so of the inputs."""
    names = mixing_names(two, three, ["the input" if m else None for m in mixed])
    return next((name for name in names if name is not None), None)


def mixing_names(two: Jaxpr, three: Jaxpr, inputs: Sequence[str | None]) -> list[str | None]:
    """Returns for each output of a program, traced for two and for three examples, what mixed them in it, if any."""
    if [e.primitive for e in two.eqns] != [e.primitive for e in three.eqns]:
        return [None] * len(two.outvars)  # the program depends on the size of the batch: nothing can be compared
    mixed: dict[Any, str] = {var: name for var, name in zip(two.invars, inputs, strict=True) if name is not None}

    def name_of(var):
        return None if isinstance(var, Literal) else mixed.get(var)

    for equation, other in zip(two.eqns, three.eqns, strict=True):
        before = [name_of(var) for var in equation.invars]
        met = next((name for name in before if name is not None), None)
        bodies = list(zip(jaxprs_in_params(equation.params), jaxprs_in_params(other.params), strict=False))
        runs = any(example_axes(x, y) for x, y in zip(equation.invars, other.invars, strict=True))
        name = equation.primitive.name
        if len(bodies) == 1 and len(bodies[0][0].invars) == len(before):
            after = mixing_names(*bodies[0], before)
            after = after if len(after) == len(equation.outvars) else [met] * len(equation.outvars)
        else:
            after = []
            for x, y in zip(equation.outvars, other.outvars, strict=True):
                lost = runs and not example_axes(x, y)
                after.append(met or (name if lost or mixes_along(equation, other) else None))
        mixed |= {var: found for var, found in zip(equation.outvars, after, strict=True) if found is not None}
    return [name_of(var) for var in two.outvars]


def example_axes(two: Any, three: Any) -> list[int]:
    """Returns the axes in which a value of the two programs differs in size."""
    shapes = getattr(two.aval, "shape", ()), getattr(three.aval, "shape", ())
    return [axis for axis, (a, b) in enumerate(zip(*shapes, strict=False)) if a != b]


def mixes_along(equation: Any, other: Any) -> bool:
    """Returns whether an equation accumulates, sorts or reverses along an axis of examples."""
    key = ALONG.get(equation.primitive.name)
    if key is None:
        return False
    axes = equation.params[key]
    axes = set(axes) if isinstance(axes, tuple | list) else {axes}
    return bool(axes & set(example_axes(equation.invars[0], other.invars[0])))


def check_pure(function: Callable[..., Any], *args: Any, where: str = "apply_fn") -> ClosedJaxpr:
    """Returns the jaxpr of a function, refusing one with effects or that is another each time that it is traced."""
    # a function of its own each time: one that has been traced before is not traced again
    first, second = (jax.make_jaxpr(lambda *a: function(*a))(*args) for _ in range(2))
    if first.effects:
        raise ConfigError(
            f"{where}: expected a pure function, but it has effects ({', '.join(map(str, first.effects))})"
        )
    if not same(first.jaxpr, second.jaxpr) or not all(map(equal, first.consts, second.consts)):
        raise ConfigError(f"{where}: expected a pure function, but it computes something else each time it is called")
    return first


def same(one: Jaxpr, two: Jaxpr) -> bool:
    """Returns whether two programs have the same equations and the same literals."""
    if len(one.eqns) != len(two.eqns):
        return False
    for a, b in zip(one.eqns, two.eqns, strict=True):
        if a.primitive is not b.primitive or len(a.invars) != len(b.invars):
            return False
        for x, y in zip(a.invars, b.invars, strict=True):
            if isinstance(x, Literal) != isinstance(y, Literal) or (isinstance(x, Literal) and not equal(x.val, y.val)):
                return False
        if not all(map(same, jaxprs_in_params(a.params), jaxprs_in_params(b.params))):
            return False
    return True


def equal(one: Any, two: Any) -> bool:
    """Returns whether two constants agree, as far as they are known while tracing."""
    if isinstance(one, jax.core.Tracer) or isinstance(two, jax.core.Tracer):
        return True
    if one is two:
        return True
    try:
        a, b = np.asarray(one), np.asarray(two)
    except TypeError:
        return True
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
