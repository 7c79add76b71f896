"""The prior: a kernel, a mean and the variance of the noise.

    f ~ GP(mean, kernel),    y_i = f(x_i) + e_i,    e_i ~ N(0, noise_variance_i)

Rasmussen and Williams 2006, section 2.2.
"""

import jax.numpy as jnp

from aijax.parameters import noun, parameter
from aijax.typing import Any, Array, Float


@noun
class GP:
    """A Gaussian process prior with Gaussian noise.

    Args:
      kernel: a kernel of `aijax.kernels`, or any function of two points.
      mean: None for 0; a number, which a fit may change; or `mean(x) -> [n]`, a noun with parameters or a function.
      noise_variance: of each observation, a number or `[n]`; default 0.1.

    >>> from aijax import kernels
    >>> GP(kernels.RBF()).noise_variance
    0.1
    """

    kernel: Any
    mean: Any = None
    noise_variance: Any = parameter(0.1, "nonnegative")


def prior_mean(gp: GP, x: Any, n: int) -> Float[Array, " n"]:
    """Returns the prior mean at n points x, `[n]`."""
    if gp.mean is None:
        return jnp.zeros(n)
    return gp.mean(x) if callable(gp.mean) else jnp.broadcast_to(gp.mean, (n,))


@noun
class Evidence:
    """The log marginal likelihood, or a bound or an estimate of it, and how far it is to be trusted. Scalars.

    Args:
      value: in nats, summed over the outputs where y has several.
      standard_error: of an estimate by random probes; 0 where there are none.
      jitter: what was added to the diagonal of the matrix that was factorised; 0 where none was needed.
      residual: the largest relative residual of the solves; 0 for direct ones.
      iterations: of the solves; 0 for direct ones.
      converged: False where a factor was not found or a solve stopped above its tolerance: value is then not to be used.
    """

    value: Array
    standard_error: Array = 0.0
    jitter: Array = 0.0
    residual: Array = 0.0
    iterations: Array = 0
    converged: Array = True
