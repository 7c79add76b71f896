"""Taylor expansions of a function in its parameters.

Along the line from params to new_params, `g(t) = f(params + t d)` with `d = new_params - params`, and

    f(new_params) ~ sum_(k=0)^degree g^(k)(0) / k!

Degree 1 is the linearised network `f(params) + J d`, whose training is kernel regression with the tangent kernel J J^T
(Lee et al. 2019, arXiv:1902.06720, equation 2.2); higher degrees are those of Bai and Lee 2019, arXiv:1910.01619. Each
derivative is a Jacobian-vector product of the one before it; the price grows like 2^degree evaluations.
"""

import functools
import math

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.arguments import check_function, real_array, whole
from aijax.ntk.derivatives import jvp
from aijax.typing import Callable, Params, PyTree


def linearize(f: Callable[..., PyTree], params: Params) -> Callable[..., PyTree]:
    """Returns `f_lin(new_params, *args, **kwargs)`, the expansion of `f` to first order around `params`.

        f_lin(new_params, ...) = f(params, ...) + J (new_params - params),  J = df/dparams at params

    Args:
      f: any pure function `f(params, *args, **kwargs)`; parameters and outputs are trees of arrays.
      params: where to expand.

    Raises:
      ConfigError: parameters that are not floating numbers, or (from f_lin) another structure than theirs.

    Source: Lee et al. 2019, arXiv:1902.06720, equation (2.2).

    >>> float(linearize(lambda w, x: w**2 * x, jnp.array(1.0))(jnp.array(1.5), 2.0))
    4.0
    """
    return taylor_expand(f, params, 1)


def taylor_expand(f: Callable[..., PyTree], params: Params, degree: int) -> Callable[..., PyTree]:
    """Returns `f_taylor(new_params, *args, **kwargs)`, the expansion of `f` to order `degree` around `params`.

    Args:
      f: any pure function `f(params, *args, **kwargs)`; parameters and outputs are trees of arrays.
      params: where to expand.
      degree: 0 or more.

    Raises:
      ConfigError: a degree that is not a whole number of 0 or more; parameters that are not floating numbers, or (from
        f_taylor) another structure or other shapes than theirs.

    Source: Bai and Lee 2019, arXiv:1910.01619, section 2.

    >>> float(taylor_expand(lambda w, x: w**2 * x, jnp.array(1.0), 2)(jnp.array(1.5), 2.0))
    4.5
    """
    check_function("f", f)
    degree = whole("degree", degree, 0, "a whole number of 0 or more")
    if not jax.tree.leaves(params):
        raise ConfigError("params: expected floating numbers to expand in, got none")
    params = jax.tree.map(functools.partial(real_array, "params"), params)
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise ConfigError(f"params: expected floating numbers to expand in, got {leaf.dtype}")

    def expanded(new_params, *args, **kwargs):
        direction = _difference(new_params, params)

        def derivatives(order):
            """Returns `p -> (g, g', ..., g^(order))` at p, along the direction."""
            if order == 0:
                return lambda p: (f(p, *args, **kwargs),)
            lower = derivatives(order - 1)

            def extended(p):
                values, tangents = jvp(lower, p, direction)
                return (*values, tangents[-1])

            return extended

        terms = derivatives(degree)(params)
        if not jax.tree.leaves(terms[0]):
            raise ConfigError("f: expected an array or a tree of arrays, got none")
        return jax.tree.map(
            lambda *g: sum(term / math.factorial(k) if k > 1 else term for k, term in enumerate(g)), *terms
        )

    return expanded


def _difference(new_params, params):
    """Returns `new_params - params` in the types of `params`."""
    new, old = jax.tree.structure(new_params), jax.tree.structure(params)
    if new != old:
        raise ConfigError(f"new_params: expected the structure of params, {old}, got {new}")

    def difference(new, old):
        if jnp.shape(new) != old.shape:
            raise ConfigError(f"new_params: expected an array of shape {old.shape} as in params, got {jnp.shape(new)}")
        return (new - old).astype(old.dtype)

    return jax.tree.map(difference, new_params, params)
