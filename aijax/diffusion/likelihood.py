"""Exact log-likelihoods by the probability-flow ODE, and the codes that it gives.

Along dx/dt = v(x, t) the density changes by d ln p / dt = -div v, so that

    ln p_0(x) = ln p_T(x(T)) + int_0^T div v(x(t), t) dt

(Chen et al. 2018; Song et al. 2021, equation 39). The divergence is exact, by d forward derivatives, or estimated by
e^T (dv/dx) e with probes e of independent signs, kept along the path (Hutchinson; Skilling; Grathwohl et al. 2019): one
forward derivative each, which costs about as much as v itself, where a reverse one would cost several times that.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from aijax.diffusion.losses import check_examples, exact_divergence
from aijax.diffusion.predictions import check_output, to_eps, to_x0
from aijax.diffusion.process import Process, check_times
from aijax.diffusion.samplers.adaptive import SOLVERS, level_rates
from aijax.errors import ConfigError, DataError, choose
from aijax.known import known
from aijax.typing import Any, Array, Callable, Float, PRNGKey


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of n examples and what it is made of.

    Args:
      log_prob: in nats, `[n]`: the prior's of the code plus the change.
      change: int div v dt, `[n]`.
      code: x at t_max, of the shape of the data.
      standard_error: of `change` over the probes, `[n]`; 0 for the exact divergence, NaN for a single probe.
      finished: False where the solver did not reach the end; do not use the rest then.
    """

    log_prob: Array
    change: Array
    code: Array
    standard_error: Array
    finished: Array


def log_likelihood(
    key: PRNGKey,
    denoise_fn: Callable[[Array, Array], Array],
    process: Process,
    x: Float[Array, "n ..."],
    *,
    prediction: str = "x0",
    sigma_data: float = 0.5,
    divergence: str = "hutchinson",
    num_probes: int = 1,
    probes: Array | None = None,
    t_min: float | None = None,
    t_max: float | None = None,
    solver: str = "dopri8",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
) -> Likelihood:
    """Returns the log-likelihood of each example under the probability-flow ODE of a denoiser.

    Args:
      key: of the probes.
      denoise_fn: `(x, t scalar) -> prediction`, each row by itself.
      process: any process.
      x: the data; for images dequantise them first.
      prediction, sigma_data: what `denoise_fn` predicts; default "x0".
      divergence: "hutchinson" (default) or "exact".
      num_probes: of Hutchinson, default 1; several are averaged over one path.
      probes: in place of drawn ones, of the shape of x or `[num_probes, *x.shape]`.
      t_min, t_max: the range of the ODE; default: of the process.
      solver: "dopri8" (default), "dopri5" or "tsit5".
      rtol, atol: default 1e-5.
      max_steps: default 4096.

    Raises:
      ConfigError: an unknown divergence or solver, no probes or some of another shape, times outside the process or out
        of order, a tolerance that is not positive, a denoiser of another shape.

    >>> from aijax.diffusion import VP
    >>> process = VP()
    >>> gaussian = lambda x, t: process.alpha(t) * x
    >>> found = log_likelihood(jax.random.key(0), gaussian, process, jnp.zeros((1, 2)), divergence="exact")
    >>> round(float(found.log_prob[0]), 4)
    -1.8379
    """
    check_examples(x)
    start, end = _times(process, t_min, t_max)
    choose(dict.fromkeys(("hutchinson", "exact")), divergence, "divergence")
    if divergence == "hutchinson":
        if num_probes < 1:
            raise ConfigError(f"num_probes: expected at least 1, got {num_probes}")
        if probes is None:
            probes = jax.random.rademacher(key, (num_probes, *x.shape), x.dtype)
        probes = probes[None] if probes.ndim == x.ndim else probes
        if probes.shape[1:] != x.shape or not len(probes):
            raise ConfigError(f"probes: expected the shape of x, {x.shape}, or several of it, got {probes.shape}")
    flow = flow_velocity(denoise_fn, process, prediction=prediction, sigma_data=sigma_data)
    axes = tuple(range(1, x.ndim))

    def velocity(t, state, _):
        def at(x):
            return flow(x, t)

        if divergence == "exact":
            value, change = exact_divergence(at, state[0])
            return value, change[None]
        value, linear = jax.linearize(at, state[0])
        return value, jnp.stack([jnp.sum(linear(e) * e, axes) for e in probes])

    count = 1 if divergence == "exact" else len(probes)
    state = x, jnp.zeros((count, len(x)), x.dtype)
    (code, changes), finished = _solve(velocity, state, start, end, solver, rtol, atol, max_steps)
    change = changes.mean(0)
    error = jnp.zeros_like(change)
    if divergence == "hutchinson":
        error = jnp.std(changes, 0, ddof=1) / math.sqrt(count) if count > 1 else jnp.full_like(change, jnp.nan)
    return Likelihood(process.prior.log_density(code) + change, change, code, error, finished)


def encode(
    denoise_fn: Callable[[Array, Array], Array], process: Process, x: Float[Array, "n ..."], **options: Any
) -> Array:
    """Returns the codes of data: x carried by the probability-flow ODE from t_min to t_max; `decode` is the inverse.

    Args:
      denoise_fn: `(x, t scalar) -> prediction`.
      process: any process.
      x: the data.
      **options: prediction, sigma_data, t_min, t_max, solver, rtol, atol, max_steps as of `log_likelihood`.
    """
    return _carry(denoise_fn, process, x, forward=True, **options)


def decode(
    denoise_fn: Callable[[Array, Array], Array], process: Process, code: Float[Array, "n ..."], **options: Any
) -> Array:
    """Returns the data of codes: carried by the probability-flow ODE from t_max to t_min; options as of `encode`."""
    return _carry(denoise_fn, process, code, forward=False, **options)


def flow_velocity(
    denoise_fn: Callable, process: Process, *, prediction: str = "x0", sigma_data: float = 0.5
) -> Callable[[Array, Array], Array]:
    """Returns `(x, t) -> alpha'(t) x_0 + sigma'(t) eps`, the velocity of the probability-flow ODE of a denoiser."""

    def velocity(x, t):
        (alpha, alpha_rate), (sigma, sigma_rate) = level_rates(process, t)
        output = denoise_fn(x, t)
        check_output(output, x)
        alpha, sigma = alpha.astype(x.dtype), sigma.astype(x.dtype)
        x0 = to_x0(prediction, output, x, alpha, sigma, sigma_data=sigma_data)
        eps = to_eps(prediction, output, x, alpha, sigma, sigma_data=sigma_data)
        return alpha_rate.astype(x.dtype) * x0 + sigma_rate.astype(x.dtype) * eps

    return velocity


def bits_per_dim(log_prob: Array, size: int, *, levels: int = 256, low: float = -1.0, high: float = 1.0) -> Array:
    """Returns -log2 of the probability of the discrete data, per dimension, from the density of dequantised data.

    Data on `levels` values were spread evenly over [low, high]; a bin has width (high - low) / levels.

    Raises:
      ConfigError: no dimension, fewer than 2 levels, ends out of order.

    >>> float(bits_per_dim(jnp.zeros(()), 3))
    7.0
    """
    if size < 1:
        raise ConfigError(f"size: expected at least 1 dimension, got {size}")
    _check_levels(levels, low, high)
    return -log_prob / (size * math.log(2)) + math.log2(levels / (high - low))


def dequantise(key: PRNGKey, x: Array, *, levels: int = 256, low: float = -1.0, high: float = 1.0) -> Array:
    """Returns integers from 0 to levels - 1 spread uniformly over their bins of [low, high], so that a density of the
    result bounds the probability of the integers (Theis et al. 2016).

    Raises:
      ConfigError: fewer than 2 levels, ends out of order.
      DataError: a number that is not one of the levels, where they are known.

    >>> y = dequantise(jax.random.key(0), jnp.array([0, 255]))
    >>> bool((jnp.abs(y) < 1).all())
    True
    """
    _check_levels(levels, low, high)
    if x.size and known((x.min() >= 0) & (x.max() <= levels - 1)) is False:
        raise DataError(f"x: expected numbers from 0 to {levels - 1}, got {x.min()} to {x.max()}")
    noise = jax.random.uniform(key, x.shape)
    return low + (high - low) * (x + noise) / levels


def _check_levels(levels, low, high):
    if levels < 2:
        raise ConfigError(f"levels: expected at least 2, got {levels}")
    if not low < high:
        raise ConfigError(f"low: expected a number below high = {high}, got {low}")


def _carry(
    denoise_fn, process, x, *, forward, prediction="x0", sigma_data=0.5, t_min=None, t_max=None, solver="dopri8",
    rtol=1e-5, atol=1e-5, max_steps=4096,
):  # fmt: skip
    ends = _times(process, t_min, t_max)
    start, end = ends if forward else ends[::-1]
    flow = flow_velocity(denoise_fn, process, prediction=prediction, sigma_data=sigma_data)
    x, finished = _solve(lambda t, x, _: flow(x, t), x, start, end, solver, rtol, atol, max_steps)
    return jnp.where(finished, x, jnp.nan)


def _times(process, t_min, t_max):
    start = process.t_min if t_min is None else t_min
    end = process.t_max if t_max is None else t_max
    check_times(process, start, "t_min")
    check_times(process, end, "t_max")
    if known(start < end) is False:
        raise ConfigError(f"t_min: expected a time below t_max = {end}, got {start}")
    return start, end


def _solve(velocity, state, start, end, solver, rtol, atol, max_steps):
    import diffrax

    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if known(tolerance > 0) is False:
            raise ConfigError(f"{name}: expected a positive number, got {tolerance}")
    dtype = jnp.promote_types(jax.tree.leaves(state)[0].dtype, jnp.float32)
    start, end = jnp.asarray(start, dtype), jnp.asarray(end, dtype)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        getattr(diffrax, choose(SOLVERS, solver, "solver"))(),
        start,
        end,
        None,
        state,
        stepsize_controller=diffrax.PIDController(rtol, atol),
        max_steps=max_steps,
        throw=False,
    )
    finished = solution.result == diffrax.RESULTS.successful
    checkify.debug_check(finished, "log_likelihood: the ODE was not solved within max_steps")
    return jax.tree.map(lambda leaf: leaf[-1], solution.ys), finished
