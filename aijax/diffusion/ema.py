"""Decays of the average of parameters over training.

    warmed      mu(k) = 1 - (1 + k / inv_gamma)^-power, or (1 + k)/(10 + k), within [least, most]
    power       mu(k) = (1 - 1/k)^(gamma + 1), whose average has width sigma_rel of the training time

(Karras et al. 2024, Analyzing and improving the training dynamics, section 3: averages of two widths, kept along the
way, combine to the average of any width.)
"""

import numpy as np

from aijax.errors import ConfigError


def warmed_decay(
    step: int,
    *,
    most: float = 0.9999,
    least: float = 0.0,
    warmup: bool = False,
    inv_gamma: float = 1.0,
    power: float = 2 / 3,
    start: int = 0,
) -> float:
    """Returns the decay at update `step`, counted from 1, that rises to `most`.

    Args:
      step: number of the update.
      most, least: bounds, default 0.9999 and 0.
      warmup: whether it rises by the power law; default by (1 + k)/(10 + k).
      inv_gamma, power: of the power law, default 1 and 2/3.
      start: updates before the first average, default 0.

    >>> warmed_decay(1), round(warmed_decay(11), 3)
    (0.0, 0.55)
    """
    k = max(0, step - start - 1)
    if k == 0:
        return 0.0
    decay = 1 - (1 + k / inv_gamma) ** -power if warmup else (1 + k) / (10 + k)
    return float(np.clip(decay, least, most))


def power_exponent(sigma_rel: float) -> float:
    """Returns gamma of the power-function average of relative width `sigma_rel`.

    It solves (gamma + 1) = sigma_rel^2 (gamma + 2)^2 (gamma + 3) (Karras et al. 2024, equation 126).

    >>> round(power_exponent(0.1), 2)
    6.94
    """
    if not 0 < sigma_rel < 0.28:
        raise ConfigError(f"sigma_rel: expected a number between 0 and 0.28, got {sigma_rel}")
    roots = np.roots([1, 7, 16 - sigma_rel**-2, 12 - sigma_rel**-2])
    return float(roots[np.abs(roots.imag) < 1e-9].real.max())


def power_decay(step: int, sigma_rel: float) -> float:
    """Returns the decay (1 - 1/step)^(gamma + 1) at update `step`, counted from 1."""
    return (1 - 1 / step) ** (power_exponent(sigma_rel) + 1)
