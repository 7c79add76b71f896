"""Likelihoods: what is observed, given the latent function.

    log_density(f, y)                          log p(y | f), point by point
    expected_log_density(mean, variance, y)    E[log p(y | f)],  f ~ N(mean, variance)
    predictive_log_density(mean, variance, y)  log E[p(y | f)]
    predict(mean, variance)                    mean and variance of y when f ~ N(mean, variance)
    check_targets(y)                           refuses targets outside the support, in a sentence

Most have one latent value for each point, f `[n]`; those with q of them (`num_latents`) take f, mean and variance
`[n, q]`, the q being independent. A parameter may have a value for each point where the docstring says so. A likelihood
of one's own is a `noun` that derives from `Likelihood` and defines `log_density`, `moments` and `supports`.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, log_ndtr, ndtr, xlogy

from aijax.errors import ConfigError, DataError
from aijax.gp.quadrature import expectation, log_expectation, normal_rule
from aijax.known import known
from aijax.parameters import noun, parameter, static
from aijax.typing import Any, Array, Bool, Float

LOG_2PI = math.log(2 * math.pi)


class Likelihood:
    """The base: what is not in closed form is summed over nodes (`aijax.gp.quadrature`)."""

    num_latents = 1
    log_concave = False
    """Whether log p(y | f) is concave in f for every y."""
    support = "finite numbers"
    per_point = ()
    """Names of parameters that may have a value for each point."""

    def log_density(self, f: Array, y: Array) -> Float[Array, " n"]:
        """Returns `log p(y | f)`, `[n]`."""
        raise NotImplementedError

    def moments(self, f: Array) -> tuple[Array, Array]:
        """Returns the mean and the variance of y given f."""
        raise NotImplementedError

    def supports(self, y: Array) -> Bool[Array, " n"]:
        """Returns where y is in the support."""
        return jnp.isfinite(y)

    def feature(self, y: Array) -> dict[str, Any]:
        """Returns where on the line of f the singularities of `log p(y | f)` are, as arguments of `normal_rule`."""
        return {}

    def expected_log_density(self, mean: Array, variance: Array, y: Array) -> Float[Array, " n"]:
        """Returns `E[log p(y | f)]`, `[n]`, for f ~ N(mean, variance)."""
        return expectation(self._along(self.log_density, y), mean, variance, **self.feature(y))

    def predictive_log_density(self, mean: Array, variance: Array, y: Array) -> Float[Array, " n"]:
        """Returns `log E[p(y | f)]`, `[n]`, for f ~ N(mean, variance)."""
        return log_expectation(self._along(self.log_density, y), mean, variance, **self.feature(y))

    def predict(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Returns the mean and the variance of y, for f ~ N(mean, variance)."""
        nodes, weights = normal_rule(mean, variance)
        means, variances = self._along(lambda f, _: self.moments(f), None)(nodes)
        first = jnp.sum(weights * means, -1)
        return first, jnp.sum(weights * (variances + (means - first[..., None]) ** 2), -1)

    def check_targets(self, y: Any) -> None:
        """Raises a `DataError` that names the first target outside the support, where values are known."""
        y = jnp.asarray(y)
        if y.ndim != 1:
            raise DataError(f"y: expected targets [n] for {type(self).__name__}, got an array of shape {y.shape}")
        good = self.supports(y)
        if known(good.all()) is False:
            row = int(np.argmin(np.asarray(good)))
            raise DataError(f"y: expected {self.support} for {type(self).__name__}, got {y[row]} in row {row}")

    def at(self, rows: Array) -> "Likelihood":
        """Returns the likelihood of some of the points: parameters with a value for each point are cut to `rows`."""
        own = {name: jnp.asarray(getattr(self, name)) for name in self.per_point}
        return dataclasses.replace(self, **{name: value[rows] for name, value in own.items() if value.ndim})

    def _along(self, function, y):
        """Returns f `[n, p]` -> values `[..., n, p]` of `function(f, y)`, which takes f `[n]`."""
        return jax.vmap(lambda f: function(f, y), in_axes=-1, out_axes=-1)


@noun
class Gaussian(Likelihood):
    """`y ~ N(f, noise_variance)`.

    Args:
      noise_variance: a number, or one for each point.
    """

    noise_variance: Any = parameter(0.1, "positive")
    log_concave = True
    per_point = ("noise_variance",)

    def log_density(self, f, y):
        return -((y - f) ** 2 / self.noise_variance + jnp.log(self.noise_variance) + LOG_2PI) / 2

    def moments(self, f):
        return f, self.noise_variance * jnp.ones_like(f)

    def expected_log_density(self, mean, variance, y):
        return self.log_density(mean, y) - variance / self.noise_variance / 2

    def predictive_log_density(self, mean, variance, y):
        total = variance + self.noise_variance
        return -((y - mean) ** 2 / total + jnp.log(total) + LOG_2PI) / 2

    def predict(self, mean, variance):
        return mean, variance + self.noise_variance


@noun
class HeteroscedasticGaussian(Likelihood):
    """`y ~ N(f_0, exp(f_1))`: the noise has a latent function of its own (Lazaro-Gredilla and Titsias 2011)."""

    num_latents = 2

    def log_density(self, f, y):
        return -((y - f[..., 0]) ** 2 * jnp.exp(-f[..., 1]) + f[..., 1] + LOG_2PI) / 2

    def moments(self, f):
        return f[..., 0], jnp.exp(f[..., 1])

    def expected_log_density(self, mean, variance, y):
        square = (y - mean[..., 0]) ** 2 + variance[..., 0]
        return -(square * jnp.exp(variance[..., 1] / 2 - mean[..., 1]) + mean[..., 1] + LOG_2PI) / 2

    def predictive_log_density(self, mean, variance, y):
        square, spread = (y - mean[..., 0]) ** 2, variance[..., 0]

        def log_density(log_noise):
            total = spread[..., None] + jnp.exp(log_noise)
            return -(square[..., None] / total + jnp.log(total) + LOG_2PI) / 2

        center = jnp.log(square + spread + jnp.finfo(square.dtype).tiny)
        return log_expectation(log_density, mean[..., 1], variance[..., 1], center=center, width=math.pi)

    def predict(self, mean, variance):
        return mean[..., 0], variance[..., 0] + jnp.exp(mean[..., 1] + variance[..., 1] / 2)


@noun
class Bernoulli(Likelihood):
    """`y` is 1 with probability `link(f)`, else 0.

    Args:
      link: "logit", 1 / (1 + exp(-f)), or "probit", the normal distribution function.
    """

    link: str = static("logit")
    log_concave = True
    support = "targets 0 or 1 (labels -1 and 1 are written (y + 1) / 2)"

    def check(self):
        if self.link not in ("logit", "probit"):
            raise ConfigError(f"link: expected 'logit' or 'probit', got {self.link!r}")

    def log_density(self, f, y):
        signed = jnp.where(y == 1, f, -f)
        return jax.nn.log_sigmoid(signed) if self.link == "logit" else log_ndtr(signed)

    def moments(self, f):
        probability = jax.nn.sigmoid(f) if self.link == "logit" else ndtr(f)
        return probability, probability * (1 - probability)

    def supports(self, y):
        return (y == 0) | (y == 1)

    def feature(self, y):
        # of log(1 + exp(-f)) at i pi, and zeros of the normal distribution function about as far
        return {"center": 0.0, "width": math.pi if self.link == "logit" else 2.8}

    def predictive_log_density(self, mean, variance, y):
        if self.link == "probit":
            return log_ndtr(jnp.where(y == 1, mean, -mean) / jnp.sqrt(1 + variance))
        return super().predictive_log_density(mean, variance, y)

    def predict(self, mean, variance):
        probability = jnp.exp(self.predictive_log_density(mean, variance, jnp.ones_like(mean)))
        return probability, probability * (1 - probability)


@noun
class Poisson(Likelihood):
    """`y ~ Poisson(exposure exp(f))`.

    Args:
      exposure: how long or how much was counted: a number, or one for each point.
    """

    exposure: Any = parameter(1.0, "positive")
    log_concave = True
    support = "counts 0, 1, 2, ..."
    per_point = ("exposure",)

    def log_density(self, f, y):
        return y * (f + jnp.log(self.exposure)) - self.exposure * jnp.exp(f) - gammaln(y + 1.0)

    def moments(self, f):
        return (rate := self.exposure * jnp.exp(f)), rate

    def supports(self, y):
        return (y >= 0) & (y == jnp.floor(y)) & jnp.isfinite(y)

    def feature(self, y):
        count = jnp.maximum(y, 0.5)
        return {"center": jnp.log(count / self.exposure), "width": 2 / jnp.sqrt(count)}

    def expected_log_density(self, mean, variance, y):
        rate = self.exposure * jnp.exp(mean + variance / 2)
        return y * (mean + jnp.log(self.exposure)) - rate - gammaln(y + 1.0)

    def predict(self, mean, variance):
        rate = self.exposure * jnp.exp(mean + variance / 2)
        return rate, rate + rate**2 * jnp.expm1(variance)


@noun
class StudentT(Likelihood):
    """`y = f + scale t`, t of Student's distribution with df degrees of freedom: noise with outliers.

    Args:
      df: degrees of freedom.
      scale: of the noise, in units of y.
    """

    df: Any = parameter(4.0, "positive")
    scale: Any = parameter(1.0, "positive")

    def log_density(self, f, y):
        ratio = ((y - f) / self.scale) ** 2 / self.df
        return self._log_constant() - (self.df + 1) / 2 * jnp.log1p(ratio)

    def moments(self, f):
        spread = jnp.where(self.df > 2, self.df / jnp.where(self.df > 2, self.df - 2, 1), jnp.inf)
        return f, self.scale**2 * spread * jnp.ones_like(f)

    def feature(self, y):
        return {"center": y, "width": self.scale * jnp.sqrt(self.df)}

    def predictive_log_density(self, mean, variance, y):
        # a mixture of N(mean, variance + scale^2 / g) over g ~ Gamma(df/2, df/2), summed in log g
        half = jnp.asarray(self.df / 2, mean.dtype)
        ends = 40 / half + jnp.sqrt(80 / half)
        t = -ends + (jnp.log1p(ends) + ends) * jnp.linspace(0, 1, 256, dtype=mean.dtype)
        mass = half * (t - jnp.exp(t))
        mass -= jax.scipy.special.logsumexp(mass)
        total = variance[..., None] + self.scale**2 * jnp.exp(-t)
        log_normal = -((y - mean)[..., None] ** 2 / total + jnp.log(total) + LOG_2PI) / 2
        return jax.scipy.special.logsumexp(log_normal + mass, -1)

    def predict(self, mean, variance):
        noise = self.moments(mean)[1]
        return mean, variance + noise

    def _log_constant(self):
        half = self.df / 2
        return gammaln(half + 0.5) - gammaln(half) - xlogy(0.5, self.df * math.pi) - jnp.log(self.scale)
