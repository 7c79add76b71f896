"""The gradient of the evidence of `Iterative`, with what chance and the solves may have done to it.

Each component is `1/2 a^T dA a - a^T de - 1/2 (tr(P^-1 dP) + mean_i c_i)`, `c_i = s_i^T dA p_i - p_i^T dP p_i` for
probe i (`aijax.gp.iterative`). The spread of the c_i gives its standard error. With the residuals r of the solves, of
B, and as `B >= I`, the solves have moved it, to first order in r, by at most

    |r_a| |F^-1 (dA a - de)| + 1/2 mean_i |r_i| |F^-1 dA p_i|

`dA` times vectors is needed for every parameter by itself: one pass over the kernel and its derivative for each.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from aijax.gp.iterative import Iterative, bilinear_parts, checked_key, checked_residuals, estimate_terms
from aijax.gp.model import GP, Evidence
from aijax.gp.observations import residuals
from aijax.linalg.low_rank import solve_root
from aijax.typing import Any, Array, Bool, Float, PRNGKey

STANDARD_ERRORS = 4


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradientEstimate:
    """A gradient and how far it is to be trusted; each a `GP` with a number in the place of each parameter.

    Args:
      gradient: of the log marginal likelihood.
      standard_error: of it, over the probes.
      solve_error: what the residuals of the solves may have moved, at most, to first order.
      bound: `4 standard_error + solve_error`; with 16 probes chance exceeds it about once in a thousand components.
    """

    gradient: GP
    standard_error: GP
    solve_error: GP
    bound: GP


def evidence_and_gradient(
    key: PRNGKey,
    gp: GP,
    x: Any,
    y: Float[Array, "n *m"],
    *,
    observed: Bool[Array, " n"] | None = None,
    solver: Iterative = Iterative(),  # noqa: B008
) -> tuple[Evidence, GradientEstimate]:
    """Returns the log marginal likelihood and its gradient in the parameters of the model, each with its error.

    The gradient is that of `jax.grad` of `log_marginal_likelihood` with the same key, which is cheaper and says nothing
    of its error.

    Args:
      key: for the probes.
      gp: the prior and the noise; the gradient is in its floating leaves as they are, not in their logarithms.
      x, y, observed: as in `evidence`.
      solver: how.

    Raises:
      ConfigError, DataError: as `evidence`.

    >>> from aijax import kernels
    >>> x = jnp.arange(3.0)
    >>> evidence, estimate = evidence_and_gradient(jax.random.key(0), GP(kernels.RBF()), x, jnp.sin(x))
    >>> bool(evidence.converged), estimate.gradient.kernel.lengthscale.shape
    (True, ())
    """
    checked_residuals(gp, x, y, observed)
    return _evidence_and_gradient(solver, gp, jax.tree.map(jnp.asarray, x), jnp.asarray(y), observed, checked_key(key))


@jax.jit
def _evidence_and_gradient(solver, gp, x, y, observed, key):
    leaves, structure = jax.tree.flatten(gp)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    moved = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def variables(values):
        changed = dict(zip(moved, values, strict=True))
        model = structure.unflatten([changed.get(i, leaf) for i, leaf in enumerate(leaves)])
        residual, noise, _ = residuals(model, x, y, observed)
        return model.kernel, noise, residual

    values = [leaves[i] for i in moved]
    kernel, noise, residual = variables(values)
    evidence, terms, sizes = estimate_terms(solver, kernel, x, noise, residual, observed, key)
    flat, unravel = ravel_pytree(values)
    component = functools.partial(_component, terms, x, sizes, variables, values)
    parts = jax.lax.map(lambda unit: component(unravel(unit)), jnp.eye(len(flat), dtype=flat.dtype))
    gradient, standard_error, solve_error = parts

    def tree(flat):
        changed = dict(zip(moved, unravel(flat), strict=True))
        return structure.unflatten([changed.get(i, jnp.zeros_like(leaf)) for i, leaf in enumerate(leaves)])

    bound = STANDARD_ERRORS * standard_error + solve_error
    return evidence, GradientEstimate(*map(tree, (gradient, standard_error, solve_error, bound)))


def _component(terms, x, sizes, variables, values, slopes):
    """Returns the derivative along `slopes`, its standard error, and the bound of what the solves have moved."""
    (kernel, noise, _), (dkernel, dnoise, dresidual) = jax.jvp(variables, (values,), (slopes,))
    parts = functools.partial(_parts, terms, x)
    _, (product, seen, trace) = jax.jvp(parts, (kernel, noise), (dkernel, dnoise))
    outputs = terms.weights.shape[1]
    rows, scale = terms.system.rows, terms.system.whitening[:, None]
    dresidual = rows.pad_zero(dresidual.reshape(rows.n, -1))
    data = jnp.sum(terms.weights * (product[:, :outputs] / 2 - dresidual))
    chances = jnp.sum(terms.solves * product[:, outputs:], 0) - seen
    gradient = data - outputs / 2 * (trace + jnp.mean(chances))
    standard_error = outputs / 2 * jnp.std(chances, ddof=1) / len(chances) ** 0.5
    moved = jnp.concatenate([product[:, :outputs] - dresidual, product[:, outputs:]], 1)
    reach = sizes * jnp.linalg.norm(solve_root(terms.system.root, scale * moved), axis=0)
    return gradient, standard_error, jnp.sum(reach[:outputs]) + outputs / 2 * jnp.mean(reach[outputs:])


def _parts(terms, x, kernel, noise):
    return bilinear_parts(terms, kernel, x, noise)
