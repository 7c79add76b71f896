"""What those who read a function as a jaxpr need to know of its equations."""

from collections.abc import Sequence

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from aijax.typing import Any, Array

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr", "closed_call": "call_jaxpr"}
"""Calls whose body means what it says, and the parameter that holds it."""


def scan_parts(equation: JaxprEqn, body: Jaxpr) -> tuple[int, int]:
    """Returns how many constants and how many carried values a scan has.

    Its other inputs and outputs have one more axis outside of the body than in it.
    """
    stacked = sum(x.aval.ndim > y.aval.ndim for x, y in zip(equation.invars, body.invars, strict=True))
    carries = sum(x.aval.ndim == y.aval.ndim for x, y in zip(equation.outvars, body.outvars, strict=True))
    return len(body.invars) - stacked - carries, carries


def evaluate(jaxpr: Jaxpr, equation: JaxprEqn, inputs: Sequence[Array]) -> list[Array]:
    """Returns the outputs of one equation of `jaxpr`."""
    variables = [var for var in equation.invars if not isinstance(var, Literal)]
    unique = list(dict.fromkeys(variables))
    values = {var: x for var, x in zip(equation.invars, inputs, strict=True) if not isinstance(var, Literal)}
    alone = jaxpr.replace(
        constvars=[], invars=unique, outvars=list(equation.outvars), eqns=[equation], effects=equation.effects
    )
    return jax.core.eval_jaxpr(alone, (), *[values[var] for var in unique])


def opened(body: Jaxpr | ClosedJaxpr) -> tuple[Jaxpr, Sequence[Any]]:
    """Returns the body of a call and its constants."""
    return (body.jaxpr, body.consts) if isinstance(body, ClosedJaxpr) else (body, ())
