"""Consistency models: a function f(x, t) that gives the start of the ODE path through x, so that one call samples.

Along increasing ratios s_1 < ... < s_N, f is trained to agree with itself at neighbouring points of a path,

    d(f(x_hi, s_hi), f'(x_lo, s_lo)),         x_hi = alpha (x_0 + s_hi z)

where x_lo is a Heun step of a teacher's ODE from x_hi (distillation), or x_0 + s_lo z with the same noise (training),
and f' is f itself or its average, without gradient (Song et al. 2023, algorithms 2 and 3). The improved recipe has f' =
f, the pseudo-Huber distance, weights 1/(s_hi - s_lo), doubling N and log-normal ratios (Song and Dhariwal 2023).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from aijax.diffusion.losses import check_examples
from aijax.diffusion.predictions import check_output, edm_weight
from aijax.diffusion.process import Process, like_rows
from aijax.errors import ConfigError, choose
from aijax.typing import Array, Callable, Float, Int, PRNGKey


def consistency_training_loss(
    key: PRNGKey,
    consistency_fn: Callable[[Array, Array], Array],
    target_fn: Callable[[Array, Array], Array] | None,
    process: Process,
    x0: Float[Array, "n ..."],
    ratios: Float[Array, " N"],
    *,
    distance: str = "pseudo_huber",
    weighting: str = "inverse_gap",
    sigma_data: float = 0.5,
    probabilities: Array | None = None,
    index: Int[Array, " n"] | None = None,
    noise: Array | None = None,
) -> Float[Array, " n"]:
    """Returns the loss of each example without a teacher, `[n]`.

    Args:
      key: of indices and noise.
      consistency_fn: f, `(x, t [n]) -> x_0`; see `aijax.diffusion.predictions.consistency_fn`.
      target_fn: f'; None for f itself.
      process: any process.
      x0: the data.
      ratios: increasing sigma / alpha, `[N]`, such as `consistency_ratios(N)`. Pad them, with probabilities of 0, for
        one program at any N.
      distance: "pseudo_huber" (default), sqrt(|.|^2 + c^2) - c with c = 0.00054 sqrt(d), made for images; or "l2". In
        few dimensions c lies far below the differences and medians are learned, not means: take "l2" there.
      weighting: "inverse_gap", 1/(s_hi - s_lo) (default), "edm", 1/c_out(s_hi)^2, by which the square counts in the
        network's own units, or "uniform".
      sigma_data: of weighting "edm", default 0.5.
      probabilities: of each index from 0 to N - 2, such as `lognormal_probabilities(ratios)`; default equal.
      index, noise: in place of drawn ones.
    """
    ratios = jnp.asarray(ratios, x0.dtype)
    index, noise = _draw(key, x0, ratios, probabilities, index, noise)
    low, high = _noisy(process, x0, noise, ratios[index]), _noisy(process, x0, noise, ratios[index + 1])
    return _loss(consistency_fn, target_fn, process, low, high, ratios, index, distance, weighting, sigma_data)


def consistency_distillation_loss(
    key: PRNGKey,
    consistency_fn: Callable[[Array, Array], Array],
    target_fn: Callable[[Array, Array], Array] | None,
    denoise_fn: Callable[[Array, Array], Array],
    process: Process,
    x0: Float[Array, "n ..."],
    ratios: Float[Array, " N"],
    *,
    distance: str = "l2",
    weighting: str = "uniform",
    sigma_data: float = 0.5,
    probabilities: Array | None = None,
    index: Int[Array, " n"] | None = None,
    noise: Array | None = None,
) -> Float[Array, " n"]:
    """Returns the loss of each example with a teacher `denoise_fn`, `(x, t) -> E[x_0 given x]`, `[n]`.

    Other arguments as of `consistency_training_loss`.
    """
    ratios = jnp.asarray(ratios, x0.dtype)
    index, noise = _draw(key, x0, ratios, probabilities, index, noise)
    high = _noisy(process, x0, noise, ratios[index + 1])
    low = heun_step(denoise_fn, process, high, ratios[index + 1], ratios[index])
    return _loss(consistency_fn, target_fn, process, low, high, ratios, index, distance, weighting, sigma_data)


def heun_step(denoise_fn: Callable, process: Process, x: Array, ratio: Array, ratio_next: Array) -> Array:
    """Returns x after a Heun step of the probability-flow ODE from `ratio` to `ratio_next`, scalars or `[n]`."""
    alpha, alpha_next = process.alpha_at(ratio), process.alpha_at(ratio_next)
    y = x / like_rows(alpha, x)

    def slope(y, ratio, alpha):
        denoised = denoise_fn(like_rows(alpha, y) * y, process.time_at(ratio))
        return (y - denoised) / like_rows(ratio, y)

    step = like_rows(ratio_next - ratio, y)
    first = slope(y, ratio, alpha)
    second = slope(y + step * first, ratio_next, alpha_next)
    return like_rows(alpha_next, x) * (y + step * (first + second) / 2)


def consistency_ratios(
    count: int, *, ratio_min: float = 0.002, ratio_max: float = 80.0, rho: float = 7.0
) -> Float[Array, " N"]:
    """Returns N >= 2 ratios that increase evenly in their `rho`-th root (Song et al. 2023, section 5).

    Raises:
      ConfigError: fewer than 2, or ends that are not in order above 0.

    >>> consistency_ratios(3).round(3).tolist()
    [0.002, 2.515, 80.0]
    """
    if count < 2:
        raise ConfigError(f"count: expected at least 2, got {count}")
    if not 0 < ratio_min < ratio_max:
        raise ConfigError(f"ratio_min: expected a number above 0 and below ratio_max = {ratio_max}, got {ratio_min}")
    ends = ratio_min ** (1 / rho), ratio_max ** (1 / rho)
    return np.linspace(*ends, count) ** rho


def lognormal_probabilities(ratios: Float[Array, " N"], mean: float = -1.1, std: float = 2.0) -> Array:
    """Returns the mass of ln N(mean, std^2) between neighbouring ratios, normalised, `[N - 1]`.

    Source: Song and Dhariwal 2023, equation 10.
    """
    edges = special.erf((np.log(ratios) - mean) / (math.sqrt(2) * std))
    mass = np.diff(edges)
    return mass / mass.sum()


def curriculum(step: int, total: int, first: int = 2, last: int = 150) -> int:
    """Returns N at a step of training: ceil(sqrt(k/K ((s_1 + 1)^2 - s_0^2) + s_0^2) - 1) + 1 (Song et al. 2023).

    >>> curriculum(0, 1000, 2, 20), curriculum(1000, 1000, 2, 20)
    (2, 21)
    """
    return math.ceil(math.sqrt(step / total * ((last + 1) ** 2 - first**2) + first**2) - 1) + 1


def target_decay(step: int, total: int, first: int = 2, last: int = 150, decay: float = 0.95) -> float:
    """Returns the decay of the target's average at a step: exp(s_0 ln mu_0 / N(k)) (Song et al. 2023)."""
    return math.exp(first * math.log(decay) / curriculum(step, total, first, last))


def doubling_curriculum(step: int, total: int, first: int = 10, last: int = 1280) -> int:
    """Returns N at a step: min(s_0 2^floor(k/K'), s_1) + 1, K' = floor(K / (floor(log2(s_1/s_0)) + 1)).

    Raises:
      ConfigError: a `total` that is less than the number of doublings and one.

    Source: Song and Dhariwal 2023, equation 9.

    >>> doubling_curriculum(0, 8000), doubling_curriculum(8000, 8000)
    (11, 1281)
    """
    stages = math.floor(math.log2(last / first)) + 1
    if total < stages:
        raise ConfigError(f"total: expected a step for each of {stages} values of N, got {total}")
    stage = total // stages
    return min(first * 2 ** (step // stage), last) + 1


def _draw(key, x0, ratios, probabilities, index, noise):
    check_examples(x0, None, noise)
    if len(ratios) < 2:
        raise ConfigError(f"ratios: expected at least 2, got {len(ratios)}")
    index_key, noise_key = jax.random.split(key)
    if index is None and probabilities is None:
        index = jax.random.randint(index_key, (len(x0),), 0, len(ratios) - 1)
    elif index is None:
        # by the inverse of the distribution function: a search in N numbers, not N draws for each example
        below = jnp.cumsum(jnp.asarray(probabilities))
        index = jnp.searchsorted(below, below[-1] * jax.random.uniform(index_key, (len(x0),), below.dtype), "right")
    if noise is None:
        noise = jax.random.normal(noise_key, x0.shape, x0.dtype)
    return jnp.asarray(index), noise


def _noisy(process, x0, noise, ratio):
    return like_rows(process.alpha_at(ratio), x0) * (x0 + like_rows(ratio, x0) * noise)


def _loss(consistency_fn, target_fn, process, low, high, ratios, index, distance, weighting, sigma_data):
    ratio_low, ratio_high = ratios[index], ratios[index + 1]
    output = consistency_fn(high, process.time_at(ratio_high))
    check_output(output, high, "consistency_fn")
    target = (consistency_fn if target_fn is None else target_fn)(low, process.time_at(ratio_low))
    square = jnp.sum((output - jax.lax.stop_gradient(target)) ** 2, tuple(range(1, high.ndim)))
    constant = 0.00054 * math.sqrt(high[0].size)
    options = {"l2": lambda: square, "pseudo_huber": lambda: jnp.sqrt(square + constant**2) - constant}
    weights = {
        "uniform": lambda: 1.0,
        "inverse_gap": lambda: 1 / (ratio_high - ratio_low),
        "edm": lambda: edm_weight(ratio_high, sigma_data),
    }
    return choose(weights, weighting, "weighting")() * choose(options, distance, "distance")()
