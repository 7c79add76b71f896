"""The prior: a kernel, a mean and the variance of the noise.

    f ~ GP(mean, kernel),    y_i = f(x_i) + e_i,    e_i ~ N(0, noise_variance_i)

Rasmussen and Williams 2006, section 2.2.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax import kernels
from aijax.errors import ConfigError
from aijax.parameters import noun, parameter
from aijax.typing import Any, Array, Float


@noun
class GP:
    """A Gaussian process prior with Gaussian noise.

    Args:
      kernel: a kernel of `aijax.kernels`, or any function of two points.
      mean: None for 0; a number, which a fit may change; or `mean(x) -> [n]` (`[n, m]` for m outputs), a noun with
        parameters or a plain function.
      noise_variance: of each observation, a number or `[n]`, at least 0; default 0.1.

    Raises:
      ConfigError: a kernel or a mean that is none of these, a negative noise variance.

    >>> GP(kernels.RBF()).noise_variance
    0.1
    """

    kernel: Any
    mean: Any = None
    noise_variance: Any = parameter(0.1, "nonnegative")

    def check(self):
        object.__setattr__(self, "kernel", kernels.as_kernel(self.kernel))
        if callable(self.mean):
            if jax.tree_util.all_leaves([self.mean]):
                object.__setattr__(self, "mean", jax.tree_util.Partial(self.mean))
        elif isinstance(self.mean, int) and not isinstance(self.mean, bool):
            object.__setattr__(self, "mean", float(self.mean))
        elif isinstance(self.mean, str | list | tuple | dict | bool):
            raise ConfigError(f"mean: expected None, a number or a function of x, got {self.mean!r}")


def prior_mean(gp: GP, x: Any, n: int) -> Float[Array, " n"]:
    """Returns the prior mean at n points x, `[n]`, or `[n, m]` where `gp.mean` gives it so."""
    if gp.mean is None:
        return jnp.zeros(n)
    return gp.mean(x) if callable(gp.mean) else jnp.broadcast_to(gp.mean, (n,))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evidence:
    """The log marginal likelihood, or a bound or an estimate of it, and how far it is to be trusted. Scalars.

    Args:
      value: in nats, summed over the outputs where y has several.
      standard_error: of an estimate by random probes; 0 where there are none.
      jitter: what was added to the diagonal of the matrix that was factorised; 0 where none was needed.
      residual: the largest relative residual of the solves; 0 for direct ones.
      iterations: of the solves; 0 for direct ones.
      converged: False where a factor was not found or a solve stopped above its tolerance; do not use value then.
    """

    value: Array
    standard_error: Array = 0.0
    jitter: Array = 0.0
    residual: Array = 0.0
    iterations: Array = 0
    converged: Array = True
