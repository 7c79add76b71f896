"""Guidance: denoisers made of denoisers, to be sampled by any sampler.

    classifier-free     d = d_null + w (d_condition - d_null)            (Ho and Salimans 2021, equation 6)
    rescaled            phi d std(d_condition) / std(d) + (1 - phi) d    (Lin et al. 2023, equations 15 and 16)
    classifier          score + w grad_x ln p(y | x, t)                  (Dhariwal and Nichol 2021, algorithm 1)
    reconstruction      score + grad_x ln N(y; A x_0^(x), (s_y^2 + r^2) I)    (Chung et al. 2022; Song et al. 2023)

Classifier-free guidance is linear, so that it may be done on any kind of prediction; rescaling depends on the kind, and
is published for the kind that the network predicts.
"""

import math

import jax
import jax.numpy as jnp

from aijax.diffusion.predictions import convert
from aijax.diffusion.process import Process, like_rows
from aijax.errors import ConfigError
from aijax.typing import Any, Array, Callable


def classifier_free(
    condition_fn: Callable[[Array, Any], Array],
    null_fn: Callable[[Array, Any], Array] | None,
    scale: float,
    *,
    rescale: float = 0.0,
    interval: tuple[float, float] | None = None,
) -> Callable[[Array, Any], Array]:
    """Returns the guided `(x, t) -> prediction`.

    Args:
      condition_fn: the prediction under the condition.
      null_fn: without it; under what is not wanted, for a negative prompt; of a weaker network, for autoguidance.
      scale: w; 1 is the condition alone, 0 the null.
      rescale: phi, 0 (default) to 1.
      interval: the times (low, high) between which guidance acts; outside of it the condition alone (Kynkaanniemi et
        al. 2024); default all.

    Raises:
      ConfigError: no null, a rescale outside [0, 1], an interval out of order.

    >>> guided = classifier_free(lambda x, t: x + 1, lambda x, t: x, 3.0)
    >>> float(guided(jnp.zeros((1, 1)), 0.5)[0, 0])
    3.0
    """
    if null_fn is None:
        raise ConfigError("null_fn: guidance needs a prediction without the condition, got None")
    _check_guidance(rescale, interval)

    def guided(x, t):
        return combine_guidance(condition_fn(x, t), null_fn(x, t), scale, t, rescale=rescale, interval=interval)

    return guided


def classifier_free_batch(
    model_fn: Callable[[Array, Any, Any], Array],
    condition: Any,
    null: Any,
    scale: float,
    *,
    rescale: float = 0.0,
    interval: tuple[float, float] | None = None,
) -> Callable[[Array, Any], Array]:
    """Returns the guided `(x, t) -> prediction` with one network call on the doubled batch.

    Args:
      model_fn: `(x [2 n, ...], t, condition) -> prediction`.
      condition, null: trees of arrays `[n, ...]`.
      scale, rescale, interval: as of `classifier_free`.

    Raises:
      ConfigError: no null, as of `classifier_free`.
    """
    if null is None:
        raise ConfigError("null: guidance needs what means no condition, got None")
    _check_guidance(rescale, interval)

    def guided(x, t):
        both = jax.tree.map(lambda c, z: jnp.concatenate([c, z]), condition, null)
        given, without = jnp.split(model_fn(jnp.concatenate([x, x]), t, both), 2)
        return combine_guidance(given, without, scale, t, rescale=rescale, interval=interval)

    return guided


def combine_guidance(
    condition: Array,
    null: Array,
    scale: Any,
    t: Any = None,
    *,
    rescale: float = 0.0,
    interval: tuple[float, float] | None = None,
) -> Array:
    """Returns the guided prediction of two predictions; see the module."""
    guided = null + scale * (condition - null)
    if rescale:
        axes = tuple(range(1, guided.ndim))
        wanted, found = (jnp.std(part, axes, ddof=1, keepdims=True) for part in (condition, guided))
        guided = rescale * guided * wanted / found + (1 - rescale) * guided
    if interval is not None:
        inside = (t >= interval[0]) & (t <= interval[1])
        guided = jnp.where(like_rows(jnp.asarray(inside), guided), guided, condition)
    return guided


def classifier_guidance(
    denoise_fn: Callable[[Array, Any], Array],
    log_prob_fn: Callable[[Array, Any], Array],
    process: Process,
    *,
    scale: float = 1.0,
    prediction: str = "x0",
    sigma_data: float = 0.5,
) -> Callable[[Array, Any], Array]:
    """Returns the guided `(x, t) -> prediction` of the same kind, its score moved by `scale` grad ln p(y | x, t).

    Args:
      denoise_fn: `(x, t) -> prediction`.
      log_prob_fn: `(x [n, ...], t) -> ln p(y | x, t) [n]`, each row by itself.
      process: any process.
      scale: default 1.
      prediction, sigma_data: kind of the prediction, default "x0".
    """

    def guided(x, t):
        gradient = jax.grad(lambda x: jnp.sum(log_prob_fn(x, t)))(x)
        return add_score(denoise_fn(x, t), scale * gradient, process, x, t, prediction, sigma_data)

    return guided


def reconstruction_guidance(
    denoise_fn: Callable[[Array, Any], Array],
    process: Process,
    operator: Callable[[Array], Array],
    observed: Array,
    *,
    noise_std: float = 0.0,
    spread: float = 1.0,
    scale: float = 1.0,
    prediction: str = "x0",
    sigma_data: float = 0.5,
) -> Callable[[Array, Any], Array]:
    """Returns a denoiser of x_0 given y = A x_0 + noise, for inpainting, super-resolution, colourisation and the like.

    The likelihood of y given x is taken as N(A x_0^(x), (noise_std^2 + r^2) I), r^2 = (spread sigma)^2 / (spread^2
    alpha^2 + sigma^2): the spread of x_0 given x were it N(0, spread^2 I). For such data and orthonormal rows of A it
    is exact.

    Args:
      denoise_fn: `(x, t) -> prediction`.
      process: any process.
      operator: `x_0 [n, ...] -> y [n, ...]`, each row by itself.
      observed: y.
      noise_std: of y, default 0.
      spread: standard deviation of the data, default 1; 0 with `noise_std` > 0 is Chung et al.'s form.
      scale: of the gradient, default 1.
      prediction, sigma_data: kind of the prediction, default "x0".

    Raises:
      ConfigError: noise_std and spread both 0; when it is called, an observation of another shape than the operator's.

    Source: Chung et al. 2022, Diffusion posterior sampling; Song et al. 2023, Pseudoinverse-guided diffusion models.
    """
    if noise_std < 0 or spread < 0 or noise_std == spread == 0:
        raise ConfigError(
            f"noise_std, spread: expected numbers of at least 0, not both 0, got {noise_std} and {spread}"
        )

    def guided(x, t):
        alpha, sigma = process.alpha(t), process.sigma(t)

        def log_likelihood(x):
            output = denoise_fn(x, t)
            x0 = convert(output, prediction, "x0", x, alpha, sigma, sigma_data=sigma_data)
            seen = operator(x0)
            if seen.shape != observed.shape:
                raise ConfigError(
                    f"observed: expected the shape that the operator gives, {seen.shape}, got {observed.shape}"
                )
            variance = noise_std**2 + (spread * sigma) ** 2 / (spread**2 * alpha**2 + sigma**2)
            squares = jnp.sum((observed - seen) ** 2, tuple(range(1, observed.ndim)))
            return jnp.sum(-squares / (2 * variance)), output

        gradient, output = jax.grad(log_likelihood, has_aux=True)(x)
        return add_score(output, scale * gradient, process, x, t, prediction, sigma_data)

    return guided


def add_score(
    output: Array, score: Array, process: Process, x: Array, t: Any, prediction: str = "x0", sigma_data: float = 0.5
) -> Array:
    """Returns the prediction `output` with `score` added to the score that it stands for."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    if prediction == "score":
        return output + score
    if prediction == "eps":
        return output - like_rows(sigma, x) * score
    x0 = convert(output, prediction, "x0", x, alpha, sigma, sigma_data=sigma_data)
    x0 = x0 + like_rows(sigma**2 / alpha, x) * score
    return convert(x0, "x0", prediction, x, alpha, sigma, sigma_data=sigma_data)


def _check_guidance(rescale, interval):
    if not 0 <= rescale <= 1:
        raise ConfigError(f"rescale: expected a number from 0 to 1, got {rescale}")
    if interval is not None and not (len(interval) == 2 and interval[0] < interval[1] and math.isfinite(interval[0])):
        raise ConfigError(f"interval: expected (low, high) in order, got {interval}")
