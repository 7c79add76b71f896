"""Derivatives of maxima that compiling does not change.

jax gives the cotangent of a maximum to the entries that equal it. A compiler that fuses may compute these entries
twice, for the maximum and for the comparison, and round otherwise: no entry equals the maximum then, and its cotangent
is lost, as happens on CPUs to a maximum over the positions of a normalised layer. Here the entry is chosen by its
index, and there is one whatever the rounding. Entries that tie share equally, as in jax.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from aijax.typing import Array

EXTREMES = {"reduce_max": True, "reduce_min": False}
"""Primitives that take an extreme over axes, and whether it is the largest."""


def with_exact_maxima(program: ClosedJaxpr) -> ClosedJaxpr:
    """Returns a program whose maxima and minima, and those of the programs that it calls, are differentiated exactly.

    >>> program = with_exact_maxima(jax.make_jaxpr(jnp.max)(jnp.zeros(3)))
    >>> float(jax.grad(lambda x: jax.core.eval_jaxpr(program.jaxpr, (), x)[0])(jnp.array([1.0, 3.0, 3.0]))[1])
    0.5
    """
    return ClosedJaxpr(_rewritten(program.jaxpr), program.consts)


def _rewritten(jaxpr: Jaxpr) -> Jaxpr:
    return jaxpr.replace(eqns=[_equation(equation) for equation in jaxpr.eqns])


def _equation(equation: JaxprEqn) -> JaxprEqn:
    name = equation.primitive.name
    if name in EXTREMES:
        x, axes = equation.invars[0].aval, equation.params["axes"]
        if not x.size or not axes or not jnp.issubdtype(x.dtype, jnp.floating):
            return equation
        (made,) = jax.make_jaxpr(lambda x: extreme(x, axes, EXTREMES[name]))(x).eqns
        return made.replace(invars=equation.invars, outvars=equation.outvars)
    if name.startswith("custom_"):  # its derivative is its own
        return equation
    return equation.replace(params={key: _parameter(value) for key, value in equation.params.items()})


def _parameter(value: Any) -> Any:
    """Returns a parameter of an equation with the programs in it rewritten."""
    if isinstance(value, ClosedJaxpr):
        return with_exact_maxima(value)
    if isinstance(value, Jaxpr):
        return _rewritten(value)
    if type(value) in (tuple, list):
        return type(value)(map(_parameter, value))
    return value


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def extreme(x: Array, axes: tuple[int, ...], largest: bool) -> Array:
    """Returns the largest or the smallest entries of `x` over `axes`; entries that tie share the derivative equally."""
    return x.max(axes) if largest else x.min(axes)


@extreme.defjvp
def _extreme_jvp(axes, largest, primals, tangents):
    (x,), (tangent,) = primals, tangents
    kept = [axis for axis in range(x.ndim) if axis not in axes]

    def rows(array):
        return array.transpose(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), -1)

    entries = rows(x)
    index = (jnp.argmax if largest else jnp.argmin)(entries, -1, keepdims=True)
    chosen = entries == jnp.take_along_axis(entries, index, -1)
    chosen |= jnp.arange(entries.shape[-1]) == index
    share = chosen.astype(x.dtype) / chosen.sum(-1, keepdims=True, dtype=x.dtype)
    return extreme(x, axes, largest), (share * rows(tangent)).sum(-1)
