"""The noise levels through which a sampler steps.

A grid of N steps has N + 1 levels (t_i, alpha_i, sigma_i), from the prior at i = 0 down to the sample at i = N; the
network is asked at the first N. Between the ends `t_max` and `t_min` of the process, with r from 0 to 1:

    uniform      t = t_max + r (t_min - t_max)
    quadratic    t = (sqrt t_max + r (sqrt t_min - sqrt t_max))^2
    log_snr      rho = rho_max (rho_min / rho_max)^r         (evenly in log-SNR; "exponential" is the same)
    karras       rho = (rho_max^(1/7) + r (rho_min^(1/7) - rho_max^(1/7)))^7     (Karras et al. 2022, equation 5)
    polyexponential   ln rho = ln rho_min + (1 - r)^p ln(rho_max / rho_min)

and on a table of T levels, by integer indices, `leading`, `trailing` and `linspace` (Lin et al. 2023, table 2). All is
float64 NumPy: a grid is part of the program, not of its data.
"""

from dataclasses import dataclass

import numpy as np

from aijax.diffusion.process import Process
from aijax.diffusion.schedules import Table
from aijax.errors import ConfigError, choose
from aijax.typing import Any


@dataclass(frozen=True)
class Grid:
    """N + 1 noise levels, from the most noise to the least; from the least to the most for an inversion.

    Args:
      times: what the network is told, `[N + 1]`.
      alphas, sigmas: `[N + 1]`.
    """

    times: np.ndarray
    alphas: np.ndarray
    sigmas: np.ndarray

    def __post_init__(self):
        for name in ("times", "alphas", "sigmas"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        if not len(self.times) == len(self.alphas) == len(self.sigmas) >= 2:
            raise ConfigError(f"grid: expected at least 2 levels of each kind, got {len(self.times)} times")
        logs = np.log(np.maximum(self.ratios, 1e-300))
        turns = np.diff(logs[np.isfinite(logs)])
        if (turns > 1e-9).any() and (turns < -1e-9).any():
            raise ConfigError("grid: expected sigma / alpha to fall, or to rise for an inversion; it does both")

    @property
    def steps(self) -> int:
        """N."""
        return len(self.times) - 1

    @property
    def ratios(self) -> np.ndarray:
        """sigma / alpha, `[N + 1]`; infinite where alpha is 0."""
        with np.errstate(divide="ignore"):
            return self.sigmas / self.alphas


def make_grid(process: Process, steps: int, spacing: str = "uniform", *, final: str = "zero", **options: Any) -> Grid:
    """Returns the grid of `steps` steps of a named spacing.

    Args:
      process: any process, its parameters known (not inside `jit`'s arguments).
      steps: N, at least 1.
      spacing: see the module; "leading", "trailing" and "linspace" are of tables.
      final: "zero" ends at sigma = 0, after a last network call at `t_min`; "min" ends at `t_min` itself.
      **options: `t_max`, `t_min` (defaults: of the process); `rho` of "karras" (7) and "polyexponential" (1);
        `offset` of "leading" (0); `shift` s of "uniform", t -> s t / (1 + (s - 1) t) (1).

    Raises:
      ConfigError: steps below 1 or above the levels of a table, an unknown spacing or option, times out of order.

    >>> from aijax.diffusion import EDM
    >>> make_grid(EDM(0.002, 80.0), 3, "karras").sigmas.round(3).tolist()
    [80.0, 2.515, 0.002, 0.0]
    """
    check_steps(steps)
    if spacing in INDICES:
        return _table_grid(process, steps, spacing, final, **options)
    makers = {
        "uniform": _uniform,
        "quadratic": _quadratic,
        "log_snr": _log_snr,
        "exponential": _log_snr,
        "karras": _karras,
        "polyexponential": _polyexponential,
    }
    maker = choose(makers | dict.fromkeys(INDICES), spacing, "grid")
    t_max = float(options.pop("t_max", process.t_max))
    t_min = float(options.pop("t_min", process.t_min))
    if not 0 <= t_min < t_max <= process.t_max:
        raise ConfigError(
            f"t_min, t_max: expected 0 <= t_min < t_max <= {process.t_max:g}, got {t_min:g} and {t_max:g}"
        )
    ends_at_zero = choose({"zero": True, "min": False}, final, "final")
    points = np.linspace(0, 1, steps if ends_at_zero else steps + 1)
    try:
        times, ratios = maker(process, points, t_max, t_min, **options)
    except TypeError:
        raise ConfigError(f"grid: '{spacing}' does not take all of {', '.join(options)}") from None
    if ratios is None:
        return levels(process, times, ends_at_zero=ends_at_zero)
    return ratio_grid(process, ratios, ends_at_zero=ends_at_zero)


def levels(process: Process, times: Any, *, ends_at_zero: bool = True) -> Grid:
    """Returns the grid of given decreasing times, with a last level of sigma = 0, alpha = 1 at time 0 where asked."""
    times = np.asarray(times, np.float64)
    return _closed(times, process.alpha(times), process.sigma(times), ends_at_zero)


def ratio_grid(process: Process, ratios: Any, *, ends_at_zero: bool = True) -> Grid:
    """Returns the grid of given decreasing ratios sigma / alpha > 0, with a last level of 0 where asked."""
    ratios = np.asarray(ratios, np.float64)
    alphas = np.asarray(process.alpha_at(ratios)) + 0.0 * ratios
    return _closed(np.asarray(process.time_at(ratios)), alphas, alphas * ratios, ends_at_zero)


def reverse_grid(grid: Grid) -> Grid:
    """Returns the levels with noise of a grid, from the least to the most: for the inversion of deterministic samplers.

    >>> from aijax.diffusion import EDM
    >>> reverse_grid(make_grid(EDM(0.1, 10.0), 2, "karras")).sigmas.round(3).tolist()
    [0.1, 10.0]
    """
    noisy = grid.sigmas > 0
    return Grid(*(levels[noisy][::-1] for levels in (grid.times, grid.alphas, grid.sigmas)))


def leading_indices(num_levels: int, steps: int, offset: int = 0) -> np.ndarray:
    """Returns `(N - 1 - k) (T // N) + offset`, decreasing; with offset 0 the last is 0.

    >>> leading_indices(1000, 4).tolist()
    [750, 500, 250, 0]
    """
    _check_indices(num_levels, steps)
    return np.arange(steps)[::-1] * (num_levels // steps) + offset


def trailing_indices(num_levels: int, steps: int) -> np.ndarray:
    """Returns `round(T - k T / N) - 1`, decreasing; the first is T - 1.

    >>> trailing_indices(1000, 4).tolist()
    [999, 749, 499, 249]
    """
    _check_indices(num_levels, steps)
    return np.round(num_levels - np.arange(steps) * (num_levels / steps)).astype(int) - 1


def linspace_indices(num_levels: int, steps: int) -> np.ndarray:
    """Returns N integers nearest to evenly spaced, from T - 1 to 0.

    >>> linspace_indices(1000, 4).tolist()
    [999, 666, 333, 0]
    """
    _check_indices(num_levels, steps)
    return np.round(np.linspace(0, num_levels - 1, steps))[::-1].astype(int)


def consistency_indices(num_levels: int, steps: int, original_steps: int = 50) -> np.ndarray:
    """Returns N of the `original_steps` indices on which a latent consistency model was distilled (Luo et al. 2023).

    >>> consistency_indices(1000, 4).tolist()
    [999, 759, 499, 259]
    """
    _check_indices(num_levels, original_steps)
    _check_indices(original_steps, steps)
    distilled = (np.arange(original_steps) + 1)[::-1] * (num_levels // original_steps) - 1
    return distilled[np.floor(np.linspace(0, original_steps, steps, endpoint=False)).astype(int)]


def shift_times(times: Any, shift: float) -> Any:
    """Returns s t / (1 + (s - 1) t), which moves times to more noise for s > 1 (Esser et al. 2024, equation 23)."""
    return shift * times / (1 + (shift - 1) * times)


def check_steps(steps: Any, where: str = "steps") -> None:
    """Raises `ConfigError` where `steps` is not an integer of at least 1."""
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ConfigError(f"{where}: expected an integer of at least 1, got {steps!r}")


INDICES = {"leading": leading_indices, "trailing": trailing_indices, "linspace": linspace_indices}
"""Spacings of tables by name."""


def _table_grid(process, steps, spacing, final, **options):
    if not isinstance(process, Table):
        raise ConfigError(f"grid: '{spacing}' is of a table of levels, got {type(process).__name__}")
    indices = INDICES[spacing](process.num_levels, steps, **options)
    if choose({"zero": True, "min": False}, final, "final"):
        return levels(process, indices)
    if indices[-1] == 0:
        raise ConfigError(f"final: '{spacing}' already asks the network at index 0; expected 'zero', got 'min'")
    return levels(process, np.append(indices, 0), ends_at_zero=False)


def _uniform(process, points, t_max, t_min, shift=1.0):
    return shift_times(t_max + points * (t_min - t_max), shift), None


def _quadratic(process, points, t_max, t_min):
    return (np.sqrt(t_max) + points * (np.sqrt(t_min) - np.sqrt(t_max))) ** 2, None


def _log_snr(process, points, t_max, t_min):
    return _polyexponential(process, points, t_max, t_min)


def _polyexponential(process, points, t_max, t_min, rho=1.0):
    high, low = _ratio_ends(process, t_max, t_min)
    return None, low * np.exp((1 - points) ** rho * np.log(high / low))


def _karras(process, points, t_max, t_min, rho=7.0):
    high, low = (end ** (1 / rho) for end in _ratio_ends(process, t_max, t_min))
    return None, (high + points * (low - high)) ** rho


def _ratio_ends(process, t_max, t_min):
    high, low = float(process.ratio(t_max)), float(process.ratio(t_min))
    if not 0 < low < high < np.inf:
        raise ConfigError(
            f"t_min, t_max: a grid in sigma / alpha needs a finite range above 0, got {low:g} to {high:g}"
        )
    return high, low


def _closed(times, alphas, sigmas, ends_at_zero):
    if not ends_at_zero:
        return Grid(times, alphas, sigmas)
    return Grid(np.append(times, 0.0), np.append(alphas, 1.0), np.append(sigmas, 0.0))


def _check_indices(num_levels, steps):
    check_steps(steps)
    if steps > num_levels:
        raise ConfigError(f"steps: expected at most the {num_levels} levels of the table, got {steps}")
