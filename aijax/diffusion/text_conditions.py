"""What the networks of Stable Diffusion are told of a text, by one encoder, by two and by three.

One encoder's features of all tokens are the context of a UNet. In SDXL pixels attend to the features of both encoders
before their last block, and the UNet is told the pooled text of the second and the image's sizes (Podell et al. 2023,
section 2). In version 3 those features, filled up with zeros to its width, come before the third's, all as one text,
and the pooled texts of the first two are joined (Esser et al. 2024, section 4).
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from aijax.typing import Any, Array, Callable, Params, PyTree

THIRD_LENGTH = 256
"""Tokens of the third encoder."""


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
class ThreeTexts:
    """`(params, tokens) -> condition` of Stable Diffusion 3: of `params` "first" to "third", and rows of all tokens.

    Args:
      first, second: the encoders of CLIP, which project their pooled features.
      third: the encoder of T5; None for features of 0.
      width: of the text's tokens.
    """

    first: Any
    second: Any
    third: Any = None
    width: int = 4096

    def __call__(self, params: Params, tokens: Array) -> PyTree:
        length = self.first.max_position_embeddings
        parts = jnp.split(tokens, [length, 2 * length], axis=1)
        one, other = (
            module.apply({"params": params[name]}, part)
            for name, module, part in zip(("first", "second"), (self.first, self.second), parts, strict=False)
        )
        features = jnp.concatenate([one.hidden[-2], other.hidden[-2]], axis=-1)
        features = jnp.pad(features, ((0, 0), (0, 0), (0, self.width - features.shape[-1])))
        if self.third is None:
            long = jnp.zeros((len(tokens), THIRD_LENGTH, self.width), features.dtype)
        else:
            long = self.third.apply({"params": params["third"]}, parts[2])
        text = jnp.concatenate([features, long.astype(features.dtype)], axis=1)
        return {"text": text, "pooled": jnp.concatenate([one.pooled, other.pooled], axis=-1)}


@dataclass(frozen=True)
class SideBySide:
    """`(texts, truncate=False) -> tokens` of several tokenizers, side by side, `[n, t]`."""

    parts: tuple[Callable[..., Array], ...]

    def __call__(self, texts: Any, *, truncate: bool = False) -> Array:
        return np.concatenate([part(texts, truncate=truncate) for part in self.parts], axis=1)
