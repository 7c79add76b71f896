"""Samplers that choose their own steps.

`AdaptiveODE` solves the probability-flow ODE in t by an embedded Runge-Kutta pair of diffrax,

    dx/dt = alpha'(t) x_0(x, t) + sigma'(t) eps(x, t)

(equal to f x - g^2 score / 2, and finite where alpha is 0). `DPMAdaptive` is DPM-Solver of orders 2 and 3 in ln rho,
whose difference sets the step by a PID controller (Lu et al. 2022, DPM-Solver, appendix C; k-diffusion). Both have one
step for the whole batch and run on the device.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from aijax.diffusion.grids import Grid, check_steps
from aijax.diffusion.process import Process
from aijax.diffusion.samplers.base import Sampler, check_ratios
from aijax.errors import ConfigError, choose
from aijax.parameters import noun, static
from aijax.typing import Any, Array, Callable, PRNGKey


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Effort:
    """What an adaptive run took, in place of a trajectory.

    Args:
      accepted, rejected: steps.
      finished: False where `max_steps` did not suffice; the sample is not one then.
    """

    accepted: Array
    rejected: Array
    finished: Array


@noun
class AdaptiveODE(Sampler):
    """The probability-flow ODE by an adaptive solver, from the first level of the grid to its last with noise.

    A grid that ends at sigma = 0 ends with x_0 as it is predicted there. Levels between the ends do not matter.

    Args:
      solver: "tsit5" (default), "dopri5" or "dopri8" of diffrax.
      rtol, atol: tolerances, default 1e-5.
      max_steps: default 4096.
    """

    solver: str = static("tsit5")
    rtol: float = static(1e-5)
    atol: float = static(1e-5)
    max_steps: int = static(4096)

    def check(self):
        choose(dict.fromkeys(SOLVERS), self.solver, "solver")
        _check_adaptive(self)

    def prepare(self, process: Process, grid: Grid, dtype: Any) -> Any:
        last = grid.steps - 1 if grid.sigmas[-1] == 0 else grid.steps
        if last == 0:
            raise ConfigError("grid: expected at least two levels with noise, got one")
        ends = jnp.asarray(grid.times[[0, last]], jnp.promote_types(dtype, jnp.float32))
        return process, ends, jnp.asarray([grid.sigmas[-1] == 0])

    def noise_shape(self, prepared: Any, shape: tuple[int, ...]) -> None:
        return None

    def run(
        self,
        key: PRNGKey,
        predict: Callable,
        prepared: Any,
        x: Array,
        *,
        noise: Array | None = None,
        record: bool = False,
        on_call: Callable | None = None,
    ) -> tuple[Array, Effort]:
        """Returns the sample and the effort."""
        import diffrax

        process, (start, end), to_zero = prepared

        def velocity(t, x, _):
            (alpha, alpha_rate), (sigma, sigma_rate) = level_rates(process, t)
            x0, eps, _ = predict(x, t, alpha.astype(x.dtype), sigma.astype(x.dtype))
            return alpha_rate.astype(x.dtype) * x0 + sigma_rate.astype(x.dtype) * eps

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            getattr(diffrax, SOLVERS[self.solver])(),
            start,
            end,
            (end - start) / 100,
            x,
            stepsize_controller=diffrax.PIDController(self.rtol, self.atol),
            max_steps=self.max_steps,
            adjoint=diffrax.ForwardMode(),
            throw=False,
        )
        x = solution.ys[-1]
        alpha, sigma = (jnp.asarray(level, x.dtype) for level in (process.alpha(end), process.sigma(end)))
        x = jnp.where(to_zero[0], predict(x, end, alpha, sigma)[0], x)
        finished = solution.result == diffrax.RESULTS.successful
        checkify.debug_check(finished, "sampler: the ODE was not solved within max_steps")
        stats = solution.stats
        return x, Effort(stats["num_accepted_steps"], stats["num_rejected_steps"], finished)


@noun
class DPMAdaptive(Sampler):
    """DPM-Solver-12 or -23 with steps in ln rho that hold the difference of the two orders below the tolerance.

    Runs from the first level of the grid to its last with noise; levels between do not matter.

    Args:
      order: of the higher of the two, 2 or 3 (default).
      rtol, atol: of the difference, against max(|x_low|, |x before|); default 0.05 and 0.0078.
      first_step: in ln rho, default 0.05.
      p, i, d: coefficients of the controller, default 0, 1, 0.
      safety: the least factor by which a step may be accepted, default 0.81.
      max_steps: default 4096.
    """

    order: int = static(3)
    rtol: float = static(0.05)
    atol: float = static(0.0078)
    first_step: float = static(0.05)
    p: float = static(0.0)
    i: float = static(1.0)
    d: float = static(0.0)
    safety: float = static(0.81)
    max_steps: int = static(4096)

    def check(self):
        if self.order not in (2, 3):
            raise ConfigError(f"order: expected 2 or 3, got {self.order}")
        _check_adaptive(self)

    def prepare(self, process: Process, grid: Grid, dtype: Any) -> Any:
        check_ratios(grid, self)
        last = grid.steps - 1 if grid.sigmas[-1] == 0 else grid.steps
        ends = -np.log(grid.ratios[[0, last]])
        alphas = jnp.asarray(grid.alphas[[0, last]], dtype)
        return process, jnp.asarray(ends, jnp.promote_types(dtype, jnp.float32)), alphas

    def noise_shape(self, prepared: Any, shape: tuple[int, ...]) -> None:
        return None

    def run(
        self,
        key: PRNGKey,
        predict: Callable,
        prepared: Any,
        x: Array,
        *,
        noise: Array | None = None,
        record: bool = False,
        on_call: Callable | None = None,
    ) -> tuple[Array, Effort]:
        """Returns the sample and the effort."""
        process, (start, end), alphas = prepared

        def eps_at(y, level):
            ratio = jnp.exp(-level)
            alpha = jnp.asarray(process.alpha_at(ratio))
            _, eps, _ = predict(alpha.astype(y.dtype) * y, process.time_at(ratio), alpha, alpha * ratio)
            return eps

        def attempt(y, level, after):
            h = after - level

            def point(share, *terms):
                """y at `share` of the step by eps_0 and differences to it, each with its weight."""
                ratio = jnp.exp(-(level + share * h))
                return y - ratio * sum(weight * eps for weight, eps in terms)

            r1 = 1 / 3 if self.order == 3 else 1 / 2
            eps = eps_at(y, level)
            whole = jnp.expm1(h)
            middle = eps_at(point(r1, (jnp.expm1(r1 * h), eps)), level + r1 * h) - eps
            second = point(1.0, (whole, eps), (whole / (2 * r1), middle))
            if self.order == 2:
                return point(1.0, (whole, eps)), second
            part = jnp.expm1(2 / 3 * h)
            later_point = point(2 / 3, (part, eps), (2 * (part / (2 / 3 * h) - 1), middle))
            later = eps_at(later_point, level + 2 / 3 * h) - eps
            return second, point(1.0, (whole, eps), (1.5 * (whole / h - 1), later))

        powers = (
            (self.p + self.i + self.d) / self.order, -(self.p + 2 * self.d) / self.order, self.d / self.order,
        )  # fmt: skip

        def going(state):
            return (state[2] < end - 1e-5) & (state[5] + state[6] < self.max_steps)

        def step(state):
            y, low_before, level, h, errors, accepted, rejected = state
            after = jnp.minimum(end, level + h)
            low, high = attempt(y, level, after)
            scale = jnp.maximum(self.atol, self.rtol * jnp.maximum(jnp.abs(low), jnp.abs(low_before)))
            inverse = 1 / (jnp.sqrt(jnp.mean(((low - high) / scale) ** 2)) + 1e-8)
            errors = jnp.where(errors[0] > 0, errors, inverse).at[0].set(inverse)
            factor = 1 + jnp.arctan(jnp.prod(errors ** jnp.asarray(powers, errors.dtype)) - 1)
            accept = factor >= self.safety
            errors = jnp.where(accept, jnp.stack([errors[0], errors[0], errors[1]]), errors)
            y, low, level = (jnp.where(accept, a, b) for a, b in ((high, y), (low, low_before), (after, level)))
            return y, low, level, h * factor, errors, accepted + accept, rejected + ~accept

        y = x / alphas[0]
        first = jnp.asarray(self.first_step, start.dtype)
        state = (y, y, start, first, jnp.zeros(3, x.dtype), jnp.zeros((), int), jnp.zeros((), int))
        y, _, level, _, _, accepted, rejected = jax.lax.while_loop(going, step, state)
        finished = level >= end - 1e-5
        checkify.debug_check(finished, "sampler: the end was not reached within max_steps")
        return alphas[1] * y, Effort(accepted, rejected, finished)


SOLVERS = {"tsit5": "Tsit5", "dopri5": "Dopri5", "dopri8": "Dopri8"}
"""Names of solvers, and what diffrax calls them."""


def level_rates(process: Process, t: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Returns (alpha, d alpha/dt) and (sigma, d sigma/dt) at a time, by forward differentiation."""
    one = jnp.ones_like(t)
    alpha = jax.jvp(lambda s: jnp.asarray(process.alpha(s)), (t,), (one,))
    return alpha, jax.jvp(lambda s: jnp.asarray(process.sigma(s)), (t,), (one,))


def _check_adaptive(sampler):
    if not (sampler.rtol >= 0 and sampler.atol > 0):
        raise ConfigError(f"rtol, atol: expected rtol >= 0 and atol > 0, got {sampler.rtol} and {sampler.atol}")
    check_steps(sampler.max_steps, "max_steps")
