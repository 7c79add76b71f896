"""The probability-flow ODE in time t, by explicit Runge-Kutta steps.

    dx/dt = f(t) x + g(t)^2 / (2 sigma(t)) eps(x, t)

Every stage is linear in the start of the step and in the predictions of its stages, so that a step of s calls is s rows
of a plan. (Song et al. 2021, equation 13.) The exponential samplers do better at the same number of calls; this is the
plain method, and the reference for them.
"""

import numpy as np

from aijax.diffusion.grids import Grid
from aijax.diffusion.process import Process
from aijax.diffusion.samplers.base import Sampler
from aijax.diffusion.samplers.plan import Plan, stack_rows
from aijax.errors import choose
from aijax.parameters import noun, static

TABLEAUS = {
    "euler": ([0.0], [[]], [1.0]),
    "midpoint": ([0.0, 0.5], [[], [0.5]], [0.0, 1.0]),
    "heun": ([0.0, 1.0], [[], [1.0]], [0.5, 0.5]),
    "rk4": ([0.0, 0.5, 0.5, 1.0], [[], [0.5], [0.0, 0.5], [0.0, 0.0, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
}
"""Names of Runge-Kutta methods: nodes, stage weights, step weights."""


@noun
class ProbabilityFlow(Sampler):
    """The probability-flow ODE in t by a fixed-step method.

    The grid should end at `t_min` (`final="min"`): f and g may have a pole at t = 0.

    Args:
      method: "euler", "midpoint", "heun" or "rk4" (default).
    """

    method: str = static("rk4")

    def check(self):
        choose(TABLEAUS, self.method, "method")

    def plan(self, process: Process, grid: Grid) -> Plan:
        nodes, stages, weights = TABLEAUS[self.method]
        count = len(nodes)
        times, rows = [], []
        for t, t_next in zip(grid.times[:-1], grid.times[1:], strict=True):
            h = t_next - t
            # points and slopes as coefficients of (X, eps of stage 0, 1, ...)
            point, slopes = np.eye(1, count + 1)[0], []
            for k in range(count):
                at = t + nodes[k] * h
                slope = float(process.drift_coefficient(at)) * point
                slope[k + 1] += float(process.diffusion(at)) ** 2 / (2 * float(process.sigma(at)))
                slopes.append(slope)
                following = weights if k == count - 1 else stages[k + 1]
                point = np.eye(1, count + 1)[0] + h * sum(w * s for w, s in zip(following, slopes, strict=True))
                start = {"x" if k == 0 else "anchor": point[0]}
                rows.append(start | {"eps": point[1 : k + 2][::-1]})
                times.append(at)
        times = np.array(times)
        alphas = np.asarray(process.alpha(times)) * np.ones_like(times)
        sigmas = np.asarray(process.sigma(times)) * np.ones_like(times)
        keep = [{"x": 1.0} if i % count == 0 else {"anchor": 1.0} for i in range(len(rows))]
        # what follows a call is the level of the next one, and the end of the grid after the last
        ends = np.append(alphas[1:], grid.alphas[-1])
        return Plan(times, alphas, sigmas, stack_rows(rows), stack_rows(keep), end_alphas=ends)
