"""Objectives of score matching and denoising: each gives the loss of every example, `[n]`.

All are weighted squares of one error. With x = alpha x_0 + sigma z and snr = alpha^2 / sigma^2,

    |eps^ - z|^2 = sigma^2 |score + z / sigma|^2 = snr |x_0^ - x_0|^2

| weighting | loss |
|---|---|
| "eps", "snr" | |eps^ - z|^2, Ho et al. 2020, equation 14; sigma^2-weighted score matching, Song et al. 2021 |
| "likelihood" | g^2 / sigma^2 |eps^ - z|^2, Song et al. 2021, Maximum likelihood training |
| "x0" | |x_0^ - x_0|^2 |
| "v", "velocity" | the square of the error of v, of eps - x_0 (Lipman et al. 2022) |
| "min_snr" | min(snr, gamma) |x_0^ - x_0|^2, gamma = 5, Hang et al. 2023 |
| "p2" | |eps^ - z|^2 / (1 + snr), Choi et al. 2022 |
| "edm" | (rho^2 + s^2) / (rho s)^2 |x_0^ - x_0|^2, Karras et al. 2022 |
| a function w | w(snr) |x_0^ - x_0|^2, such as another gamma, or max(snr, 1) (Salimans and Ho 2022) |

The other way, without noise: implicit score matching tr J + |s|^2 / 2 (Hyvarinen 2005) and its sliced estimates (Song
et al. 2019), J the Jacobian of the score.
"""

import functools

import jax
import jax.numpy as jnp

from aijax.diffusion.predictions import check_output, edm_weight, to_eps, to_x0
from aijax.diffusion.process import Process, add_noise, check_times, like_rows
from aijax.diffusion.schedules import Table
from aijax.errors import ConfigError, choose
from aijax.typing import Any, Array, Callable, Float, PRNGKey

MIN_SNR = 5.0


def denoising_loss(
    key: PRNGKey,
    denoise_fn: Callable[[Array, Array], Array],
    process: Process,
    x0: Float[Array, "n ..."],
    *,
    prediction: str = "x0",
    weighting: str | Callable[[Array], Array] = "eps",
    times: Callable[[PRNGKey, Process, int], Array] | None = None,
    reduce: str = "mean",
    sigma_data: float = 0.5,
    t: Array | None = None,
    noise: Array | None = None,
) -> Float[Array, " n"]:
    """Returns the weighted error of a denoiser at a random time of each example, `[n]`.

    Args:
      key: of times and noise.
      denoise_fn: `(x [n, ...], t [n]) -> prediction` of the shape of x.
      process: any process.
      x0: the data.
      prediction: what `denoise_fn` predicts; see `aijax.diffusion.predictions`; default "x0".
      weighting: see the module; default "eps".
      times: `(key, process, n) -> t [n]`; default `uniform_times`.
      reduce: over features, "mean" (default) or "half_sum".
      sigma_data: s of weighting "edm" and of prediction "F"; default 0.5.
      t, noise: in place of drawn ones, `[n]` and the shape of x0.

    Raises:
      ConfigError: an unknown weighting or prediction, a denoiser of another shape, times outside the process, data
        that are not of floating point, times or noise of other shapes.

    >>> from aijax.diffusion import VP
    >>> x0 = jnp.zeros((4, 2))
    >>> denoising_loss(jax.random.key(0), lambda x, t: jnp.zeros_like(x), VP(), x0, weighting="x0").tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    check_examples(x0, t, noise)
    time_key, noise_key = jax.random.split(key)
    if t is None:
        t = (times or uniform_times)(time_key, process, len(x0))
    check_times(process, t)
    if noise is None:
        noise = jax.random.normal(noise_key, x0.shape, x0.dtype)
    alpha, sigma = process.alpha(t), process.sigma(t)
    x = add_noise(process, x0, t, noise)
    output = denoise_fn(x, t)
    check_output(output, x)
    on_eps, weight = _weight(weighting, process, t, alpha, sigma, sigma_data)
    if on_eps:
        error = to_eps(prediction, output, x, alpha, sigma, sigma_data=sigma_data) - noise
    else:
        error = to_x0(prediction, output, x, alpha, sigma, sigma_data=sigma_data) - x0
    return weight * _reduced(error**2, reduce)


def check_examples(x0: Array, t: Array | None = None, noise: Array | None = None) -> None:
    """Raises `ConfigError` for data `[n, ...]` that are not of floating point, or times or noise that do not fit."""
    if x0.ndim < 1 or not jnp.issubdtype(x0.dtype, jnp.floating):
        raise ConfigError(f"x0: expected floating point of shape [n, ...], got {x0.dtype}{list(x0.shape)}")
    if t is not None and jnp.shape(t) not in ((), (len(x0),)):
        raise ConfigError(f"t: expected one time for each of {len(x0)} examples, got shape {list(jnp.shape(t))}")
    if noise is not None and jnp.shape(noise) != x0.shape:
        raise ConfigError(f"noise: expected the shape of x0, {list(x0.shape)}, got {list(jnp.shape(noise))}")


def flow_matching_loss(
    key: PRNGKey, velocity_fn: Callable, process: Process, x0: Float[Array, "n ..."], **options: Any
) -> Float[Array, " n"]:
    """Returns the mean square error of the velocity noise - x_0, `[n]`: `denoising_loss` of kind "velocity".

    >>> from aijax.diffusion import Flow
    >>> loss = flow_matching_loss(jax.random.key(0), lambda x, t: x, Flow(), jnp.zeros((1, 2)), t=jnp.ones(1))
    >>> loss.tolist()
    [0.0]
    """
    return denoising_loss(key, velocity_fn, process, x0, prediction="velocity", weighting="velocity", **options)


def edm_loss(
    key: PRNGKey,
    denoise_fn: Callable,
    process: Process,
    x0: Float[Array, "n ..."],
    *,
    mean: float = -1.2,
    std: float = 1.2,
    **options: Any,
) -> Float[Array, " n"]:
    """Returns EDM's loss, `[n]`: weighting "edm" at ln rho from N(mean, std^2) (Karras et al. 2022, table 1)."""
    times = functools.partial(lognormal_times, mean=mean, std=std)
    return denoising_loss(key, denoise_fn, process, x0, weighting="edm", times=times, **options)


def uniform_times(key: PRNGKey, process: Process, n: int) -> Float[Array, " n"]:
    """Returns n times from t_min to t_max; of a table, n of its indices."""
    if isinstance(process, Table):
        return jax.random.randint(key, (n,), 0, process.num_levels).astype(float)
    return jax.random.uniform(key, (n,), minval=process.t_min, maxval=process.t_max)


def lognormal_times(
    key: PRNGKey, process: Process, n: int, *, mean: float = -1.2, std: float = 1.2
) -> Float[Array, " n"]:
    """Returns n times at which ln(sigma / alpha) is from N(mean, std^2), held within t_min and t_max."""
    ratio = jnp.exp(mean + std * jax.random.normal(key, (n,)))
    return process.time_at(jnp.clip(ratio, process.ratio(process.t_min), process.ratio(process.t_max)))


def logit_normal_times(
    key: PRNGKey, process: Process, n: int, *, mean: float = 0.0, std: float = 1.0
) -> Float[Array, " n"]:
    """Returns n times t_max sigmoid(u), u from N(mean, std^2) (Esser et al. 2024, equation 19)."""
    return process.t_max * jax.nn.sigmoid(mean + std * jax.random.normal(key, (n,)))


def implicit_score_matching(score_fn: Callable[[Array], Array], x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Returns tr J + |s|^2 / 2 of each example, by d forward derivatives.

    >>> implicit_score_matching(lambda x: -x, jnp.zeros((1, 3))).tolist()
    [-3.0]
    """
    value, trace = exact_divergence(score_fn, x)
    return trace + jnp.sum(value**2, -1) / 2


def sliced_score_matching(
    key: PRNGKey,
    score_fn: Callable[[Array], Array],
    x: Float[Array, "n ..."],
    *,
    variance_reduced: bool = True,
    probes: Array | None = None,
) -> Float[Array, " n"]:
    """Returns v^T J v + |s|^2 / 2, or + (v^T s)^2 / 2 where not variance-reduced, for a probe v of each example.

    Args:
      key: of the probes, of independent signs.
      score_fn: `x -> score`, each row by itself.
      x: `[n, ...]`.
      variance_reduced: default True.
      probes: v in place of drawn ones, of the shape of x.
    """
    if probes is None:
        probes = jax.random.rademacher(key, x.shape, x.dtype)
    value, along = jax.jvp(score_fn, (x,), (probes,))
    axes = tuple(range(1, x.ndim))
    square = jnp.sum(value**2, axes) if variance_reduced else jnp.sum(value * probes, axes) ** 2
    return jnp.sum(probes * along, axes) + square / 2


def exact_divergence(function: Callable[[Array], Array], x: Float[Array, "n ..."]) -> tuple[Array, Array]:
    """Returns the value of a function that treats each row by itself, and its divergence in each row, `[n]`."""
    size = x[0].size
    basis = jnp.eye(size, dtype=x.dtype).reshape(size, *x.shape[1:])
    value, linear = jax.linearize(function, x)
    diagonal = jax.lax.map(lambda e: jnp.sum(linear(jnp.broadcast_to(e, x.shape)) * e, tuple(range(1, x.ndim))), basis)
    return value, diagonal.sum(0)


def drop_condition(key: PRNGKey, condition: Any, null: Any, rate: float) -> Any:
    """Returns the condition with each example's replaced by `null` at `rate`: classifier-free guidance in training.

    Args:
      key: which examples.
      condition: a tree of arrays `[n, ...]`.
      null: the tree of what means no condition, each `[...]`.
      rate: between 0 and 1.
    """
    if not 0 <= rate <= 1:
        raise ConfigError(f"rate: expected a number from 0 to 1, got {rate}")
    n = len(jax.tree.leaves(condition)[0])
    dropped = jax.random.bernoulli(key, rate, (n,))
    return jax.tree.map(lambda c, z: jnp.where(like_rows(dropped, c), z, c), condition, null)


def _weight(name, process, t, alpha, sigma, sigma_data):
    """Whether the weight is of the error of eps (else of x_0), and the weight."""
    if callable(name):
        return False, name((alpha / sigma) ** 2)
    options = {
        "eps": lambda: (True, 1.0),
        "snr": lambda: (True, 1.0),
        "likelihood": lambda: (True, (process.diffusion(t) / sigma) ** 2),
        "p2": lambda: (True, 1 / (1 + (alpha / sigma) ** 2)),
        "x0": lambda: (False, 1.0),
        "min_snr": lambda: (False, jnp.minimum((alpha / sigma) ** 2, MIN_SNR)),
        "v": lambda: (False, (alpha**2 / sigma + sigma) ** 2),
        "velocity": lambda: (False, (alpha / sigma + 1) ** 2),
        "edm": lambda: (False, edm_weight(sigma / alpha, sigma_data)),
    }
    return choose(options, name, "weighting")()


def _reduced(squares, reduce):
    axes = tuple(range(1, squares.ndim))
    options = {"mean": lambda: jnp.mean(squares, axes), "half_sum": lambda: jnp.sum(squares, axes) / 2}
    return choose(options, reduce, "reduce")()
