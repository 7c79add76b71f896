"""The derivative of any function of parameters: `jax.jvp` and `jax.vjp` where these would fail or be wrong as well.

Forward mode goes through functions whose reverse pass alone is defined, and maxima are right in compiled functions too.
"""

from collections.abc import Callable

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxprs_in_params

from aijax.ntk.maxima import with_exact_maxima
from aijax.typing import Params, PyTree


def jvp(function: Callable[[Params], PyTree], params: Params, tangent: Params) -> tuple[PyTree, PyTree]:
    """Returns the outputs and J times a tangent of the parameters.

    Through `jax.custom_vjp` this is the transpose of the reverse pass.
    """
    program, traced = trace(function, params)
    if not has_custom_vjp(program.jaxpr):
        return jax.jvp(traced, (params,), (tangent,))
    outputs, backward = jax.vjp(traced, params)
    (image,) = jax.linear_transpose(lambda cotangents: backward(cotangents)[0], outputs)(tangent)
    return outputs, image


def vjp(function: Callable[[Params], PyTree], params: Params) -> tuple[PyTree, Callable[[PyTree], Params]]:
    """Returns the outputs and the product of J^T and a vector like them."""
    outputs, backward = jax.vjp(trace(function, params)[1], params)
    return outputs, lambda cotangents: backward(cotangents)[0]


def trace(function: Callable[[Params], PyTree], params: Params) -> tuple[ClosedJaxpr, Callable[[Params], PyTree]]:
    """Returns a function of parameters as a program, and as a function that runs it.

    Its values and derivatives are those of `function`, and the derivatives of maxima stay right when it is compiled.
    """
    program, shapes = jax.make_jaxpr(function, return_shape=True)(params)
    program = with_exact_maxima(program)

    def traced(params):
        outputs = jax.core.eval_jaxpr(program.jaxpr, program.consts, *jax.tree.leaves(params))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return program, traced


def has_custom_vjp(jaxpr: Jaxpr) -> bool:
    """Returns whether a program calls a function whose reverse pass alone is defined."""
    return any(
        equation.primitive.name.startswith("custom_vjp") or any(map(has_custom_vjp, jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )
