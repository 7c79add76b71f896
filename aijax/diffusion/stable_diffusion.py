"""Stable Diffusion from its published folder: functions, parameters, tokenizer and sampler.

    folder/model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/scheduler_config.json

and `text_encoder_2/`, `tokenizer_2/` of SDXL, whose pixels attend to the features of both encoders before their last
block, and whose UNet is told the pooled text of the second and the image's sizes (Podell et al. 2023, section 2).
`latent_model` makes the same functions of networks that are at hand, such as those of a training run. A network whose
parameters have 16 bits computes in them; latents and images keep their own type between networks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from aijax.diffusion.diagonal_gaussian import DiagonalGaussian, from_moments
from aijax.diffusion.latent import SCHEDULER, LatentModel
from aijax.errors import UnsupportedError
from aijax.typing import Any, Array, Callable, Params, PyTree

WHAT = "a file of a published pipeline"
COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True)
class Pipeline:
    """A published pipeline.

    Args:
      model: its functions, for `aijax.diffusion.generate`.
      params: their parameters.
      tokenize: `(texts, truncate=False) -> tokens [n, t]`; see `aijax.models.clip_tokenizer.CLIPTokenizer`.
    """

    model: LatentModel
    params: dict[str, Params]
    tokenize: Callable[..., Array]


def load_pipeline(folder: str | Path, dtype: Any = None) -> Pipeline:
    """Returns the pipeline in a folder of the layout of Stable Diffusion 1, 2 and XL.

    A safety checker and what prepares images for it are left alone.

        pipeline = load_pipeline("stable-diffusion-v1-5")
        tokens, null = pipeline.tokenize(["a lighthouse in a storm"]), pipeline.tokenize([""])
        images = generate(key, pipeline.params, tokens, pipeline.model, null_tokens=null)

    Args:
      folder: with `model_index.json` and a folder for each component.
      dtype: of the parameters; None keeps that of the files.

    Raises:
      DataError: files that are missing or damaged, or tensors that are not those of their network.
      ConfigError: a field of a config that is unknown.
      UnsupportedError: a pipeline of other components, such as three text encoders.
    """
    from aijax.models import pretrained
    from aijax.models.clip_tokenizer import read_clip_tokenizer
    from aijax.models.tensor_files import read_object

    folder = Path(folder)
    index = read_object(folder / "model_index.json", WHAT)
    two = not _absent(index.get("text_encoder_2"))
    wanted = (*COMPONENTS, "text_encoder_2", "tokenizer_2") if two else COMPONENTS
    missing = [name for name in wanted if _absent(index.get(name))]
    more = [name for name in ("text_encoder_3", "transformer") if not _absent(index.get(name))]
    if missing or more:
        told = f"without {', '.join(missing)}" if missing else f"with {', '.join(more)}"
        raise UnsupportedError(f"{folder}: expected a pipeline of {', '.join(wanted)}, got one {told}")
    scheduler = read_object(folder / "scheduler" / "scheduler_config.json", WHAT)
    tokenize = read_clip_tokenizer(folder / "tokenizer")
    side = pretrained.read_config(folder / "unet").get("sample_size") or 64
    size = tuple(side) if isinstance(side, list) else (side, side)
    networks = {name: pretrained.load(folder / name, dtype) for name in ("text_encoder", "unet", "vae")}
    text, unet, autoencoder = (networks[name][0] for name in ("text_encoder", "unet", "vae"))
    named = str(scheduler.get("_class_name")), scheduler
    model = latent_model(text, unet, autoencoder, size, scheduler=named)
    params = {"text": networks["text_encoder"][1]}
    if two:
        second, second_params = pretrained.load(folder / "text_encoder_2", dtype)
        tokenize = TwoTokenizers(tokenize, read_clip_tokenizer(folder / "tokenizer_2"))
        empty = tuple(tokenize([""])[0].tolist()) if index.get("force_zeros_for_empty_prompt", True) else None
        pixels = 2 ** (len(autoencoder.block_out_channels) - 1)
        model = replace(model, text=TwoTexts(text, second, tuple(pixels * side for side in size), empty))
        params = {"text": {"first": networks["text_encoder"][1], "second": second_params}}
    params |= {"denoiser": networks["unet"][1]} | dict.fromkeys(("encoder", "decoder"), networks["vae"][1])
    return Pipeline(model, params, tokenize)


def latent_model(
    text: Any,
    denoiser: Any,
    autoencoder: Any,
    size: tuple[int, int],
    *,
    condition: Callable[[Any], dict[str, Array]] | None = None,
    time_scale: float = 1.0,
    scaling: float | None = None,
    scheduler: tuple[str, Mapping[str, Any]] = SCHEDULER,
) -> LatentModel:
    """Returns the functions of latent diffusion made of Linen modules.

    Args:
      text: tokens -> `aijax.models.text.TextFeatures`, or whatever `condition` takes.
      denoiser: `(z, t, **condition) -> prediction`, such as a `UNet` or an `MMDiT`.
      autoencoder: an `AutoencoderKL` or a `VQModel`.
      size: (h, w) of the usual latents.
      condition: from what `text` gives to keyword arguments of `denoiser`; default `as_context`, for a UNet;
        `as_joint_text` is for an MMDiT.
      time_scale: by which the process' time is multiplied for the denoiser; default 1.
      scaling: of latents; None for that of the autoencoder. Where it is published with the mean and the standard
        deviation of each channel, latents are standardised by those first.
      scheduler: name and config of the usual sampler, default that of Stable Diffusion 1.
    """
    discrete = hasattr(autoencoder, "quantise")
    scaling = autoencoder.scaling_factor if scaling is None else scaling
    shift = getattr(autoencoder, "shift_factor", None) or 0.0
    if getattr(autoencoder, "latents_mean", None) and autoencoder.latents_std:
        shift, scaling = np.array(autoencoder.latents_mean), scaling / np.array(autoencoder.latents_std)
    return LatentModel(
        text=TextCondition(text, as_context if condition is None else condition),
        denoiser=Denoiser(denoiser, time_scale),
        encoder=CodeEncoder(autoencoder) if discrete else Encoder(autoencoder),
        decoder=Decoder(autoencoder),
        latent_shape=(*size, autoencoder.code_width if discrete else autoencoder.latent_channels),
        scaling=scaling,
        shift=shift,
        scheduler=scheduler,
    )


def as_context(features: Any) -> dict[str, Array]:
    """Returns the features of all tokens as a UNet takes them."""
    return {"context": features.last}


def as_joint_text(features: Any) -> dict[str, Array]:
    """Returns the features of all tokens and of the text as an MM-DiT takes them."""
    return {"text": features.last, "pooled": features.pooled}


@dataclass(frozen=True)
class TextCondition:
    """`(params, tokens) -> condition` of a text encoder."""

    module: Any
    condition: Callable[[Any], dict[str, Array]]

    def __call__(self, params: Params, tokens: Array) -> PyTree:
        return self.condition(self.module.apply({"params": params}, tokens))


@dataclass(frozen=True)
class TwoTexts:
    """`(params, tokens) -> condition` of SDXL: of `params` "first" and "second", and rows of both encoders' tokens.

    Args:
      first, second: the encoders; the second projects its pooled feature.
      pixels: (h, w) of the image, as the UNet is told.
      empty: the row of the empty text, whose features are 0; None for those of the encoders.
    """

    first: Any
    second: Any
    pixels: tuple[int, int]
    empty: tuple[int, ...] | None

    def __call__(self, params: Params, tokens: Array) -> PyTree:
        both = zip(("first", "second"), (self.first, self.second), jnp.split(tokens, 2, axis=1), strict=True)
        one, other = (module.apply({"params": params[name]}, part) for name, module, part in both)
        context, pooled = jnp.concatenate([one.hidden[-2], other.hidden[-2]], axis=-1), other.pooled
        if self.empty is not None:
            told = jnp.any(tokens != jnp.array(self.empty), axis=1)
            context, pooled = context * told[:, None, None], pooled * told[:, None]
        sizes = jnp.array([*self.pixels, 0, 0, *self.pixels], context.dtype)
        sizes = jnp.broadcast_to(sizes, (len(tokens), len(sizes)))
        return {"context": context, "text_embeds": pooled, "time_ids": sizes}


@dataclass(frozen=True)
class TwoTokenizers:
    """`(texts, truncate=False) -> tokens` of two tokenizers, side by side, `[n, 2 t]`."""

    first: Callable[..., Array]
    second: Callable[..., Array]

    def __call__(self, texts: Any, *, truncate: bool = False) -> Array:
        return np.concatenate([part(texts, truncate=truncate) for part in (self.first, self.second)], axis=1)


@dataclass(frozen=True)
class Denoiser:
    """`(params, z, t, condition) -> prediction` of a network."""

    module: Any
    time_scale: float = 1.0

    def __call__(self, params: Params, z: Array, t: Array, condition: dict[str, Array]) -> Array:
        given, condition = _in_half((z, condition), params)
        return self.module.apply({"params": params}, given, self.time_scale * t, **condition).astype(z.dtype)


@dataclass(frozen=True)
class Encoder:
    """`(params, images) -> latents` of an autoencoder with Gaussian latents."""

    module: Any

    def __call__(self, params: Params, images: Array) -> DiagonalGaussian:
        moments = self.module.apply({"params": params}, _in_half(images, params), method="encode")
        return from_moments(moments.astype(images.dtype))


@dataclass(frozen=True)
class CodeEncoder:
    """`(params, images) -> latents` of an autoencoder with codes: latents of no variance."""

    module: Any

    def __call__(self, params: Params, images: Array) -> DiagonalGaussian:
        latents = self.module.apply({"params": params}, _in_half(images, params), method="encode").astype(images.dtype)
        return DiagonalGaussian(latents, jnp.full_like(latents, -jnp.inf))


@dataclass(frozen=True)
class Decoder:
    """`(params, latents) -> images` of an autoencoder."""

    module: Any

    def __call__(self, params: Params, latents: Array) -> Array:
        return self.module.apply({"params": params}, _in_half(latents, params), method="decode").astype(latents.dtype)


def _in_half(inputs, params):
    """The inputs in the type of the parameters where that has 16 bits."""
    dtype = jax.tree.leaves(params)[0].dtype
    return jax.tree.map(lambda array: array.astype(dtype), inputs) if dtype.itemsize == 2 else inputs


def _absent(entry):
    """Whether an entry of the index names no component: it is [library, class], or [null, null]."""
    return not (isinstance(entry, list) and len(entry) == 2 and all(entry))
