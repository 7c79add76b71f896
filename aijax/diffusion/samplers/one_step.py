"""Samplers of one network call a step, without memory.

Over a step from (alpha, sigma) to (alpha', sigma'), with rho = sigma / alpha and q = rho' / rho, the forward process
has

    x = (alpha / alpha') x' + sigma sqrt(1 - q^2) z
    q(x' | x, x_0) = N(q sigma'/sigma x + alpha' (1 - q^2) x_0, sigma'^2 (1 - q^2) I)

(for the variance-preserving table, Ho et al. 2020, equations 6 and 7). q is 0 for a start of noise alone, so that
alpha = 0 needs no case of its own.
"""

import math

import numpy as np

from aijax.diffusion.grids import Grid
from aijax.diffusion.process import Process
from aijax.diffusion.samplers.base import Sampler
from aijax.diffusion.samplers.plan import Plan, Row
from aijax.errors import ConfigError, choose
from aijax.parameters import noun, static
from aijax.typing import Any


@noun
class DDIM(Sampler):
    """x' = alpha' x_0 + sqrt(sigma'^2 - s^2) eps + s z, s = eta sigma' sqrt(1 - q^2): implicit models.

    With eta = 0 it is Euler's method on the probability-flow ODE in rho, on any process (`Euler` of other libraries; on
    `Flow`, Euler's method for the velocity); with eta = 1 it is ancestral sampling (`DDPM` of the smaller variance,
    `Euler ancestral`).

    Args:
      eta: share of fresh noise, 0 to 1; default 0.
      reuse_eps: whether eps is the network's own, where x_0 was thresholded (as published), or is worked out again from
        the thresholded x_0; default True.

    Source: Song, Meng and Ermon 2021, equation 12.
    """

    eta: float = static(0.0)
    reuse_eps: bool = static(True)

    def check(self):
        check_share("eta", self.eta)

    def plan(self, process: Process, grid: Grid) -> Plan:
        step = Step(grid)
        share = self.eta**2 * step.fresh if self.eta else np.zeros(grid.steps)
        fresh, rest = step.sigma_next * np.sqrt(share), step.sigma_next * np.sqrt(1 - share)
        if self.reuse_eps:
            update = Row(x0=step.alpha_next[:, None], eps=rest[:, None], noise=fresh)
        else:
            x0 = step.alpha_next - rest * step.alpha / step.sigma
            update = Row(x=rest / step.sigma, x0=x0[:, None], noise=fresh)
        return step.plan(update)


@noun
class DDPM(Sampler):
    """Ancestral sampling: a draw of q(x' | x, x_0) with the predicted x_0.

    Args:
      variance: "small", sigma'^2 (1 - q^2) (beta-tilde; the default); "large", sigma^2 (1 - q^2) (beta); or "learned",
        between both in the logarithm, by the second output of a denoiser that gives `(prediction, v)`, v from -1 to 1.
      noise_last: whether the last step adds noise too; default False.

    Source: Ho et al. 2020, algorithm 2; Nichol and Dhariwal 2021, equation 15.
    """

    variance: str = static("small")
    noise_last: bool = static(False)

    def check(self):
        choose(dict.fromkeys(("small", "large", "learned")), self.variance, "variance")

    def plan(self, process: Process, grid: Grid) -> Plan:
        step = Step(grid)
        small, large = step.sigma_next * np.sqrt(step.fresh), step.sigma * np.sqrt(step.fresh)
        noise = {"small": small, "large": large, "learned": np.ones(grid.steps)}[self.variance]
        x = step.shrink * step.sigma_next / step.sigma
        update = Row(x=x, x0=(step.alpha_next * step.fresh)[:, None], noise=last_dropped(noise, self.noise_last))
        if self.variance != "learned":
            return step.plan(update)
        # where the smaller variance is 0, at the end, no noise is drawn either
        least = np.where(small > 0, small, large)
        return step.plan(update, variance_range=(2 * np.log(least), 2 * np.log(large)))


@noun
class EulerMaruyama(Sampler):
    """x' = x - (f x - g^2 score) dt + g sqrt(dt) z, the reverse SDE by Euler's method in t (Song et al. 2021).

    Args:
      probability_flow: the ODE instead, with half of the score and no noise; default False.
      noise_last: whether the last step adds noise too; default False.
    """

    probability_flow: bool = static(False)
    noise_last: bool = static(False)

    def plan(self, process: Process, grid: Grid) -> Plan:
        step = Step(grid)
        t = grid.times[:-1]
        duration = t - grid.times[1:]
        diffusion = np.asarray(process.diffusion(t)) * np.ones_like(t)
        score = diffusion**2 * duration * (0.5 if self.probability_flow else 1.0)
        update = Row(
            x=1 - np.asarray(process.drift_coefficient(t)) * duration,
            eps=(-score / step.sigma)[:, None],
            noise=None if self.probability_flow else last_dropped(diffusion * np.sqrt(duration), self.noise_last),
        )
        return step.plan(update)


@noun
class ReverseDiffusion(Sampler):
    """x' = (2 - alpha/alpha') x + G^2 score + G z, G^2 = sigma^2 (1 - q^2): the forward step's discretisation reversed.

    Args:
      probability_flow: the ODE instead, with half of the score and no noise; default False.
      noise_last: whether the last step adds noise too; default False.

    Source: Song et al. 2021, appendix E, equation 46.
    """

    probability_flow: bool = static(False)
    noise_last: bool = static(False)

    def plan(self, process: Process, grid: Grid) -> Plan:
        step = Step(grid)
        variance = step.sigma**2 * step.fresh
        score = variance * (0.5 if self.probability_flow else 1.0)
        update = Row(
            x=2 - step.alpha / step.alpha_next,
            eps=(-score / step.sigma)[:, None],
            noise=None if self.probability_flow else last_dropped(np.sqrt(variance), self.noise_last),
        )
        return step.plan(update)


@noun
class Consistency(Sampler):
    """x' = alpha' f(x, t) + sqrt(sigma'^2 - (alpha' floor)^2) z: each call gives a sample and is noised anew.

    The denoiser is a consistency function; one step is its one call. With any denoiser and floor 0 this is fully
    stochastic sampling, as of flow-matching models.

    Args:
      floor: the ratio of noise that the function leaves, default 0 (0.002 as published).

    Source: Song et al. 2023, algorithm 1.
    """

    floor: float = static(0.0)

    def plan(self, process: Process, grid: Grid) -> Plan:
        step = Step(grid)
        fresh = np.sqrt(np.maximum(step.sigma_next**2 - (step.alpha_next * self.floor) ** 2, 0))
        return step.plan(Row(x0=step.alpha_next[:, None], noise=fresh))


@noun
class LCM(Sampler):
    """Latent consistency sampling: `Consistency` on c_skip x + c_out x_0 with scalings of the time t.

    c_skip = s^2 / (k^2 t^2 + s^2), c_out = k t / sqrt(k^2 t^2 + s^2).

    Args:
      sigma_data: s, default 0.5.
      time_scale: k, default 10.

    Source: Luo et al. 2023, Latent consistency models, section 4.1.
    """

    sigma_data: float = static(0.5)
    time_scale: float = static(10.0)

    def plan(self, process: Process, grid: Grid) -> Plan:
        step = Step(grid)
        scaled = self.time_scale * grid.times[:-1]
        total = scaled**2 + self.sigma_data**2
        c_skip, c_out = self.sigma_data**2 / total, scaled / np.sqrt(total)
        update = Row(x=step.alpha_next * c_skip, x0=(step.alpha_next * c_out)[:, None], noise=step.sigma_next)
        return step.plan(update)


@noun
class TCD(Sampler):
    """x' = (alpha'/alpha_s) (alpha_s x_0 + sigma_s eps) + noise back to t': trajectory consistency sampling on a table.

    Each call leads to the level of index s = floor((1 - eta) t') below the next one, from which noise leads up to it.
    With eta = 0 it is `DDIM(0)`, with eta = 1 nearly `Consistency`.

    Args:
      eta: gamma of the paper, 0 to 1; default 0.3.

    Source: Zheng et al. 2024, Trajectory consistency distillation, algorithm 4.
    """

    eta: float = static(0.3)

    def check(self):
        check_share("eta", self.eta)

    def plan(self, process: Process, grid: Grid) -> Plan:
        step = Step(grid)
        # an end below the level of index 0 is reached without noise
        ratio = np.minimum(process.ratio(np.floor((1 - self.eta) * grid.times[1:])), grid.ratios[1:])
        kept = step.alpha_next * ratio
        fresh = np.sqrt(np.maximum((step.sigma_next - kept) * (step.sigma_next + kept), 0))
        return step.plan(Row(x0=step.alpha_next[:, None], eps=kept[:, None], noise=fresh))


class Step:
    """The levels before and after each step of a grid, and what of the noise is fresh.

    `shrink` is q = rho'/rho and `fresh` is 1 - q^2, `[N]`.
    """

    def __init__(self, grid: Grid):
        self.times = grid.times[:-1]
        self.alpha, self.alpha_next = grid.alphas[:-1], grid.alphas[1:]
        self.sigma, self.sigma_next = grid.sigmas[:-1], grid.sigmas[1:]
        with np.errstate(divide="ignore"):
            self.shrink = (self.sigma_next / self.sigma) * (self.alpha / self.alpha_next)
        self.fresh = (1 - self.shrink) * (1 + self.shrink)

    def plan(self, update: Row, **more: Any) -> Plan:
        """Returns the plan that asks at each level but the last."""
        return Plan(self.times, self.alpha, self.sigma, update, end_alphas=self.alpha_next, **more)


def last_dropped(noise: np.ndarray, keep: bool) -> np.ndarray:
    """Returns the noise coefficients, the last of them 0 unless it is kept."""
    return noise if keep else np.append(noise[:-1], 0.0)


def check_share(name: str, value: float) -> None:
    """Raises `ConfigError` where a number is not from 0 to 1."""
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ConfigError(f"{name}: expected a number from 0 to 1, got {value}")
