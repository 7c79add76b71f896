"""Rotary positions: each pair of channels of queries and keys is turned by an angle that grows with the position.

    (x_i, x_{i + r}) <- (x_i cos a_i - x_{i + r} sin a_i, x_{i + r} cos a_i + x_i sin a_i),        a_i = position w_i

so that q . k depends on the distance of positions only (Su et al. 2021, section 3.4.2). w_i = base^(-i / r) for r
pairs; models of long texts change these frequencies (`scaled_frequencies`). Positions in the plane turn one half of the
pairs by the row and the other by the column: they are angles like any other.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, choose
from aijax.typing import Array, Float

BASE = 10_000.0


def rotate(
    x: Float[Array, "*b t h k"], angles: Float[Array, "*c t r"] | None = None, *, interleaved: bool = False
) -> Float[Array, "*b t h k"]:
    """Returns `x` with the pair (x_i, x_{i + r}) of each head turned by the angle a_i of its position, for i < r.

    Args:
      x: queries or keys.
      angles: one for each position and pair, at most k / 2 pairs; channels from 2 r on are left alone. None for
        t base^(-2i/k).
      interleaved: the pairs are (x_2i, x_{2i + 1}) in place of (x_i, x_{i + r}), as in GPT-J.

    Raises:
      ConfigError: a head of odd width where there are no angles, or more pairs than a head has.
    """
    length, width = x.shape[-3], x.shape[-1]
    if angles is None:
        if width % 2:
            raise ConfigError(f"num_heads: rotary positions need heads of even width, got width {width}")
        angles = rotary_angles(jnp.arange(length), frequencies(width))
    pairs = angles.shape[-1]
    if 2 * pairs > width:
        raise ConfigError(f"angles: expected at most {width // 2} a position for heads of width {width}, got {pairs}")
    cos, sin = (f(angles)[..., None, :].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    if interleaved:
        turned, rest = jnp.split(x, [2 * pairs], axis=-1)
        left, right = turned[..., ::2], turned[..., 1::2]
        turned = jnp.stack([left * cos - right * sin, right * cos + left * sin], axis=-1).reshape(turned.shape)
        return jnp.concatenate([turned, rest], axis=-1)
    left, right, rest = jnp.split(x, [pairs, 2 * pairs], axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin, rest], axis=-1)


def rotary_angles(positions: Any, frequencies: Any, dtype: Any = "float32") -> Float[Array, "*b t r"]:
    """Returns position w_i for each position and frequency, computed by default in 32 bits as published models do.

    >>> rotary_angles(jnp.arange(3), [1.0, 0.5]).tolist()
    [[0.0, 0.0], [1.0, 0.5], [2.0, 1.0]]
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jnp.asarray(positions, dtype)[..., None] * jnp.asarray(frequencies, dtype)


def frequencies(width: int, base: float = BASE, dtype: Any = "float32") -> np.ndarray:
    """Returns w_i = base^(-2i / width) for i < width / 2.

    >>> frequencies(4, 100.0).tolist()
    [1.0, 0.10000000149011612]
    """
    real = np.dtype(dtype).type
    return real(1) / real(base) ** (np.arange(0, width, 2, dtype=real) / real(width))


def scaled_frequencies(
    width: int,
    base: float = BASE,
    scaling: Mapping[str, Any] | None = None,
    *,
    context_length: int,
    length: int = 1,
) -> tuple[np.ndarray, float]:
    """Returns frequencies for texts longer than those a model was trained on, and a factor of the turned vectors.

    The kinds, under their published names, with factor f, original length L and frequencies w of `frequencies`:

      "default"   w.
      "linear"    w / f (Chen et al. 2023).
      "dynamic"   w of the base b (f n / L - f + 1)^(k / (k - 2)) for texts of n > L tokens, L the context length.
      "yarn"      w / f, w or a mean of both by how often a pair turns within L (Peng et al. 2023, equations 17 to 22).
      "longrope"  w divided by a factor of its own for each pair, short or long (Ding et al. 2024).
      "llama3"    w / f, w or a mean of both by wavelength (Llama Team 2024).

    Args:
      width: of a head, twice the number of pairs.
      base: of the frequencies.
      scaling: the published mapping with "rope_type"; None for the default.
      context_length: of the model, the published `max_position_embeddings`.
      length: tokens of the text, for the kinds that ask for it.

    Raises:
      ConfigError: an unknown kind, or one whose numbers are missing.

    >>> scaled_frequencies(4, 100.0, {"rope_type": "linear", "factor": 2.0}, context_length=8)[0].tolist()
    [0.5, 0.05000000074505806]
    """
    scaling = dict(scaling or {})
    kind = choose(SCALINGS, scaling.get("rope_type", "default"), "rotary_scaling.rope_type")
    scaling.setdefault("original_max_position_embeddings", context_length)
    try:
        return kind(width, base, scaling, context_length, length)
    except KeyError as error:
        raise ConfigError(f"rotary_scaling: {scaling['rope_type']} needs {error.args[0]!r}, which is missing") from None


def _default(width, base, scaling, context_length, length):
    return frequencies(width, base), 1.0


def _linear(width, base, scaling, context_length, length):
    return frequencies(width, base) / np.float32(scaling["factor"]), 1.0


def _dynamic(width, base, scaling, context_length, length):
    factor, ratio = scaling["factor"], max(length, context_length) / context_length
    return frequencies(width, base * (factor * ratio - (factor - 1)) ** (width / (width - 2))), 1.0


def _yarn(width, base, scaling, context_length, length):
    original = scaling["original_max_position_embeddings"]
    factor = scaling.get("factor") or context_length / original

    def pair_of(turns):
        return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair_of(scaling.get("beta_fast") or 32), pair_of(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    high = high + 0.001 if low == high else high
    slow = np.clip((np.arange(width // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    own = np.float32(base) ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width))
    kept = np.float32(1) - slow
    mixed = 1 / (np.float32(factor) * own) * (1 - kept) + 1 / own * kept
    return mixed.astype(np.float32), _yarn_factor(scaling, factor)


def _yarn_factor(scaling, factor):
    """The temperature of attention (Peng et al. 2023, equation 22)."""

    def growth(weight):
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    one, all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return growth(one) / growth(all_dim) if one and all_dim else growth(1.0)


def _longrope(width, base, scaling, context_length, length):
    original = scaling["original_max_position_embeddings"]
    factor = scaling.get("factor") or context_length / original
    each = np.asarray(scaling["long_factor" if length > original else "short_factor"], np.float32)
    if each.shape != (width // 2,):
        raise ConfigError(f"rotary_scaling: expected a factor for each of {width // 2} pairs, got {each.shape}")
    own = np.float32(base) ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width))
    attention = scaling.get("attention_factor")
    if attention is None:
        attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return np.float32(1) / (each * own), float(attention)


def _llama3(width, base, scaling, context_length, length):
    own, factor = frequencies(width, base), np.float32(scaling["factor"])
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] / (2 * np.float32(math.pi) / own)
    smooth = (turns - np.float32(low)) / np.float32(high - low)
    mixed = (1 - smooth) * own / factor + smooth * own
    return np.where(turns < low, own / factor, np.where(turns > high, own, mixed)).astype(np.float32), 1.0


SCALINGS = {
    "default": _default, "dynamic": _dynamic, "linear": _linear, "llama3": _llama3, "longrope": _longrope,
    "yarn": _yarn,
}  # fmt: skip
"""Kinds of scaling by their published names."""
