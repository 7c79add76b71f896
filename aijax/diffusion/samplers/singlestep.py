"""Samplers that go back to the start of a step: DPM-Solver in blocks of 1, 2 or 3 network calls.

A block of k calls covers k steps of the grid. Its first call is at the start; call j goes from the start to the end of
the j-th step of the block by the integral of `aijax.diffusion.samplers.weights` over the polynomial through the j
predictions of the block. As published, a second call takes mu_1 = mu_0 / 2 ("midpoint") and a third leaves out the
middle prediction; "heun" has the exact integrals. (Lu et al. 2022, DPM-Solver, algorithms 1 and 2.)
"""

import numpy as np

from aijax.diffusion.grids import Grid, check_steps, ratio_grid
from aijax.diffusion.process import Process
from aijax.diffusion.samplers.base import Sampler, check_ratios
from aijax.diffusion.samplers.multistep import check_order, log_ratios, on_grid, step_row
from aijax.diffusion.samplers.plan import Plan, stack_rows
from aijax.errors import ConfigError, choose
from aijax.parameters import noun, static


@noun
class Singlestep(Sampler):
    """DPM-Solver++ 2S and 3S, DPM-Solver-2 and -3 in blocks of the grid's own levels.

    Args:
      order: of the blocks, 1 to 3; default 2.
      of: "x0" (DPM-Solver++, default) or "eps" (DPM-Solver).
      rule: "midpoint" (default), "heun", or "original": midpoint but for the second call of a block of three, which has
        the exact integral.
      eta: rate of the noise, "x0" only; 0 (default) for the ODE, 1 for the SDE.
      orders: the place of each step in its block, such as (1, 2, 1, 2, 1), in place of blocks of `order` that become
        lower at the end so that the last step is of order 1.
    """

    order: int = static(2)
    of: str = static("x0")
    rule: str = static("midpoint")
    eta: float = static(0.0)
    orders: tuple[int, ...] | None = static(None)

    def check(self):
        check_order(self.order, 3)
        choose(dict.fromkeys(("x0", "eps")), self.of, "of")
        choose(dict.fromkeys(("midpoint", "heun", "original")), self.rule, "rule")
        if self.of == "eps" and self.eta:
            raise ConfigError(f"eta: expected 0 where eps is interpolated, got {self.eta}")

    def plan(self, process: Process, grid: Grid) -> Plan:
        check_ratios(grid, self)
        places = self.orders or block_orders(grid.steps, self.order)
        _check_places(places, grid.steps)
        logs, rows, keep = log_ratios(grid), [], []
        for i, place in enumerate(places):
            start = i - place + 1
            if np.isinf(logs[i + 1]) and place > 1:
                raise ConfigError(f"orders: a step to sigma = 0 must be of order 1, got {place} at step {i}")
            nodes = np.zeros(1)
            if place > 1:
                nodes = (logs[start] - logs[start : i + 1][::-1]) / (logs[start] - logs[i + 1])
            among_three = places[i + 1 : i + 2] == (3,) or place == 3
            row = self._row(grid, start, i + 1, nodes, among_three)
            first = place == 1
            rows.append({("x" if first else "anchor"): row.pop("x"), **row})
            keep.append({"x": 1.0} if first else {"anchor": 1.0})
        return on_grid(grid, rows, keep=stack_rows(keep))

    def _row(self, grid, start, end, nodes, among_three):
        if len(nodes) == 3 and self.rule != "heun":
            row = step_row(grid, start, end, nodes[[0, 2]], self.of, "exact", self.eta)
            newest, first = row[self.of]
            return row | {self.of: [newest, 0.0, first]}
        exact = self.rule == "heun" or (self.rule == "original" and among_three)
        return step_row(grid, start, end, nodes, self.of, "exact" if exact else "midpoint", self.eta)


def block_orders(steps: int, order: int) -> tuple[int, ...]:
    """Returns the place of each of `steps` steps in blocks of `order`, the last steps lowered to end with a 1.

    >>> block_orders(6, 3), block_orders(5, 2)
    ((1, 2, 3, 1, 2, 1), (1, 2, 1, 2, 1))
    """
    check_steps(steps)
    blocks, rest = divmod(steps, order)
    whole = tuple(range(1, order + 1))
    if order == 1:
        return (1,) * steps
    if rest == 0:
        return whole * (blocks - 1) + whole[: order - 1] + (1,)
    return whole * blocks + whole[:rest]


def fast_blocks(process: Process, calls: int, *, t_max: float | None = None, t_min: float | None = None):
    """Returns a grid and a `Singlestep` that spend exactly `calls` network calls from `t_max` to `t_min`.

    Blocks of order 3 even in ln rho, and one or two lower ones at the end, each cut evenly: DPM-Solver-fast (Lu et al.
    2022, section 3.4). The grid ends at `t_min`, not at 0.
    """
    check_steps(calls, "calls")
    high = np.log(float(process.ratio(process.t_max if t_max is None else t_max)))
    low = np.log(float(process.ratio(process.t_min if t_min is None else t_min)))
    blocks = calls // 3 + 1
    orders = [3] * (blocks - 2) + [2, 1] if calls % 3 == 0 else [3] * (blocks - 1) + [calls % 3]
    ends = np.linspace(high, low, blocks + 1)
    logs = [
        start + (end - start) * k / n for start, end, n in zip(ends, ends[1:], orders, strict=False) for k in range(n)
    ]
    grid = ratio_grid(process, np.exp([*logs, low]), ends_at_zero=False)
    return grid, Singlestep(3, of="eps", rule="original", orders=tuple(k + 1 for n in orders for k in range(n)))


def _check_places(places, steps):
    if len(places) != steps:
        raise ConfigError(f"orders: expected one for each of {steps} steps, got {len(places)}")
    for before, place in zip((0, *places), places, strict=False):
        if place not in (1, before + 1) or place > 3:
            raise ConfigError(f"orders: expected blocks of 1, 2 or 1, 2, 3, got {place} after {before}")
