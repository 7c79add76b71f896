"""Processes of discrete time: tables of T noise levels, as DDPM and its kin are trained on.

    x_i = sqrt(1 - beta_i) x_(i-1) + sqrt(beta_i) z,        alpha_bar_i = prod_(j <= i) (1 - beta_j)

so that alpha_i = sqrt(alpha_bar_i) and sigma_i = sqrt(1 - alpha_bar_i), for i from 0 to T - 1 (Ho et al. 2020). The
time of a `Table` is that index, as its networks read it; between two indices ln(sigma / alpha) is linear. Tables are
made in float64 by NumPy, with 1 - alpha_bar by expm1.
"""

import math

import numpy as np

from aijax.diffusion.process import Prior, Process, namespace
from aijax.errors import ConfigError, choose
from aijax.parameters import noun, parameter, static
from aijax.typing import Any

BETA_CAP = 0.999


@noun
class Table(Process):
    """The variance-preserving process of T betas; time is the index, from 0 to T - 1.

    Args:
      betas: `[T]`, each in (0, 1); the last may be 1 (zero terminal SNR), or below 0 where `monotone` is False, as in
        published tables that end with alpha_bar = 2^-24 in place of 0.
      monotone: whether the betas are to be refused where they fall, default True; levels left out of a table, or a
        log-SNR that is steep in its middle, give betas that do.

    Raises:
      ConfigError: betas that are not such a list, or of T < 2.

    >>> table = linear_table(1000)
    >>> table.num_levels, round(float(table.alpha(999)), 6)
    (1000, 0.006353)
    """

    betas: Any = parameter()
    monotone: bool = static(True)

    t_min = 0.0

    def check(self):
        betas = self.betas
        if not hasattr(betas, "shape") or betas.ndim != 1 or len(betas) < 2:
            raise ConfigError(f"betas: expected a list of at least 2 numbers, got {betas!r}")
        if isinstance(betas, np.ndarray):
            last = np.arange(len(betas)) == len(betas) - 1
            bad = ((betas <= 0) & (self.monotone | ~last)) | (betas > 1) | ((betas == 1) & ~last)
            if bad.any():
                at = int(np.argmax(bad))
                raise ConfigError(f"betas: expected numbers between 0 and 1, got {betas[at]:g} at index {at}")
            falls = np.diff(betas) < 0
            if self.monotone and falls.any():
                at = int(np.argmax(falls)) + 1
                raise ConfigError(
                    f"betas: expected numbers that do not fall unless monotone is False, got {betas[at]:g} after "
                    f"{betas[at - 1]:g} at index {at}"
                )

    @property
    def num_levels(self) -> int:
        """T."""
        return len(self.betas)

    @property
    def t_max(self) -> float:
        return float(len(self.betas) - 1)

    @property
    def prior(self):
        return Prior(1.0)

    def log_alpha_bars(self):
        """Returns ln alpha_bar, `[T]`; -inf at the end of a table of zero terminal SNR."""
        xp = namespace(self.betas)
        with np.errstate(divide="ignore"):
            return xp.cumsum(xp.log1p(-self.betas))

    def alpha_bars(self):
        """Returns alpha_bar, `[T]`."""
        return namespace(self.betas).exp(self.log_alpha_bars())

    def alpha(self, t):
        return self._mixed(t)[0]

    def sigma(self, t):
        return self._mixed(t)[1]

    def ratio(self, t):
        alpha, sigma = self._mixed(t)
        with np.errstate(divide="ignore"):
            return sigma / alpha

    def alpha_at(self, ratio):
        return 1 / namespace(ratio).sqrt(1 + ratio**2)

    def time_at(self, ratio):
        xp = namespace(ratio, self.betas)
        levels = xp.log(self._ratios())
        return xp.interp(xp.log(ratio), levels, xp.arange(self.num_levels, dtype=levels.dtype))

    def beta(self, t):
        """Returns the rate -d ln alpha_bar / dt at t, per index, of the interpolation (to the right of a knot)."""
        return -2 * self.drift_coefficient(t)

    def drift_coefficient(self, t):
        # d ln alpha = sigma^2 d lambda where alpha^2 + sigma^2 = 1
        xp = namespace(t, self.betas)
        levels = xp.log(self._ratios())
        low = xp.clip(xp.floor(t), 0, self.num_levels - 2).astype(int)
        return -(self.sigma(t) ** 2) * (levels[low + 1] - levels[low])

    def diffusion(self, t):
        return namespace(t, self.betas).sqrt(self.beta(t))

    def _ratios(self):
        xp, logs = namespace(self.betas), self.log_alpha_bars()
        with np.errstate(over="ignore"):
            return xp.sqrt(xp.expm1(-logs))

    def _mixed(self, t):
        xp = namespace(t, self.betas)
        logs = xp.asarray(self.log_alpha_bars())
        t = xp.asarray(t)
        low = xp.clip(xp.floor(t), 0, self.num_levels - 1).astype(int)
        high = xp.minimum(low + 1, self.num_levels - 1)
        weight = t - low
        levels = xp.log(xp.asarray(self._ratios()))
        on_knot = weight == 0
        # ln alpha_bar between knots from ln rho, which is linear there
        with np.errstate(invalid="ignore"):
            between = levels[low] + weight * xp.where(on_knot, 0.0, levels[high] - levels[low])
        log_alpha_bar = xp.where(on_knot, logs[low], -xp.logaddexp(0.0, 2 * between))
        return xp.exp(log_alpha_bar / 2), xp.sqrt(-xp.expm1(log_alpha_bar))


def linear_table(num_levels: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Table:
    """Returns the table whose betas go evenly from `beta_start` to `beta_end` (Ho et al. 2020).

    >>> linear_table(3, 0.1, 0.3).betas.round(6).tolist()
    [0.1, 0.2, 0.3]
    """
    _check_range(num_levels, beta_start, beta_end)
    return Table(np.linspace(beta_start, beta_end, num_levels))


def scaled_linear_table(num_levels: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Table:
    """Returns the table whose sqrt(beta) go evenly (Rombach et al. 2022, latent diffusion)."""
    _check_range(num_levels, beta_start, beta_end)
    return Table(np.linspace(math.sqrt(beta_start), math.sqrt(beta_end), num_levels) ** 2)


def sigmoid_table(num_levels: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Table:
    """Returns the table of betas on a logistic curve from `beta_start` to `beta_end` over (-6, 6) (GeoDiff)."""
    _check_range(num_levels, beta_start, beta_end)
    rise = 1 / (1 + np.exp(-np.linspace(-6, 6, num_levels)))
    return Table(beta_start + (beta_end - beta_start) * rise)


def cosine_table(num_levels: int = 1000, s: float = 0.008) -> Table:
    """Returns the table with alpha_bar(t) = cos^2((t + s)/(1 + s) pi/2) at t = i/T, betas at most 0.999.

    Source: Nichol and Dhariwal 2021, equation 17.
    """
    return table_of(lambda t: np.cos((t + s) / (1 + s) * np.pi / 2) ** 2, num_levels)


def laplace_table(num_levels: int = 1000) -> Table:
    """Returns the table whose log-SNR falls as the quantiles of a Laplace distribution of scale 1/2, betas <= 0.999.

    Source: Hang and Gu 2024, Improved noise schedule for diffusion training, with 10^-6 in the logarithm; as published
    tables have it, the square root of alpha_bar stands for alpha_bar.
    """

    def alpha_bar(t):
        log_snr = np.where(t <= 0.5, -0.5, 0.5) * np.log(1 - 2 * np.abs(0.5 - t) + 1e-6)
        return np.sqrt(1 / (1 + np.exp(-log_snr)))

    return table_of(alpha_bar, num_levels)


def exponential_table(num_levels: int = 1000) -> Table:
    """Returns the table with alpha_bar(t) = e^(-12 t) at t = i/T."""
    return table_of(lambda t: np.exp(-12 * t), num_levels)


def table_of(alpha_bar_fn: Any, num_levels: int) -> Table:
    """Returns the table of a decreasing function of [0, 1].

    beta_i = 1 - alpha_bar((i + 1)/T) / alpha_bar(i/T), at most 0.999.

    Args:
      alpha_bar_fn: `t [n] -> alpha_bar [n]` in NumPy.
      num_levels: T, at least 2.
    """
    _check_levels(num_levels)
    values = alpha_bar_fn(np.arange(num_levels + 1) / num_levels)
    return Table(np.minimum(1 - values[1:] / values[:-1], BETA_CAP), monotone=False)


def make_table(name: str, num_levels: int = 1000, **options: Any) -> Table:
    """Returns the table of a published name: "linear", "scaled_linear", "sigmoid", "cosine", "laplace", "exponential".

    >>> make_table("cosine", 50).num_levels
    50
    """
    makers = {
        "linear": linear_table,
        "scaled_linear": scaled_linear_table,
        "sigmoid": sigmoid_table,
        "cosine": cosine_table,
        "laplace": laplace_table,
        "exponential": exponential_table,
    }
    return choose(makers, name, "schedule")(num_levels, **options)


def zero_terminal_snr(table: Table) -> Table:
    """Returns the table with sqrt(alpha_bar) shifted and scaled so that the last is 0 and the first is kept.

    Source: Lin et al. 2023, Common diffusion noise schedules and sample steps are flawed, algorithm 1.
    """
    roots = np.sqrt(table.alpha_bars())
    alpha_bars = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    return Table(np.concatenate([1 - alpha_bars[:1], 1 - alpha_bars[1:] / alpha_bars[:-1]]), monotone=False)


def respace(table: Table, indices: Any) -> Table:
    """Returns the shorter table that passes through the levels of the increasing `indices` of `table`.

    beta'_k = 1 - alpha_bar_(i_k) / alpha_bar_(i_(k-1)) (Nichol and Dhariwal 2021, section 4). The network's time for
    level k is `indices[k]`.

    >>> respace(linear_table(1000), [9, 499, 999]).num_levels
    3
    """
    indices = np.asarray(indices)
    if indices.ndim != 1 or (np.diff(indices) <= 0).any() or not (indices >= 0).all():
        raise ConfigError(f"indices: expected increasing indices from 0, got {indices.tolist()}")
    if indices[-1] >= table.num_levels:
        raise ConfigError(f"indices: expected indices below {table.num_levels}, got {indices[-1]}")
    return Table(-np.expm1(np.diff(table.log_alpha_bars()[indices], prepend=0.0)), monotone=False)


def discretise(process: Process, num_levels: int = 1000) -> Table:
    """Returns the table of a variance-preserving process at its times (i + 1)/T t_max."""
    _check_levels(num_levels)
    times = process.t_max * np.arange(1, num_levels + 1) / num_levels
    return Table(-np.expm1(np.diff(-np.log1p(process.ratio(times) ** 2), prepend=0.0)), monotone=False)


def index_of_time(process: Process, t: Any, table: Table) -> Any:
    """Returns the index (a real number) at which `table` has the noise that `process` has at time t."""
    return table.time_at(process.ratio(t))


def time_of_index(table: Table, index: Any, process: Process) -> Any:
    """Returns the time at which `process` has the noise that `table` has at `index`: the inverse of `index_of_time`."""
    return process.time_at(table.ratio(index))


def posterior(table: Table) -> dict[str, np.ndarray]:
    """Returns the coefficients of q(x_(i-1) | x_i, x_0) = N(a x_0 + b x_i, beta~), each `[T]`, with alpha_bar_-1 = 1.

    a = sqrt(alpha_bar_(i-1)) beta_i / (1 - alpha_bar_i), b = sqrt(1 - beta_i) (1 - alpha_bar_(i-1)) / (1 -
    alpha_bar_i), beta~ = beta_i (1 - alpha_bar_(i-1)) / (1 - alpha_bar_i) (Ho et al. 2020, equations 6 and 7), under
    the names "x0", "xt" and "variance".
    """
    logs = table.log_alpha_bars()
    before = np.concatenate([[0.0], logs[:-1]])
    noise, noise_before = -np.expm1(logs), -np.expm1(before)
    return {
        "x0": np.exp(before / 2) * table.betas / noise,
        "xt": np.sqrt(1 - table.betas) * noise_before / noise,
        "variance": table.betas * noise_before / noise,
    }


def _check_range(num_levels, beta_start, beta_end):
    _check_levels(num_levels)
    if not 0 < beta_start < 1:
        raise ConfigError(f"beta_start: expected a number between 0 and 1, got {beta_start}")
    if not beta_start <= beta_end < 1:
        raise ConfigError(f"beta_end: expected a number from beta_start = {beta_start} to below 1, got {beta_end}")


def _check_levels(num_levels):
    if isinstance(num_levels, bool) or not isinstance(num_levels, int) or num_levels < 2:
        raise ConfigError(f"num_levels: expected an integer of at least 2, got {num_levels!r}")


def snr(table: Table) -> np.ndarray:
    """Returns alpha_bar / (1 - alpha_bar), `[T]`."""
    return 1 / namespace(table.betas).expm1(-table.log_alpha_bars())
