"""Sparse autoencoders and transcoders: a dictionary of directions, few of which make up each activation.

    a = latents of E (x - c) + b, most of them 0;     y = D' a + c

An autoencoder has y near x; a transcoder has y near another activation, such as the output of the layer that x enters
(J. Dunefsky et al., Transcoders find interpretable LLM feature circuits (2024)). The kinds are nouns of numbers, listed
in `sae_architectures`; the weights are a dictionary of arrays:

    encoder [m, d_in], decoder [m, d_out], decoder_bias [d_out], encoder_bias [m], and threshold [m] (JumpReLU), or in
    place of encoder_bias gate_bias, magnitude_bias and log_magnitude [m] (Gated)

Row j of the encoder is the direction that latent j reads, row j of the decoder the one that it writes.

Numbers of a kind that are no part of its structure, such as the coefficient of a penalty, may change from step to step
and differ between autoencoders that are mapped side by side.
"""

import dataclasses

import jax
import jax.numpy as jnp

from aijax.binding import bind
from aijax.errors import ConfigError, choose
from aijax.interp.sae_architectures import ARCHITECTURES, JumpReLU
from aijax.interp.sae_choice import SAEOutput
from aijax.interp.sae_terms import row_norms, squared_error
from aijax.linalg.vectors import check_count
from aijax.typing import Any, Array, Bool, Float, Params, PRNGKey


def sae_architecture(name: str, **options: Any) -> Any:
    """Returns the kind called `name`, one of `ARCHITECTURES`, with its options.

    Raises:
      ConfigError: an unknown kind or option (the nearest is named), a value out of range.

    >>> sae_architecture("topk", k=8).k
    8
    """
    return bind(choose(ARCHITECTURES, name, "architecture"), options, "architecture")()


def init_sae(
    key: PRNGKey,
    architecture: Any,
    d_in: int,
    latents: int,
    *,
    d_out: int | None = None,
    decoder_norm: float = 0.1,
    dtype: Any = jnp.float32,
) -> Params:
    """Returns weights: rows of the decoder of random direction and one norm, the encoder the same, biases 0.

    Args:
      key: of the directions.
      architecture: a kind, such as `TopK(k=32)`.
      d_in: width of the activations.
      latents: m.
      d_out: width of the target of a transcoder, whose encoder is drawn by itself; default: an autoencoder.
      decoder_norm: of the rows (T. Conerly et al., Update on how we train SAEs (2024), has 0.05 to 1).
      dtype: of the weights.

    Raises:
      ConfigError: a width or number that is not positive, more chosen latents than there are.

    >>> sorted(init_sae(jax.random.key(0), sae_architecture("jumprelu"), 4, 8))
    ['decoder', 'decoder_bias', 'encoder', 'encoder_bias', 'threshold']
    """
    for name, value in (("d_in", d_in), ("latents", latents), ("d_out", d_in if d_out is None else d_out)):
        check_count(name, value)
    if hasattr(architecture, "k") and architecture.k > latents:
        raise ConfigError(f"k: expected at most the {latents} latents, got {architecture.k}")
    encoder_key, decoder_key = jax.random.split(key)
    decoder = _directions(decoder_key, latents, d_in if d_out is None else d_out, dtype)
    encoder = decoder if d_out is None else _directions(encoder_key, latents, d_in, dtype)
    return {
        "encoder": decoder_norm * encoder,
        "decoder": decoder_norm * decoder,
        "decoder_bias": jnp.zeros(decoder.shape[1], dtype),
        **architecture.extra(latents, dtype),
    }


def sae_encode(architecture: Any, params: Params, x: Float[Array, "... d_in"]) -> Float[Array, "... m"]:
    """Returns the latents of activations.

    BatchTopK and Matryoshka choose among all rows given, as in training: see `as_jump_relu` for use on other rows.

    Raises:
      ConfigError: activations of another width than the encoder, more chosen latents than there are.
    """
    _check_width(params, x)
    return architecture.run(params, x).latents


def sae_decode(architecture: Any, params: Params, latents: Float[Array, "... m"]) -> Float[Array, "... d_out"]:
    """Returns the reconstruction from latents."""
    return architecture.decode(params, latents)


def sae_loss(
    architecture: Any,
    params: Params,
    x: Float[Array, "n d_in"],
    target: Float[Array, "n d_out"] | None = None,
    *,
    dead: Bool[Array, " m"] | None = None,
) -> tuple[Float[Array, ""], SAEOutput]:
    """Returns the training loss and all that led to it; its `losses` are the terms by name.

    Args:
      architecture: a kind, such as `TopK(k=32)`.
      params: its weights.
      x: activations.
      target: what is to be reconstructed, default x; given, it makes a transcoder, which needs `centre=False`.
      dead: which latents count as dead, for the losses that revive them; default: these losses are left out.

    Raises:
      ConfigError: activations or targets of other widths than the weights, a transcoder that centres its input.

    >>> kind = sae_architecture("l1", coefficient=0.1)
    >>> loss, output = sae_loss(kind, init_sae(jax.random.key(0), kind, 4, 8), jnp.ones((2, 4)))
    >>> sorted(output.losses), output.latents.shape
    (['l1_loss', 'loss', 'mse_loss'], (2, 8))
    """
    _check_width(params, x)
    if target is not None and architecture.centre:
        raise ConfigError("centre: expected False for a transcoder, whose decoder's bias belongs to another activation")
    target = x if target is None else target
    width = params["decoder"].shape[-1]
    if target.shape != (*x.shape[:-1], width):
        raise ConfigError(f"target: expected {(*x.shape[:-1], width)} for this decoder, got {target.shape}")
    if dead is not None and jnp.shape(dead) != (latents := params["decoder"].shape[:1]):
        raise ConfigError(f"dead: expected a mask of the latents, {latents}, got {jnp.shape(dead)}")
    dead = None if dead is None else jnp.asarray(dead)
    output = architecture.run(params, x)
    losses = {"mse_loss": squared_error(output.reconstruction, target)}
    losses |= architecture.penalties(params, x, target, output, dead)
    losses["loss"] = sum(losses.values())
    return losses["loss"], dataclasses.replace(output, losses=losses)


def as_jump_relu(architecture: Any, params: Params, threshold: Float[Array, ""]) -> tuple[JumpReLU, Params]:
    """Returns a BatchTopK or Matryoshka autoencoder in which a latent is active above a threshold, row by row.

    Args:
      architecture: the kind; where it has `rescale`, the norms of the decoder's rows go into the encoder.
      params: its weights.
      threshold: of all latents, such as that of `SAEState`.

    Source: Bussmann et al., BatchTopK sparse autoencoders (2024), equation 5.
    """
    if architecture.rescale:
        norms = row_norms(params["decoder"])
        params = params | {
            "encoder": params["encoder"] * norms[:, None],
            "encoder_bias": params["encoder_bias"] * norms,
            "decoder": params["decoder"] / jnp.where(norms > 0, norms, 1)[:, None],
        }
    threshold = jnp.full_like(params["encoder_bias"], threshold)
    return JumpReLU(centre=architecture.centre), params | {"threshold": threshold}


def _directions(key, count, width, dtype):
    directions = jax.random.normal(key, (count, width), dtype)
    return directions / row_norms(directions)[:, None]


def _check_width(params, x):
    width = params["encoder"].shape[-1]
    if x.shape[-1:] != (width,):
        raise ConfigError(f"x: expected activations of width {width}, that of the encoder, got {x.shape}")
