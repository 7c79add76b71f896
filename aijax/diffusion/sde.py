"""The processes of continuous time (see `aijax.diffusion.process` for what they share).

| process | alpha | sigma | source |
|---|---|---|---|
| `VE` | 1 | sigma_min (sigma_max / sigma_min)^t | Song et al. 2021, equation 30 |
| `VP` | e^(-B/2) | sqrt(1 - e^-B) | Song et al. 2021, equation 33 |
| `SubVP` | e^(-B/2) | 1 - e^-B | Song et al. 2021, equation 29 |
| `Cosine` | cos / cos at 0 | sqrt(1 - alpha^2) | Nichol and Dhariwal 2021, equation 17 |
| `EDM` | 1 | t | Karras et al. 2022, section 3 |
| `Flow` | 1 - t | t | Liu et al. 2022; Lipman et al. 2022 |

with B(t) = int_0^t beta = beta_min t + (beta_max - beta_min) t^2 / 2. Small differences are taken by expm1 and log1p,
so that float32 is accurate at t = 1e-5, where 1 - e^-B has lost half its digits.
"""

import math

import numpy as np

from aijax.diffusion.process import Prior, Process, namespace
from aijax.errors import ConfigError
from aijax.parameters import noun, parameter
from aijax.typing import Any


@noun
class VE(Process):
    """Variance exploding: alpha = 1, sigma(t) = sigma_min (sigma_max / sigma_min)^t, t from 0 to 1.

    By the convention of Song et al. sigma(t) is taken for the standard deviation of x_t given x_0, although the SDE
    begun at x_0 has sqrt(sigma(t)^2 - sigma_min^2).

    Args:
      sigma_min: noise at t = 0, default 0.01.
      sigma_max: noise at t = 1, default 50.

    Raises:
      ConfigError: sigma_min not below sigma_max.

    >>> round(float(VE(0.01, 50.0).sigma(0.5)), 4)
    0.7071
    """

    sigma_min: Any = parameter(0.01, "positive")
    sigma_max: Any = parameter(50.0, "positive")

    def check(self):
        check_increasing("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def alpha(self, t):
        return t * 0.0 + 1.0

    def sigma(self, t):
        xp = namespace(t, self.sigma_min, self.sigma_max)
        return self.sigma_min * xp.exp(t * self._log_range)

    def std_from_start(self, t: Any) -> Any:
        """Returns sqrt(sigma(t)^2 - sigma_min^2), the standard deviation of the SDE begun at x_0 when t = 0."""
        xp = namespace(t, self.sigma_min, self.sigma_max)
        return self.sigma_min * xp.sqrt(xp.expm1(2 * t * self._log_range))

    def ratio(self, t):
        return self.sigma(t)

    def time_at(self, ratio):
        return namespace(ratio, self.sigma_min).log(ratio / self.sigma_min) / self._log_range

    def drift_coefficient(self, t):
        return t * 0.0

    def diffusion(self, t):
        return self.sigma(t) * namespace(self._log_range).sqrt(2 * self._log_range)

    @property
    def _log_range(self):
        return namespace(self.sigma_min, self.sigma_max).log(self.sigma_max / self.sigma_min)


class _LinearBeta(Process):
    """alpha = exp(-B/2) with beta(t) linear in t."""

    def check(self):
        check_increasing("beta_min", self.beta_min, "beta_max", self.beta_max)

    def beta(self, t):
        """Returns beta(t) = beta_min + t (beta_max - beta_min)."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def alpha(self, t):
        return namespace(t, self.beta_min, self.beta_max).exp(-self._integral(t) / 2)

    def drift_coefficient(self, t):
        return -self.beta(t) / 2

    def _integral(self, t):
        return t * (self.beta_min + t * (self.beta_max - self.beta_min) / 2)

    def _time_of_integral(self, integral):
        xp = namespace(integral, self.beta_min, self.beta_max)
        root = xp.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return 2 * integral / (self.beta_min + root)


@noun
class VP(_LinearBeta):
    """Variance preserving: dx = -beta(t)/2 x dt + sqrt(beta(t)) dw, t from 0 to 1; alpha^2 + sigma^2 = 1.

    Args:
      beta_min: beta at t = 0, default 0.1.
      beta_max: beta at t = 1, default 20.

    Raises:
      ConfigError: beta_min above beta_max.

    >>> round(float(VP().sigma(1e-5)), 9)
    0.001000497
    """

    beta_min: Any = parameter(0.1, "positive")
    beta_max: Any = parameter(20.0, "positive")

    def sigma(self, t):
        xp = namespace(t, self.beta_min, self.beta_max)
        return xp.sqrt(-xp.expm1(-self._integral(t)))

    def ratio(self, t):
        xp = namespace(t, self.beta_min, self.beta_max)
        return xp.sqrt(xp.expm1(self._integral(t)))

    def time_at(self, ratio):
        return self._time_of_integral(namespace(ratio).log1p(ratio**2))

    def alpha_at(self, ratio):
        return 1 / namespace(ratio).sqrt(1 + ratio**2)

    def diffusion(self, t):
        return namespace(t, self.beta_min, self.beta_max).sqrt(self.beta(t))

    @property
    def prior(self):
        return Prior(1.0)


@noun
class SubVP(_LinearBeta):
    """Sub-variance preserving: the drift of `VP`, g^2 = beta (1 - e^-2B), sigma = 1 - e^-B; t from 0 to 1.

    Args:
      beta_min: beta at t = 0, default 0.1.
      beta_max: beta at t = 1, default 20.

    Raises:
      ConfigError: beta_min above beta_max.
    """

    beta_min: Any = parameter(0.1, "positive")
    beta_max: Any = parameter(20.0, "positive")

    def sigma(self, t):
        return -namespace(t, self.beta_min, self.beta_max).expm1(-self._integral(t))

    def ratio(self, t):
        return 2 * namespace(t, self.beta_min, self.beta_max).sinh(self._integral(t) / 2)

    def time_at(self, ratio):
        return self._time_of_integral(2 * namespace(ratio).arcsinh(ratio / 2))

    def diffusion(self, t):
        xp = namespace(t, self.beta_min, self.beta_max)
        return xp.sqrt(self.beta(t) * -xp.expm1(-2 * self._integral(t)))

    @property
    def prior(self):
        return Prior(1.0)


@noun
class Cosine(Process):
    """Variance preserving with alpha(t) = cos((t + s)/(1 + s) pi/2) / cos(s/(1 + s) pi/2), t from 0 to below 1.

    beta(t) = pi/(1 + s) tan((t + s)/(1 + s) pi/2) has a pole at t = 1; the process ends at `t_max` = 0.9999.

    Args:
      s: offset that keeps beta from 0 at t = 0, default 0.008.
    """

    s: Any = parameter(0.008, "positive")

    t_max = 0.9999

    def alpha(self, t):
        xp = namespace(t, self.s)
        return xp.cos(self._angle(t)) / xp.cos(self._angle(0.0))

    def sigma(self, t):
        # cos^2 a - cos^2 b = sin(b - a) sin(b + a), with b - a = t pi / (2 (1 + s))
        xp = namespace(t, self.s)
        difference = xp.sin(self._speed * t) * xp.sin(self._angle(t) + self._angle(0.0))
        return xp.sqrt(difference) / xp.cos(self._angle(0.0))

    def ratio(self, t):
        return self.sigma(t) / self.alpha(t)

    def time_at(self, ratio):
        # tan^2 b = tan^2 a + rho^2 / cos^2 a; then b - a by the sine of the difference
        xp = namespace(ratio, self.s)
        start = self._angle(0.0)
        end = xp.arctan2(xp.sqrt(xp.sin(start) ** 2 + ratio**2), xp.cos(start))
        return (end - start) / self._speed

    def alpha_at(self, ratio):
        return 1 / namespace(ratio).sqrt(1 + ratio**2)

    def beta(self, t):
        """Returns beta(t) = -d ln alpha^2 / dt."""
        return 2 * self._speed * namespace(t, self.s).tan(self._angle(t))

    def drift_coefficient(self, t):
        return -self.beta(t) / 2

    def diffusion(self, t):
        return namespace(t, self.s).sqrt(self.beta(t))

    @property
    def prior(self):
        return Prior(1.0)

    @property
    def _speed(self):
        return math.pi / 2 / (1 + self.s)

    def _angle(self, t):
        return (t + self.s) * self._speed


@noun
class EDM(Process):
    """alpha = 1, sigma(t) = t: time is the noise itself, from 0 to sigma_max.

    Args:
      sigma_min: the least noise at which the score is looked at (`t_min`), default 0.002.
      sigma_max: where sampling starts (`t_max`), default 80.

    Raises:
      ConfigError: sigma_min not below sigma_max.
    """

    sigma_min: Any = parameter(0.002, "positive")
    sigma_max: Any = parameter(80.0, "positive")

    def check(self):
        check_increasing("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    @property
    def t_min(self):
        return self.sigma_min

    @property
    def t_max(self):
        return self.sigma_max

    def alpha(self, t):
        return t * 0.0 + 1.0

    def sigma(self, t):
        return t * 1.0

    def ratio(self, t):
        return self.sigma(t)

    def time_at(self, ratio):
        return ratio

    def drift_coefficient(self, t):
        return t * 0.0

    def diffusion(self, t):
        return namespace(t).sqrt(2 * self.sigma(t))


@noun
class Flow(Process):
    """Flow matching, or rectified flow: x_t = (1 - t) x_0 + t noise, t from 0 to 1; the velocity is noise - x_0.

    f = -1/(1 - t) and g^2 = 2 t/(1 - t) have a pole at t = 1, where x is noise alone; samplers that need them start
    from a grid below it.
    """

    t_min = 1e-3

    def alpha(self, t):
        return 1.0 - t

    def sigma(self, t):
        return t * 1.0

    def ratio(self, t):
        with np.errstate(divide="ignore"):
            return namespace(t).divide(self.sigma(t), self.alpha(t))

    def time_at(self, ratio):
        xp = namespace(ratio)
        return xp.where(xp.isinf(ratio), 1.0, ratio / (1 + xp.where(xp.isinf(ratio), 0.0, ratio)))

    def alpha_at(self, ratio):
        return 1 / (1 + ratio)

    def drift_coefficient(self, t):
        with np.errstate(divide="ignore"):
            return namespace(t).divide(-1.0, self.alpha(t))

    def diffusion(self, t):
        return namespace(t).sqrt(2 * self.ratio(t))


def check_increasing(low_name: str, low: Any, high_name: str, high: Any) -> None:
    """Raises `ConfigError` where concrete numbers are not in order; values known only inside `jit` are passed over."""
    try:
        low, high = float(low), float(high)
    except TypeError:
        return
    if not low < high:
        raise ConfigError(f"{low_name}: expected a number below {high_name} = {high:g}, got {low:g}")
