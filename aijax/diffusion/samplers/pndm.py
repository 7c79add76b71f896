"""Pseudo numerical methods: Adams-Bashforth of constant step on eps, each step taken by the transfer of DDIM.

    e = (55 e_0 - 59 e_1 + 37 e_2 - 9 e_3) / 24,      x' = alpha'/alpha x + (sigma' - alpha' sigma / alpha) e

(Liu et al. 2022, Pseudo numerical methods for diffusion models on manifolds, equations 11 and 12). It begins either by
asking twice at the second level (PLMS) or with three Runge-Kutta steps of four calls.
"""

import numpy as np

from aijax.diffusion.grids import Grid
from aijax.diffusion.process import Process
from aijax.diffusion.samplers.base import Sampler, check_ratios
from aijax.diffusion.samplers.plan import Plan, stack_rows
from aijax.diffusion.samplers.weights import adams_weights
from aijax.diffusion.schedules import Table
from aijax.errors import ConfigError
from aijax.parameters import noun, static


@noun
class PNDM(Sampler):
    """Pseudo linear multistep of order 4: N + 1 calls, or N + 9 with Runge-Kutta steps at the start (N at least 4).

    Args:
      runge_kutta: whether the first three steps are Runge-Kutta steps; default False.
    """

    runge_kutta: bool = static(False)

    def plan(self, process: Process, grid: Grid) -> Plan:
        check_ratios(grid, self)
        if self.runge_kutta and grid.steps < 4:
            raise ConfigError(f"steps: expected at least 4 with Runge-Kutta steps, got {grid.steps}")
        if grid.steps < 2:
            raise ConfigError(f"steps: expected at least 2, got {grid.steps}")
        calls = _Transfers(process, grid)
        seen = []
        for i in range(grid.steps):
            if self.runge_kutta and i < 3:
                seen.append(calls.count)
                middle = calls.middle(i)
                calls.add(i, i, middle, {0: 1.0})
                calls.add(i, middle, middle, {0: 1.0}, first=False)
                calls.add(i, middle, i + 1, {0: 1.0}, first=False)
                calls.add(i, i + 1, i + 1, {0: 1 / 6, 1: 1 / 3, 2: 1 / 3, 3: 1 / 6}, first=False)
            elif i == 0:
                seen.append(calls.count)
                calls.add(0, 0, 1, {0: 1.0})
                calls.add(0, 1, 1, {0: 0.5, 1: 0.5}, first=False)
            else:
                seen = [*seen[-3:], calls.count]
                weights = adams_weights(-np.arange(len(seen), dtype=float))
                ages = [calls.count - number for number in reversed(seen)]
                calls.add(i, i, i + 1, dict(zip(ages, weights, strict=True)))
        return calls.plan()


class _Transfers:
    """A plan of DDIM transfers from the start of each step, with any mixture of the eps seen so far, by age."""

    def __init__(self, process, grid):
        self.process, self.grid = process, grid
        self.rows, self.keep, self.levels, self.ends = [], [], [], []

    @property
    def count(self):
        return len(self.rows)

    def middle(self, i):
        """The level (t, alpha, sigma) half-way in time through step i; a table has none but whole indices."""
        t = (self.grid.times[i] + self.grid.times[i + 1]) / 2
        t = np.floor(t) if isinstance(self.process, Table) else t
        return t, float(self.process.alpha(t)), float(self.process.sigma(t))

    def add(self, start, at, end, mixture, first=True):
        (_, alpha, sigma), asked, (_, alpha_next, sigma_next) = map(self._level, (start, at, end))
        eps = np.zeros(max(mixture) + 1)
        for age, weight in mixture.items():
            eps[age] = weight * (sigma_next - alpha_next * sigma / alpha)
        self.rows.append({("x" if first else "anchor"): alpha_next / alpha, "eps": eps})
        self.keep.append({"x": 1.0} if first else {"anchor": 1.0})
        self.levels.append(asked)
        self.ends.append(alpha_next)

    def plan(self):
        times, alphas, sigmas = np.array(self.levels).T
        return Plan(times, alphas, sigmas, stack_rows(self.rows), stack_rows(self.keep), end_alphas=np.array(self.ends))

    def _level(self, level):
        if isinstance(level, tuple):
            return level
        return self.grid.times[level], self.grid.alphas[level], self.grid.sigmas[level]
