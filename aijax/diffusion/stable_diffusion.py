"""Stable Diffusion from its published folder: functions, parameters, tokenizer and sampler.

    folder/model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/scheduler_config.json

with `text_encoder_2/`, `tokenizer_2/` in SDXL, and `transformer/` in place of `unet/` in version 3, whose third encoder
may be absent. `aijax.diffusion.text_conditions` says how texts reach the network.
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
from aijax.diffusion.text_conditions import THIRD_LENGTH, SideBySide, TextCondition, ThreeTexts, TwoTexts, as_context
from aijax.errors import UnsupportedError
from aijax.typing import Any, Array, Callable, Params

WHAT = "a file of a published pipeline"
TRAIN_TIMES = 1000.0
"""Time of pure noise as the transformer of version 3 is told it."""


@dataclass(frozen=True)
class Pipeline:
    """A published pipeline.

    Args:
      model: its functions, for `aijax.diffusion.generate`.
      params: their parameters.
      tokenize: `(texts, truncate=False) -> tokens [n, t]`; see `aijax.models.tokenizer.RowTokenizer`.
    """

    model: LatentModel
    params: dict[str, Params]
    tokenize: Callable[..., Array]


def load_pipeline(folder: str | Path, dtype: Any = None) -> Pipeline:
    """Returns the pipeline in a folder of the layout of Stable Diffusion 1, 2, XL and 3.

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
      UnsupportedError: a pipeline of other components, such as a transformer beside a UNet.
    """
    from aijax.models import pretrained
    from aijax.models.tensor_files import read_object

    folder = Path(folder)
    index = read_object(folder / "model_index.json", WHAT)
    wanted = _components(folder, index)
    scheduler = read_object(folder / "scheduler" / "scheduler_config.json", WHAT)
    tokenize = _tokenizers(folder, wanted)
    network = "transformer" if "transformer" in wanted else "unet"
    config = pretrained.read_config(folder / network)
    side = config.get("sample_size") or 64
    size = tuple(side) if isinstance(side, list) else (side, side)
    texts = tuple(name for name in wanted if name.startswith("text_encoder"))
    networks = {name: pretrained.load(folder / name, dtype) for name in (*texts, network, "vae")}
    modules, params = ({name: pair[i] for name, pair in networks.items()} for i in range(2))
    encoders, named = [modules[name] for name in texts], (str(scheduler.get("_class_name")), scheduler)
    if network == "transformer":
        model = latent_model(None, modules[network], modules["vae"], size, time_scale=TRAIN_TIMES, scheduler=named)
        model = replace(model, text=ThreeTexts(*encoders, width=modules[network].joint_attention_dim))
    else:
        model = latent_model(encoders[0], modules[network], modules["vae"], size, scheduler=named)
        model = replace(model, guidance_width=config.get("time_cond_proj_dim"))
        if len(encoders) == 2:
            empty = tuple(tokenize([""])[0].tolist()) if index.get("force_zeros_for_empty_prompt", True) else None
            pixels = 2 ** (len(modules["vae"].block_out_channels) - 1)
            model = replace(model, text=TwoTexts(*encoders, tuple(pixels * side for side in size), empty))
    text = dict(zip(("first", "second", "third"), (params[name] for name in texts), strict=False))
    text = text if len(texts) > 1 else text["first"]
    loaded = {"text": text, "denoiser": params[network], "encoder": params["vae"], "decoder": params["vae"]}
    return Pipeline(model, loaded, tokenize)


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


def _components(folder, index):
    """Returns the names of the components of a pipeline that is offered."""
    there = {name for name, entry in index.items() if not _absent(entry)}
    joint = "transformer" in there
    wanted = ["transformer" if joint else "unet", "vae", "scheduler", "text_encoder", "tokenizer"]
    if joint or "text_encoder_2" in there:
        wanted += ["text_encoder_2", "tokenizer_2"]
    if joint and "text_encoder_3" in there:
        wanted += ["text_encoder_3", "tokenizer_3"]
    missing = [name for name in wanted if name not in there]
    more = sorted(there & {"unet", "transformer", "text_encoder_3", "text_encoder_4"} - set(wanted))
    if missing or more:
        told = f"without {', '.join(missing)}" if missing else f"with {', '.join(more)}"
        raise UnsupportedError(f"{folder}: expected a pipeline of {', '.join(wanted)}, got one {told}")
    return wanted


def _tokenizers(folder, components):
    """Returns what turns texts to the tokens of all encoders."""
    from aijax.models.clip_tokenizer import read_clip_tokenizer
    from aijax.models.tokenizer import RowTokenizer, read_tokenizer

    parts = [read_clip_tokenizer(folder / name) for name in ("tokenizer", "tokenizer_2") if name in components]
    if "tokenizer_3" in components:
        parts.append(RowTokenizer(read_tokenizer(folder / "tokenizer_3"), THIRD_LENGTH))
    return SideBySide(tuple(parts)) if len(parts) > 1 else parts[0]


def _in_half(inputs, params):
    """The inputs in the type of the parameters where that has 16 bits."""
    dtype = jax.tree.leaves(params)[0].dtype
    return jax.tree.map(lambda array: array.astype(dtype), inputs) if dtype.itemsize == 2 else inputs


def _absent(entry):
    """Whether an entry of the index names no component: it is [library, class], or [null, null]."""
    return not (isinstance(entry, list) and len(entry) == 2 and all(entry))
