"""Linear multistep samplers: one network call a step and the memory of the last ones.

All are the integrals of `aijax.diffusion.samplers.weights` over the polynomial through the last predictions:

| sampler | of | in the variable | published departures |
|---|---|---|---|
| DPM-Solver++ 2M, 3M, and SDE | x_0 | lambda | order 2 by the midpoint rule, order 3 with half of mu_2 |
| DPM-Solver multistep | eps | lambda | the same |
| DEIS (log-rho Adams-Bashforth) | eps | lambda | none |
| LMS | eps | rho | none |
| UniPC | x_0 or eps | lambda | order 2 predicts by mu_1 = B/2, order 1 corrects so |

Lu et al. 2022, DPM-Solver and DPM-Solver++; Zhang and Chen 2022 (DEIS); Zhao et al. 2023 (UniPC).
"""

import numpy as np

from aijax.diffusion.grids import Grid
from aijax.diffusion.process import Process
from aijax.diffusion.samplers.base import Sampler, check_ratios
from aijax.diffusion.samplers.plan import Plan, stack_rows
from aijax.diffusion.samplers.weights import adams_weights, exponential_moments, interpolation_weights
from aijax.errors import ConfigError, choose
from aijax.parameters import noun, static
from aijax.typing import Any

RULES = ("midpoint", "heun", "exact", "published")

NO_STEP = 1e-12
"""A step in lambda below this stands still: published grids may end on a level twice."""


@noun
class Multistep(Sampler):
    """The exponential Adams-Bashforth family: DPM-Solver++ (default), DPM-Solver, DEIS, their SDE variants.

    `Multistep(2)` is DPM-Solver++ 2M, `Multistep(3)` 3M, `Multistep(2, eta=1.0)` SDE-DPM-Solver++ 2M, `Multistep(2,
    of="eps")` DPM-Solver 2M, `Multistep(3, of="eps", rule="exact")` DEIS.

    Args:
      order: how many predictions are used, 1 to 4; default 2. Order 1 is `DDIM(0)`.
      of: the prediction that is interpolated, "x0" (default) or "eps".
      rule: "midpoint" (default) and "heun": as published, which differ at order 2; "exact": the exact integral of the
        polynomial at every order; "published": midpoint, but at order 3 with mu_2 / 2 - 1 where eta > 0, a sign
        that published code has and that costs it its order.
      eta: rate of the noise, 0 (the ODE, default) to 1 (the reverse SDE) and above.
      lower_final: whether the last steps of a run of fewer than 15 lower their order, as published; default True. A
        step to sigma = 0 is always of order 1.
      orders: the order of each step, in place of these rules.
    """

    order: int = static(2)
    of: str = static("x0")
    rule: str = static("midpoint")
    eta: float = static(0.0)
    lower_final: bool = static(True)
    orders: tuple[int, ...] | None = static(None)

    def check(self):
        check_order(self.order, 4)
        choose(dict.fromkeys(("x0", "eps")), self.of, "of")
        choose(dict.fromkeys(RULES), self.rule, "rule")
        if not self.eta >= 0:
            raise ConfigError(f"eta: expected a number of at least 0, got {self.eta}")

    def plan(self, process: Process, grid: Grid) -> Plan:
        if self.of == "eps":
            check_ratios(grid, self)
        logs = log_ratios(grid)
        orders = self.orders or step_orders(grid, self.order, self.lower_final)
        if len(orders) != grid.steps:
            raise ConfigError(f"orders: expected one for each of {grid.steps} steps, got {len(orders)}")
        rows = []
        for i, order in enumerate(orders):
            nodes = past_nodes(logs, i, usable_order(logs, i, order))
            rows.append(step_row(grid, i, i + 1, nodes, self.of, self.rule, self.eta))
        return on_grid(grid, rows)


@noun
class LMS(Sampler):
    """Linear multistep in rho: x'/alpha' = x/alpha + int eps d rho over the polynomial through the last eps.

    Args:
      order: how many are used, 1 to 4; default 4.

    Source: the Adams-Bashforth family on dy/drho = eps (Karras et al. 2022, equation 1), as in k-diffusion.
    """

    order: int = static(4)

    def check(self):
        check_order(self.order, 4)

    def plan(self, process: Process, grid: Grid) -> Plan:
        check_ratios(grid, self)
        ratios, rows = grid.ratios, []
        for i in range(grid.steps):
            length = ratios[i + 1] - ratios[i]
            nodes = (ratios[i - min(i + 1, self.order) + 1 : i + 1][::-1] - ratios[i]) / length
            eps = grid.alphas[i + 1] * length * adams_weights(nodes)
            rows.append({"x": grid.alphas[i + 1] / grid.alphas[i], "eps": eps})
        return on_grid(grid, rows)


@noun
class UniPC(Sampler):
    """Unified predictor-corrector: the corrector takes the next prediction into the polynomial, at no extra call.

    Args:
      order: of predictor and corrector, 1 to 4; default 2.
      of: "x0" (default) or "eps".
      variant: "bh1", B = h, or "bh2" (default), B = 1 - e^-h: the function that stands for 2 mu_1 in an order-2
        predictor and an order-1 corrector. A step to sigma = 0 uses neither, so that "bh1" is finite there.
      lower_final: whether the order falls to 1 over the last steps; default True.
      uncorrected: numbers of the steps whose result is not corrected; default none.

    Source: Zhao et al. 2023, UniPC, algorithms 1 and 2.
    """

    order: int = static(2)
    of: str = static("x0")
    variant: str = static("bh2")
    lower_final: bool = static(True)
    uncorrected: tuple[int, ...] = static(())

    def check(self):
        check_order(self.order, 4)
        choose(dict.fromkeys(("x0", "eps")), self.of, "of")
        choose(dict.fromkeys(("bh1", "bh2")), self.variant, "variant")

    def plan(self, process: Process, grid: Grid) -> Plan:
        if self.of == "eps":
            check_ratios(grid, self)
        logs = log_ratios(grid)
        update, keep, order = [], [], 0
        for i in range(grid.steps):
            # X is the state at level i - 1 as corrected there; x the prediction of level i from it
            corrected = {"x": 1.0}
            if i > 0 and i - 1 not in self.uncorrected and np.isfinite(logs[i - 1]):
                corrected = self._correct(grid, logs, i, order)
            remaining = grid.steps - i if self.lower_final else self.order
            order = usable_order(logs, i, min(self.order, i + 1, remaining))
            step = step_row(grid, i, i + 1, past_nodes(logs, i, order), self.of, self.variant)
            update.append(_after(corrected, step, self.of))
            keep.append(corrected)
        return on_grid(grid, update, keep=stack_rows(keep))

    def _correct(self, grid, logs, i, order):
        # level i - 1 to i with the prediction at level i, the newest, among the nodes
        nodes = np.append(past_nodes(logs, i - 1, order), 1.0)
        row = step_row(grid, i - 1, i, nodes, self.of, self.variant if order == 1 else "exact")
        weights = row[self.of]
        return {"anchor": row["x"], self.of: [weights[-1], *weights[:-1]]}


def step_row(
    grid: Grid, start: int, end: int, nodes: np.ndarray, of: str, rule: str = "exact", eta: float = 0.0
) -> dict[str, Any]:
    """Returns the coefficients of the step between two levels of a grid by the polynomial through predictions at
    `nodes` (0 is the start of the step, 1 its end): of the state as "x", of the predictions as `of`, of "noise"."""
    alpha, sigma = grid.alphas[start], grid.sigmas[start]
    alpha_next, sigma_next = grid.alphas[end], grid.sigmas[end]
    logs = log_ratios(grid)
    h = logs[start] - logs[end]
    if abs(h) < NO_STEP:
        return {"x": 1.0, of: np.zeros(1)}
    if of == "x0":
        weights = prediction_weights(nodes, (1 + eta) * h, h, rule)
        shrink = np.exp(-eta * h) if eta else 1.0
        fresh = sigma_next * np.sqrt(-np.expm1(-2 * eta * h)) if eta and sigma_next else 0.0
        return {"x": sigma_next / sigma * shrink, "x0": alpha_next * weights, "noise": fresh}
    if sigma_next == 0:
        return {"x": alpha_next / alpha, "eps": np.array([-alpha_next * sigma / alpha])}
    weights = prediction_weights(nodes, -h, -h, rule)
    fresh = sigma_next * np.sqrt(eta * np.expm1(2 * h)) if eta else 0.0
    return {"x": alpha_next / alpha, "eps": sigma_next * (1 + eta) * weights, "noise": fresh}


def prediction_weights(nodes: np.ndarray, rate: float, h: float, rule: str) -> np.ndarray:
    """Returns the weights of predictions at `nodes` (0 is now, 1 the end of the step) under a published rule."""
    if np.isinf(rate):
        return np.ones(1)
    moments = exponential_moments(rate, len(nodes))
    if len(nodes) == 2 and rule in ("midpoint", "published", "bh2"):
        moments[1] = moments[0] / 2
    elif len(nodes) == 2 and rule == "bh1":
        moments[1] = h / 2
    elif len(nodes) == 3 and rule in ("midpoint", "heun", "published"):
        moments[2] /= 2
        if rule == "published" and rate > h:
            moments[2] -= 1
    return interpolation_weights(nodes, moments)


def step_orders(grid: Grid, order: int, lower_final: bool) -> list[int]:
    """Returns the order of each step: rising from 1, and falling at the end of a run of fewer than 15 steps."""
    falls = lower_final and grid.steps < 15
    return [min(order, i + 1, grid.steps - i if falls else order) for i in range(grid.steps)]


def usable_order(logs: np.ndarray, i: int, order: int) -> int:
    """Returns the order that step i can have: 1 to sigma = 0, and no node at alpha = 0."""
    if np.isinf(logs[i + 1]) or np.isinf(logs[i]):
        return 1
    return min(order, int(np.isfinite(logs[: i + 1]).sum()))


def past_nodes(logs: np.ndarray, i: int, order: int) -> np.ndarray:
    """Returns where the last predictions lie on the step from level i to i + 1, newest first: 0, then below it."""
    if order == 1 or abs(logs[i] - logs[i + 1]) < NO_STEP:
        return np.zeros(1)
    return (logs[i] - logs[i - order + 1 : i + 1][::-1]) / (logs[i] - logs[i + 1])


def log_ratios(grid: Grid) -> np.ndarray:
    """Returns ln(sigma / alpha) = -lambda of each level, infinite at the ends where one of them is 0."""
    with np.errstate(divide="ignore"):
        return np.log(grid.sigmas) - np.log(grid.alphas)


def on_grid(grid: Grid, rows: list[dict[str, Any]], **more: Any) -> Plan:
    """Returns the plan that asks at each level but the last and does `rows`."""
    return Plan(
        grid.times[:-1], grid.alphas[:-1], grid.sigmas[:-1], stack_rows(rows), end_alphas=grid.alphas[1:], **more
    )


def check_order(order: int, most: int) -> None:
    """Raises `ConfigError` where an order is not an integer from 1 to `most`."""
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= most:
        raise ConfigError(f"order: expected an integer from 1 to {most}, got {order!r}")


def _after(first, second, of):
    """The coefficients of `second` applied to the state that `first` gives: both are linear in (x, X, predictions)."""
    scale = second["x"]
    combined = {name: scale * first[name] for name in ("x", "anchor") if name in first}
    own, other = np.asarray(first.get(of, [])), np.asarray(second[of])
    total = np.zeros(max(len(own), len(other)))
    total[: len(own)] += scale * own
    total[: len(other)] += other
    return combined | {of: total}
