"""Samplers of two network calls a step, in y = x / alpha and rho = sigma / alpha, where dy/drho = eps.

    churn:      rho^ = (1 + gamma) rho,  y^ = y + s_noise sqrt(rho^^2 - rho^2) z,  gamma = min(s_churn / N, sqrt 2 - 1)
    ancestral:  rho_down = rho' sqrt(1 - eta^2 (1 - (rho'/rho)^2)), rho_up = sqrt(rho'^2 - rho_down^2)

A step to rho' = 0 is one Euler step, y' = x_0. (Karras et al. 2022, algorithm 2; Lu et al. 2022, DPM-Solver-2; the
ancestral forms are those of k-diffusion.)
"""

import itertools
import math

import numpy as np

from aijax.diffusion.grids import Grid
from aijax.diffusion.process import Process
from aijax.diffusion.samplers.base import Sampler, check_ratios
from aijax.diffusion.samplers.one_step import check_share
from aijax.diffusion.samplers.plan import Plan, stack_rows
from aijax.errors import ConfigError
from aijax.parameters import noun, static


@noun
class Churned(Sampler):
    """What samplers with churn have in common.

    Args:
      churn: s_churn, default 0 (the ODE).
      churn_min, churn_max: the range of rho in which noise is added, default 0 to infinity.
      noise_scale: s_noise, default 1.
    """

    churn: float = static(0.0)
    churn_min: float = static(0.0)
    churn_max: float = static(math.inf)
    noise_scale: float = static(1.0)

    def check(self):
        if not (math.isfinite(self.churn) and self.churn >= 0):
            raise ConfigError(f"churn: expected a number of at least 0, got {self.churn}")
        if not self.churn_min <= self.churn_max:
            raise ConfigError(f"churn_min: expected at most churn_max = {self.churn_max}, got {self.churn_min}")

    def factor(self, ratio: float, steps: int) -> float:
        """Returns `1 + gamma` at a level rho of a grid of so many steps."""
        if self.churn == 0 or not self.churn_min <= ratio <= self.churn_max:
            return 1.0
        return 1 + min(self.churn / steps, math.sqrt(2) - 1)


@noun
class Euler(Churned):
    """Euler's method in rho with churn; without it, `DDIM(0)`.

    Args: those of `Churned`.

    Source: Karras et al. 2022, algorithm 2 without its second-order correction.
    """

    def plan(self, process: Process, grid: Grid) -> Plan:
        table = _Calls(process, grid, self)
        for rho, now, after in table.steps():
            table.call(rho, after, {"x": 1.0, "eps": [after - now]}, ratio_hat=now)
        return table.plan()


@noun
class Heun(Churned):
    """EDM's second-order sampler: an Euler step and the trapezoidal correction, with churn; 2 N - 1 calls.

    Args: those of `Churned`.

    Source: Karras et al. 2022, algorithms 1 and 2.
    """

    def plan(self, process: Process, grid: Grid) -> Plan:
        table = _Calls(process, grid, self)
        for rho, now, after in table.steps():
            table.call(rho, after, {"x": 1.0, "eps": [after - now]}, ratio_hat=now)
            if after > 0:
                half = (after - now) / 2
                table.call(after, after, {"anchor": 1.0, "eps": [half, half]}, second=True)
        return table.plan()


@noun
class DPM2(Churned):
    """The midpoint rule in rho, the midpoint taken in ln rho (DPM-Solver-2, KDPM2); 2 N - 1 calls.

    Args: those of `Churned`, and
      eta: share of fresh noise (ancestral), 0 to 1; default 0.

    Source: Karras et al. 2022, appendix D (after Lu et al. 2022).
    """

    eta: float = static(0.0)

    def check(self):
        super().check()
        check_share("eta", self.eta)

    def plan(self, process: Process, grid: Grid) -> Plan:
        table = _Calls(process, grid, self)
        for rho, now, after in table.steps():
            down, up = ancestral(now, after, self.eta)
            if down == 0:
                table.call(rho, after, {"x": 1.0, "eps": [-now], "noise": up * self.noise_scale}, ratio_hat=now)
                continue
            middle = math.sqrt(now * down)
            table.call(rho, middle, {"x": 1.0, "eps": [middle - now]}, ratio_hat=now)
            last = {"anchor": 1.0, "eps": [down - now], "noise": up * self.noise_scale}
            table.call(middle, after, last, second=True)
        return table.plan()


@noun
class DPMpp2S(Sampler):
    """DPM-Solver++ 2S: the exponential midpoint rule in ln rho with x_0, ancestral where eta > 0; 2 N - 1 calls.

    Args:
      eta: share of fresh noise, 0 to 1; default 1.
      noise_scale: default 1.

    Source: Lu et al. 2022, DPM-Solver++, algorithm 1 with r = 1/2.
    """

    eta: float = static(1.0)
    noise_scale: float = static(1.0)

    def check(self):
        check_share("eta", self.eta)

    def plan(self, process: Process, grid: Grid) -> Plan:
        table = _Calls(process, grid, self)
        for rho, _, after in table.steps():
            down, up = ancestral(rho, after, self.eta)
            noise = up * self.noise_scale
            if down == 0:
                table.call(rho, after, {"x0": [1.0], "noise": noise})
                continue
            middle = math.sqrt(rho * down)
            table.call(rho, middle, {"x": middle / rho, "x0": [1 - middle / rho]})
            last = {"anchor": down / rho, "x0": [1 - down / rho], "noise": noise}
            table.call(middle, after, last, second=True)
        return table.plan()


@noun
class DPMppSDE(Sampler):
    """DPM-Solver++ SDE: a stochastic half step in ln rho, then the whole step with its x_0; 2 N - 1 calls.

    Args:
      eta: share of fresh noise, 0 to 1; default 1.
      noise_scale: default 1.

    Source: k-diffusion's SDE form of Lu et al. 2022 with r = 1/2.
    """

    eta: float = static(1.0)
    noise_scale: float = static(1.0)

    def check(self):
        check_share("eta", self.eta)

    def plan(self, process: Process, grid: Grid) -> Plan:
        table = _Calls(process, grid, self)
        for rho, _, after in table.steps():
            if after == 0:
                table.call(rho, after, {"x0": [1.0]})
                continue
            middle = math.sqrt(rho * after)
            for start, end, second in ((rho, middle, False), (middle, after, True)):
                down, up = ancestral(rho, end, self.eta)
                shrink = down / rho
                row = {"x0": [1 - shrink], "noise": up * self.noise_scale, ("anchor" if second else "x"): shrink}
                table.call(start, end, row, second=second)
        return table.plan()


def ancestral(ratio: float, ratio_next: float, eta: float) -> tuple[float, float]:
    """Returns rho_down, to which a deterministic step goes, and rho_up, the noise that is added after it.

    >>> [round(level, 4) for level in ancestral(2.0, 1.0, 1.0)]
    [0.5, 0.866]
    """
    up = min(ratio_next, eta * ratio_next * math.sqrt((1 - ratio_next / ratio) * (1 + ratio_next / ratio)))
    return math.sqrt((ratio_next - up) * (ratio_next + up)), up


class _Calls:
    """A plan written call by call in y = x / alpha."""

    def __init__(self, process: Process, grid: Grid, sampler: Sampler):
        check_ratios(grid, sampler)
        self.process, self.grid, self.sampler = process, grid, sampler
        self.rows, self.keep, self.levels, self.before = [], [], [], []
        self.anchor_alpha = None
        # levels of the grid are told to the network by its times; those between, by the times of the process
        self.known = {ratio: (t, alpha) for ratio, t, alpha in zip(grid.ratios, grid.times, grid.alphas, strict=True)}

    def steps(self):
        """Yields rho, rho^ (after the churn) and rho' of each step."""
        ratios = self.grid.ratios
        for rho, after in itertools.pairwise(ratios):
            factor = self.sampler.factor(rho, self.grid.steps) if isinstance(self.sampler, Churned) else 1.0
            yield float(rho), float(rho * factor), float(after)

    def call(self, ratio, after, row, *, ratio_hat=None, second=False):
        """Adds a call at `ratio` (or, after churn, at `ratio_hat`) that leads to the level `after`."""
        reached = ratio if ratio_hat is None else ratio_hat
        (_, alpha_before), (t, alpha), (_, alpha_after) = map(self.level, (ratio, reached, after))
        noise = 0.0
        if reached > ratio:
            noise = self.sampler.noise_scale * alpha * math.sqrt((reached - ratio) * (reached + ratio))
        self.before.append((alpha / alpha_before, noise))
        self.levels.append((t, alpha, alpha * reached, alpha_after))
        if not second:
            self.anchor_alpha = alpha
        scaled = {name: np.multiply(alpha_after, row[name]) for name in ("x0", "eps", "noise") if name in row}
        if "x" in row:
            scaled["x"] = row["x"] * alpha_after / alpha
        if "anchor" in row:
            scaled["anchor"] = row["anchor"] * alpha_after / self.anchor_alpha
        self.rows.append(scaled)
        self.keep.append({"anchor": 1.0} if second else {"x": 1.0})

    def level(self, ratio):
        if ratio in self.known:
            return self.known[ratio]
        return float(self.process.time_at(np.float64(ratio))), float(self.process.alpha_at(np.float64(ratio)))

    def plan(self) -> Plan:
        times, alphas, sigmas, end_alphas = np.array(self.levels).T
        scale, noise = np.array(self.before).T
        return Plan(
            times, alphas, sigmas, stack_rows(self.rows), stack_rows(self.keep), scale, noise, end_alphas=end_alphas
        )
