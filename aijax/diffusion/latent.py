"""Latent diffusion: text to images, and images to images, as one pure function (Rombach et al. 2022).

    c = text(tokens),   z ~ sampler of d_null + w (d_c - d_null),   image = clip(decoder(z / scaling + shift) / 2 + 1/2)

A `LatentModel` is four functions and the scaling between the autoencoder's latents and those of the diffusion; any
networks serve. `aijax.diffusion.stable_diffusion` makes it of a published folder.
"""

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from aijax.diffusion.diagonal_gaussian import DiagonalGaussian, draw
from aijax.diffusion.editing import sdedit
from aijax.diffusion.guidance import classifier_free_batch
from aijax.diffusion.published import Scheduler, scheduler
from aijax.diffusion.samplers.base import Sampler
from aijax.diffusion.samplers.plan import Trajectory
from aijax.diffusion.samplers.sample import sample
from aijax.errors import ConfigError
from aijax.models.embeddings import sinusoidal_embedding
from aijax.typing import Any, Array, Callable, Float, Int, Params, PRNGKey, PyTree

SCHEDULER = (
    "DDIM",
    {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    },
)
"""The sampler of Stable Diffusion 1."""


@dataclass(frozen=True, eq=False)
class LatentModel:
    """The functions of latent diffusion. Each takes its own part of the parameters, by the name of its field.

    Give the same functions each time: a program is compiled for each.

    Args:
      text: `(params, tokens [n, t]) -> condition`, a tree of arrays `[n, ...]`.
      denoiser: `(params, z [n, h, w, c], t scalar, condition) -> prediction` of the shape of z.
      encoder: `(params, images [n, h', w', k]) -> DiagonalGaussian` of latents; images from -1 to 1.
      decoder: `(params, latents) -> images`, from -1 to 1.
      latent_shape: (h, w, c) of the latents of an image of the usual size.
      scaling, shift: z = (latent - shift) scaling, numbers or one for each channel; defaults 0.18215 and 0.
      scheduler: name and config of the usual sampler, as of `aijax.diffusion.published.scheduler`.
      guidance_width: of the vector by which the denoiser is told the guidance, as "time_condition" of a condition that
        is a dict, and guides by itself (Meng et al. 2023); None for one that is guided away from an empty text.
    """

    text: Callable[[Params, Array], PyTree]
    denoiser: Callable[[Params, Array, Array, PyTree], Array]
    encoder: Callable[[Params, Array], DiagonalGaussian] | None
    decoder: Callable[[Params, Array], Array]
    latent_shape: tuple[int, int, int]
    scaling: Any = 0.18215
    shift: Any = 0.0
    scheduler: tuple[str, dict[str, Any]] = SCHEDULER
    guidance_width: int | None = None


def generate(
    key: PRNGKey,
    params: dict[str, Params],
    tokens: Int[Array, "n t"],
    model: LatentModel,
    *,
    null_tokens: Int[Array, "m t"] | None = None,
    guidance: float = 7.5,
    rescale: float = 0.0,
    interval: tuple[float, float] | None = None,
    steps: int = 50,
    schedule: Scheduler | None = None,
    sampler: Sampler | None = None,
    latent_shape: tuple[int, int, int] | None = None,
    init: Float[Array, "n h w c"] | None = None,
    noise: Array | None = None,
    trajectory: bool = False,
    sharding: Any = None,
    on_call: Callable[[int], None] | None = None,
) -> Array | tuple[Array, Trajectory]:
    """Returns images of texts, `[n, h, w, k]` from 0 to 1, and the trajectory of latents where it is asked for.

    Args:
      key: of the start and of the sampler's noise.
      params: of the functions of `model`: "text", "denoiser", "decoder" (and "encoder").
      tokens: of n texts.
      model: the functions.
      null_tokens: of the empty text, or of what is not wanted (a negative prompt): one row for all or n. None only
        with a guidance of 1, or where the network is told the guidance.
      guidance: w; 1 is the condition alone; default 7.5.
      rescale, interval: as of `aijax.diffusion.classifier_free`.
      steps: of the model's usual sampler, default 50.
      schedule: process, sampler, grid, prediction and constraint in place of the model's; `steps` is then not used.
      sampler: in place of that of the schedule.
      latent_shape: (h, w, c); default that of the model.
      init: the start, in place of a draw of the prior.
      noise, sharding, on_call: as of `aijax.diffusion.sample`.
      trajectory: whether to return a `Trajectory` too.

    Raises:
      ConfigError: guidance without `null_tokens`, shapes that do not fit; what `sample` raises.
      DataError: latents that are not finite, where they are not being traced.
    """
    shape = (len(tokens), *(model.latent_shape if latent_shape is None else latent_shape))
    schedule = _schedule(model, schedule, steps, sampler)
    guided = _guided(params, tokens, null_tokens, model, guidance, rescale, interval)
    result = sample(
        key, guided, schedule.process, shape, init=init, noise=noise, trajectory=trajectory, sharding=sharding,
        on_call=on_call, **_options(schedule),
    )  # fmt: skip
    z, seen = result if trajectory else (result, None)
    images = decode_latents(params, z, model)
    return (images, seen) if trajectory else images


def image_to_image(
    key: PRNGKey,
    params: dict[str, Params],
    images: Float[Array, "n h w k"],
    tokens: Int[Array, "n t"],
    model: LatentModel,
    *,
    strength: float = 0.8,
    null_tokens: Int[Array, "m t"] | None = None,
    guidance: float = 7.5,
    rescale: float = 0.0,
    interval: tuple[float, float] | None = None,
    steps: int = 50,
    schedule: Scheduler | None = None,
    sampler: Sampler | None = None,
    latent_noise: Array | None = None,
    start_noise: Array | None = None,
    noise: Array | None = None,
    trajectory: bool = False,
) -> Array | tuple[Array, Trajectory]:
    """Returns images like those given, as the texts have them, `[n, h, w, k]` from 0 to 1.

    Args:
      key: of the latents, of their noise and of the sampler's.
      params, tokens, model, null_tokens, guidance, rescale, interval, steps, schedule, sampler, noise, trajectory: as
        of `generate`.
      images: from 0 to 1.
      strength: the share of the steps that are taken, above 0 and at most 1; default 0.8.
      latent_noise, start_noise: of the shape of the latents, in place of drawn noise: of the draw of the latents, and
        up to the level at which sampling begins.

    Raises:
      ConfigError, DataError: as `generate`; a strength that takes no step.

    Source: Meng et al. 2022, SDEdit.
    """
    latent_key, key = jax.random.split(key)
    schedule = _schedule(model, schedule, steps, sampler)
    guided = _guided(params, tokens, null_tokens, model, guidance, rescale, interval)
    z = encode_images(latent_key, params, images, model, noise=latent_noise)
    result = sdedit(
        key, guided, schedule.process, z, strength=strength, start_noise=start_noise, noise=noise,
        trajectory=trajectory, **_options(schedule),
    )  # fmt: skip
    z, seen = result if trajectory else (result, None)
    images = decode_latents(params, z, model)
    return (images, seen) if trajectory else images


def encode_images(
    key: PRNGKey,
    params: dict[str, Params],
    images: Float[Array, "n h w k"],
    model: LatentModel,
    *,
    noise: Array | None = None,
) -> Float[Array, "n h w c"]:
    """Returns a draw of the latents of images from 0 to 1, scaled for the diffusion.

    Args:
      key: of the draw.
      params: with "encoder".
      images: from 0 to 1.
      model: the functions.
      noise: of the shape of the latents, in place of drawn noise.

    Raises:
      ConfigError: a model without an encoder, noise of another shape.
    """
    if model.encoder is None:
        raise ConfigError("model: an image needs an encoder, got None")
    latents = _call(model.encoder, params["encoder"], 2 * images - 1)
    if noise is not None and noise.shape != latents.mean.shape:
        raise ConfigError(f"noise: expected shape {latents.mean.shape}, got {noise.shape}")
    latents = draw(key, latents, noise)
    scaling, shift = _scales(model, latents.dtype)
    return (latents - shift) * scaling


def decode_latents(
    params: dict[str, Params], z: Float[Array, "n h w c"], model: LatentModel
) -> Float[Array, "n h w k"]:
    """Returns the images of latents of the diffusion, held from 0 to 1."""
    scaling, shift = _scales(model, z.dtype)
    return jnp.clip(_call(model.decoder, params["decoder"], z / scaling + shift) / 2 + 0.5, 0, 1)


def measured_scaling(latents: Float[Array, "n h w c"]) -> Array:
    """Returns the scaling 1 / std under which latents of a first batch have unit variance (Rombach et al. 2022,
    appendix G).

    >>> float(measured_scaling(jnp.array([-2.0, 2.0])))
    0.5
    """
    return 1 / jnp.std(latents)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "condition", "null", "scale"),
    meta_fields=("denoiser", "rescale", "interval"),
)
@dataclass(frozen=True)
class Guided:
    """The denoiser `(z, t) -> prediction` of a condition, guided away from `null` where there is one."""

    params: Params
    condition: PyTree
    null: PyTree
    scale: Any
    denoiser: Callable
    rescale: float = 0.0
    interval: tuple[float, float] | None = None

    def __call__(self, z: Array, t: Array) -> Array:
        if self.null is None:
            return self.denoiser(self.params, z, t, self.condition)
        guided = classifier_free_batch(
            functools.partial(self.denoiser, self.params), self.condition, self.null, self.scale,
            rescale=self.rescale, interval=self.interval,
        )  # fmt: skip
        return guided(z, t)


def _guided(params, tokens, null_tokens, model, guidance, rescale, interval):
    condition = _call(model.text, params["text"], tokens)
    if model.guidance_width is not None:
        given = {"null_tokens": null_tokens is not None, "rescale": rescale != 0, "interval": interval is not None}
        for name in [name for name, found in given.items() if found]:
            raise ConfigError(f"{name}: expected none, as the network is told the guidance, got some")
        told = jnp.full(len(tokens), guidance - 1.0)
        told = sinusoidal_embedding(told, model.guidance_width, cosine_first=False, shift=1.0, scale=1000.0)
        return Guided(params["denoiser"], condition | {"time_condition": told}, None, 1.0, model.denoiser)
    if null_tokens is None:
        if isinstance(guidance, jax.core.Tracer) or guidance != 1:
            raise ConfigError(f"null_tokens: a guidance of {guidance} needs the tokens of the empty text, got None")
        return Guided(params["denoiser"], condition, None, 1.0, model.denoiser)
    rows, length = tokens.shape
    if null_tokens.shape not in ((1, length), (rows, length)):
        raise ConfigError(f"null_tokens: expected shape {(1, length)} or {tokens.shape}, got {null_tokens.shape}")
    null = _call(model.text, params["text"], null_tokens)
    null = jax.tree.map(lambda one, given: jnp.broadcast_to(one, given.shape), null, condition)
    return Guided(params["denoiser"], condition, null, guidance, model.denoiser, rescale, interval)


def _schedule(model, schedule, steps, sampler):
    schedule = scheduler(*model.scheduler, steps) if schedule is None else schedule
    return schedule if sampler is None else replace(schedule, sampler=sampler)


def _scales(model, dtype):
    return jnp.asarray(model.scaling, dtype), jnp.asarray(model.shift, dtype)


def _options(schedule):
    return {name: getattr(schedule, name) for name in ("sampler", "grid", "prediction", "sigma_data", "constraint")}


@functools.partial(jax.jit, static_argnums=0)
def _call(function, params, *inputs):
    return function(params, *inputs)
