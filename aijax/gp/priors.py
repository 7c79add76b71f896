"""Priors of parameters, for a fit: log densities of the parameter itself.

A fit with priors seeks the largest `log p(y | parameters) + sum log p(parameter)`, each density being that of the
parameter as the model holds it. The mode depends on that choice: in the logarithm of a parameter it lies elsewhere.
Entries of an array are independent.
"""

import jax
import jax.numpy as jnp
from jax.scipy import stats

from aijax.errors import ConfigError
from aijax.parameters import noun, parameter
from aijax.typing import Any, Array, PRNGKey


class Prior:
    """The base of priors: a noun with `log_density(value)`, of each entry, and `sample(key, shape)`."""

    def log_density(self, value: Any) -> Array:
        raise NotImplementedError

    def sample(self, key: PRNGKey, shape: tuple[int, ...] = (), dtype: Any = float) -> Array:
        raise NotImplementedError


@noun
class Normal(Prior):
    """`N(mean, std^2)`.

    >>> round(float(Normal(0.0, 1.0).log_density(0.0)), 4)
    -0.9189
    """

    mean: Any = parameter(0.0)
    std: Any = parameter(1.0, "positive")

    def log_density(self, value):
        return stats.norm.logpdf(value, self.mean, self.std)

    def sample(self, key, shape=(), dtype=float):
        return self.mean + self.std * jax.random.normal(key, shape, dtype)


@noun
class LogNormal(Prior):
    """The logarithm is `N(location, scale^2)`."""

    location: Any = parameter(0.0)
    scale: Any = parameter(1.0, "positive")

    def log_density(self, value):
        return stats.norm.logpdf(jnp.log(value), self.location, self.scale) - jnp.log(value)

    def sample(self, key, shape=(), dtype=float):
        return jnp.exp(self.location + self.scale * jax.random.normal(key, shape, dtype))


@noun
class HalfNormal(Prior):
    """`|z|` with z of `N(0, scale^2)`."""

    scale: Any = parameter(1.0, "positive")

    def log_density(self, value):
        density = stats.norm.logpdf(value, 0, self.scale) + jnp.log(2.0)
        return jnp.where(jnp.asarray(value) >= 0, density, -jnp.inf)

    def sample(self, key, shape=(), dtype=float):
        return self.scale * jnp.abs(jax.random.normal(key, shape, dtype))


@noun
class Gamma(Prior):
    """`rate^c x^(c-1) exp(-rate x) / Gamma(c)`, c the concentration."""

    concentration: Any = parameter(1.0, "positive")
    rate: Any = parameter(1.0, "positive")

    def log_density(self, value):
        return stats.gamma.logpdf(value, self.concentration, scale=1 / self.rate)

    def sample(self, key, shape=(), dtype=float):
        return jax.random.gamma(key, self.concentration, shape, dtype) / self.rate


@noun
class Uniform(Prior):
    """Even between low and high, impossible outside; a fit that should rest on an edge takes `bounds`."""

    low: Any = parameter(0.0)
    high: Any = parameter(1.0)

    def check(self):
        if isinstance(self.low, float) and isinstance(self.high, float) and not self.low < self.high:
            raise ConfigError(f"high: expected a number above low = {self.low}, got {self.high}")

    def log_density(self, value):
        inside = (jnp.asarray(value) >= self.low) & (jnp.asarray(value) <= self.high)
        return jnp.where(inside, -jnp.log(self.high - self.low), -jnp.inf)

    def sample(self, key, shape=(), dtype=float):
        return self.low + (self.high - self.low) * jax.random.uniform(key, shape, dtype)
