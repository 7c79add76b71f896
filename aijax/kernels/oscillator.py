"""The stochastically driven, damped harmonic oscillator: `f'' + (w / quality) f' + w^2 f = white noise`.

With `a = w / (2 quality)` and `D = a^2 - w^2`, its stationary solution has the covariance

    k(t) = variance e^(-a |t|) (C(t) + a S(|t|)),    C(t) = cosh(sqrt(D) t),    S(t) = sinh(sqrt(D) t) / sqrt(D)

C and S are entire functions of `D t^2`: cosine and sine where D < 0 (quality > 1/2, a peak in the spectrum), 1 and t at
D = 0 (critical damping), hyperbolic where D > 0. The spectrum is that of Foreman-Mackey, Agol, Ambikasaran and Angus
2017, equation 20:

    sqrt(2/pi) S0 w^4 / ((omega^2 - w^2)^2 + w^2 omega^2 / quality^2),      variance = S0 w quality
"""

import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.kernels.base import Kernel
from aijax.parameters import noun, parameter
from aijax.typing import Any, Array, Float

TERMS = 11
"""Terms of the series of C and S, which are taken where `|D| t^2 <= 1`: the first left out is below 1e-21."""


@noun
class SHO(Kernel):
    """`variance e^(-a |t|) (C(t) + a S(|t|))`, `t = x - x'`, of one coordinate: an oscillator driven by white noise.

    Args:
      angular_frequency: w of the undamped oscillator, in radians per unit of x, positive; default 1.
      quality: from strongly damped (0) over critical (1/2) to a pure tone (infinity), positive; default 1.
      variance: `k(x, x) = S0 w quality`, positive; default 1.

    Raises:
      ConfigError: points of more than one coordinate.

    Source: Foreman-Mackey et al. 2017, The Astronomical Journal 154, equations 19 to 24.

    >>> SHO(angular_frequency=2.0, quality=5.0)(jnp.zeros(2)).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """

    angular_frequency: Any = parameter(1.0, "positive")
    quality: Any = parameter(1.0, "positive")
    variance: Any = parameter(1.0, "positive")

    def gram(self, x1, x2=None):
        if x1.shape[1] != 1:
            raise ConfigError(f"x: expected points of one coordinate for SHO, [n] or [n, 1], got {x1.shape}")
        lag = x1[:, :1] - (x1 if x2 is None else x2)[:, 0]
        # lag * sign in place of |lag|: its derivative at coincident points is one-sided, which an even function needs
        time = self.angular_frequency * jnp.where(lag >= 0, lag, -lag)
        damping = 1 / (2 * self.quality)
        cosine, sine = damped_waves(time, damping)
        return self.variance * (cosine + damping * sine)

    def gram_diagonal(self, x):
        return jnp.broadcast_to(jnp.asarray(self.variance, x.dtype), x.shape[:1])


def damped_waves(time: Float[Array, "..."], damping: Float[Array, ""]) -> tuple[Float[Array, "..."], ...]:
    """Returns `e^(-a t) C(t)` and `e^(-a t) S(t)` for w = 1: finite at any time, smooth across critical damping.

    Args:
      time: `w t`, at least 0.
      damping: `a / w = 1 / (2 quality)`, positive.
    """
    gap = (damping - 1) * (damping + 1)
    z = gap * time**2
    over, under = z > 1, z < -1

    near = jnp.where(over | under, 0, z)
    even, odd = jnp.ones_like(near), jnp.ones_like(near)
    for k in range(TERMS - 1, 0, -1):
        even = 1 + even * near / ((2 * k - 1) * (2 * k))
        odd = 1 + odd * near / ((2 * k) * (2 * k + 1))
    decay = jnp.exp(-damping * time)

    root = jnp.sqrt(jnp.where(over, gap, 1))
    slow = jnp.exp(-jnp.where(over, time, 0) / (damping + root))
    fast = jnp.exp(-(damping + root) * time)

    frequency = jnp.sqrt(jnp.where(under, -gap, 1))
    angle = frequency * jnp.where(under, time, 0)

    cosine = jnp.where(over, (slow + fast) / 2, decay * jnp.where(under, jnp.cos(angle), even))
    sine = jnp.where(over, (slow - fast) / (2 * root), decay * jnp.where(under, jnp.sin(angle) / frequency, time * odd))
    return cosine, sine
