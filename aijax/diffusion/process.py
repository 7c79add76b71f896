"""What every diffusion process shares: data fade into Gaussian noise along a time t.

    x_t | x_0 ~ N(alpha(t) x_0, sigma(t)^2 I),      rho = sigma / alpha,      lambda = -ln rho (half the log-SNR)

is the solution of the linear SDE dx = f(t) x dt + g(t) dw with

    f = d ln alpha / dt,        g^2 = d sigma^2 / dt - 2 f sigma^2 = -2 sigma^2 d lambda / dt

(Kingma et al. 2021, Variational diffusion models, appendix). From a score s = grad log p_t, time runs backwards by

    dx = (f x - g^2 s) dt + g dw            (Anderson 1982; Song et al. 2021, equation 6)
    dx / dt = f x - g^2 s / 2               (the probability-flow ODE; equation 13)

A process is evaluated in float64 by NumPy where time and parameters are NumPy or Python numbers, so that the
coefficients of a sampler do not depend on JAX's precision, and in the precision of its arguments elsewhere.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.parameters import noun, parameter
from aijax.typing import Any, Array, Callable, Float, PRNGKey


class Process:
    """A process: a noun with `alpha`, `sigma`, `ratio`, `time_at`, `drift_coefficient` and `diffusion`.

    Times are scalars or arrays `[n]`, one for each row of x, from 0 to `t_max`. `t_min` is the least time at which
    training and sampling look at the score.
    """

    t_min = 1e-5
    t_max = 1.0

    def alpha(self, t: Any) -> Any:
        """Returns alpha(t), by which the data are scaled."""
        raise NotImplementedError

    def sigma(self, t: Any) -> Any:
        """Returns sigma(t), the standard deviation of the noise."""
        raise NotImplementedError

    def ratio(self, t: Any) -> Any:
        """Returns rho(t) = sigma(t) / alpha(t), accurate where both are close to their ends."""
        raise NotImplementedError

    def time_at(self, ratio: Any) -> Any:
        """Returns the time t with rho(t) = `ratio`."""
        raise NotImplementedError

    def drift_coefficient(self, t: Any) -> Any:
        """Returns f(t)."""
        raise NotImplementedError

    def diffusion(self, t: Any) -> Any:
        """Returns g(t)."""
        raise NotImplementedError

    def alpha_at(self, ratio: Any) -> Any:
        """Returns alpha where rho is `ratio`."""
        return self.alpha(self.time_at(ratio))

    def log_snr(self, t: Any) -> Any:
        """Returns ln(alpha^2 / sigma^2) = 2 lambda."""
        return -2 * namespace(t).log(self.ratio(t))

    def drift(self, x: Array, t: Any) -> Array:
        """Returns f(t) x."""
        return like_rows(self.drift_coefficient(t), x) * x

    def marginal(self, x0: Array, t: Any) -> tuple[Array, Any]:
        """Returns the mean alpha(t) x_0 and the standard deviation sigma(t) of x_t given x_0."""
        return like_rows(self.alpha(t), x0) * x0, self.sigma(t)

    @property
    def prior(self) -> "Prior":
        """What x is taken to be at `t_max`: N(0, std^2 I), for data of at most unit size against the noise."""
        return Prior(self.sigma(self.t_max))


@noun
class Prior:
    """The Gaussian N(0, std^2 I) from which sampling starts."""

    std: Any = parameter(1.0, "positive")

    def sample(self, key: PRNGKey, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """Returns a draw of `shape`."""
        return self.std * jax.random.normal(key, shape, dtype or float)

    def log_density(self, x: Float[Array, "n ..."]) -> Float[Array, " n"]:
        """Returns the log density of each row, in nats."""
        size = math.prod(x.shape[1:])
        squares = jnp.sum((x / self.std) ** 2, tuple(range(1, x.ndim)))
        return -squares / 2 - size * (math.log(2 * math.pi) / 2 + jnp.log(self.std))


def reverse_sde(process: Process, score_fn: Callable[[Array, Any], Array]) -> tuple[Callable, Callable]:
    """Returns the drift `(x, t) -> f x - g^2 score` and the diffusion `t -> g` of the process in reverse time.

    Args:
      process: any process.
      score_fn: `(x, t) -> grad log p_t(x)`.

    Source: Anderson 1982; Song et al. 2021, equation 6.
    """

    def drift(x, t):
        return process.drift(x, t) - like_rows(process.diffusion(t) ** 2, x) * score_fn(x, t)

    return drift, process.diffusion


def probability_flow(process: Process, score_fn: Callable[[Array, Any], Array]) -> Callable[[Array, Any], Array]:
    """Returns `(x, t) -> dx/dt` of the ODE whose solutions have the same marginals as the process.

    Args:
      process: any process.
      score_fn: `(x, t) -> grad log p_t(x)`.

    Source: Song et al. 2021, equation 13.
    """

    def velocity(x, t):
        return process.drift(x, t) - like_rows(process.diffusion(t) ** 2 / 2, x) * score_fn(x, t)

    return velocity


def add_noise(process: Process, x0: Array, t: Any, noise: Array) -> Array:
    """Returns x_t = alpha(t) x_0 + sigma(t) noise.

    >>> from aijax.diffusion import VE
    >>> float(add_noise(VE(0.01, 50.0), jnp.zeros(()), 1.0, jnp.ones(())))
    50.0
    """
    mean, std = process.marginal(x0, t)
    return mean + like_rows(std, x0) * noise


def like_rows(value: Any, x: Array) -> Any:
    """Returns a scalar or a value for each row, `[n]`, shaped so that it multiplies x, `[n, ...]`."""
    value = value if hasattr(value, "ndim") else np.asarray(value, x.dtype)
    if isinstance(value, np.ndarray | np.generic):
        value = value.astype(x.dtype)
    return value.reshape(value.shape + (1,) * (x.ndim - 1)) if value.ndim == 1 else value


def namespace(*values: Any) -> Any:
    """Returns `jax.numpy` where any of the values is a JAX array, else `numpy`."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np


def check_times(process: Process, t: Any, where: str = "t") -> None:
    """Raises `ConfigError` for a time outside [0, t_max]; values known only inside `jit` are passed over."""
    if isinstance(t, jax.core.Tracer):
        return
    times = np.asarray(t, float)
    good = (times >= 0) & (times <= process.t_max * (1 + 1e-6))
    if not good.all():
        bad = times.reshape(-1)[np.argmin(good.reshape(-1))]
        raise ConfigError(f"{where}: expected times from 0 to {process.t_max:g}, got {bad:g}")
