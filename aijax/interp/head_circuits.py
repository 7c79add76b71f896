"""What heads can do, read off their weights: OV and QK circuits, copying, and how later heads compose with earlier.

A head of an attention without norms is two bilinear forms on the residual stream x (Elhage et al. 2021, "A mathematical
framework for transformer circuits"; vectors are rows):

    scores_ts = x_t W_QK x_s^T,    W_QK = W_Q W_K^T        head(x)_t = sum_s A_ts x_s W_OV,    W_OV = W_V W_O

Both are [d, d] of rank k at most and are never formed for the scores below.
"""

from typing import NamedTuple

import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.models.transformer import stack_blocks
from aijax.typing import Array, Float, Params


class HeadWeights(NamedTuple):
    """The matrices of all heads, `[l, h, d, k]`, and `out` `[l, h, k, d]`; groups of heads repeat what they share."""

    query: Float[Array, "l h d k"]
    key: Float[Array, "l h d k"]
    value: Float[Array, "l h d k"]
    out: Float[Array, "l h k d"]


class Composition(NamedTuple):
    """How much of what head (l, h) writes reaches the queries, keys and values of head (m, g), `[l, h, m, g]`."""

    query: Float[Array, "l h l h"]
    key: Float[Array, "l h l h"]
    value: Float[Array, "l h l h"]


def head_weights(blocks: Params, num_heads: int) -> HeadWeights:
    """Returns the matrices of the heads of a stack of blocks.

    Args:
      blocks: parameters of a `aijax.models.transformer.Transformer`, looped or scanned, such as `params["decoder"]` of
        a `LanguageModel`.
      num_heads: of a block.

    Raises:
      ConfigError: parameters without blocks, or a number that does not divide the width of the queries.
    """
    blocks = blocks if "blocks" in blocks else stack_blocks(blocks)
    if "attention" not in blocks.get("blocks", {}):
        raise ConfigError(f"blocks: expected the parameters of a stack of blocks, got {', '.join(blocks) or 'none'}")
    kernels = {name: part["kernel"] for name, part in blocks["blocks"]["attention"].items() if "kernel" in part}
    width = kernels["query"].shape[-1]
    if num_heads < 1 or width % num_heads:
        raise ConfigError(f"num_heads: expected a divisor of the width of all queries {width}, got {num_heads}")

    def by_head(kernel):
        heads = jnp.swapaxes(kernel.reshape(*kernel.shape[:-1], -1, width // num_heads), -2, -3)
        return jnp.repeat(heads, num_heads // heads.shape[-3], axis=-3)

    out = kernels["out"].reshape(len(kernels["out"]), num_heads, width // num_heads, -1)
    return HeadWeights(*(by_head(kernels[name]) for name in ("query", "key", "value")), out)


def ov_circuits(heads: HeadWeights) -> Float[Array, "l h d d"]:
    """Returns W_V W_O of each head: what it writes for what it reads."""
    return heads.value @ heads.out


def qk_circuits(heads: HeadWeights) -> Float[Array, "l h d d"]:
    """Returns W_Q W_K^T of each head, before any scale: which vector attends to which."""
    return heads.query @ jnp.swapaxes(heads.key, -1, -2)


def copying_scores(
    heads: HeadWeights, embedding: Float[Array, "v d"], unembedding: Float[Array, "d v"]
) -> Float[Array, "l h"]:
    """Returns sum Re(lambda) / sum |lambda| of the eigenvalues of W_E W_OV W_U, from -1 to 1: near 1 a head that makes
    the token it reads more likely (Elhage et al. 2021).

    The eigenvalues that are not zero are those of W_O W_U W_E W_V, which is [k, k].

    Raises:
      ConfigError: tokens that are read and tokens that are written of different numbers.
    """
    if embedding.shape[0] != unembedding.shape[-1]:
        raise ConfigError(
            f"unembedding: expected logits of the {embedding.shape[0]} tokens of the embedding, "
            f"got {unembedding.shape[-1]}"
        )
    eigenvalues = jnp.linalg.eigvals(heads.out @ (unembedding @ embedding) @ heads.value)
    return eigenvalues.real.sum(-1) / jnp.abs(eigenvalues).sum(-1)


def composition_scores(heads: HeadWeights) -> Composition:
    """Returns |W_OV W| / (|W_OV| |W|) in Frobenius norms, zero where the second head comes before or beside the first.

    W is W_QK of the second head for queries, its transpose for keys, W_OV for values (Elhage et al. 2021). Random
    matrices have about 1 / sqrt(d).
    """
    layers = jnp.arange(heads.query.shape[0])
    later = (layers[:, None] < layers)[:, None, :, None]
    pairs = ((heads.query, jnp.swapaxes(heads.key, -1, -2)), (heads.key, jnp.swapaxes(heads.query, -1, -2)))
    norms, read = _norms(heads.value, heads.out), jnp.swapaxes(heads.value, -1, -2) @ heads.value
    scores = []
    for left, right in (*pairs, (heads.value, heads.out)):
        between = jnp.einsum("lhkd,mgdj->lhmgkj", heads.out, left)
        written = right @ jnp.swapaxes(right, -1, -2)
        squares = jnp.einsum("lhmgkj,mgji,lhmgni,lhkn->lhmg", between, written, between, read)
        both = norms[:, :, None, None] * _norms(left, right)
        scores.append(jnp.where(later, jnp.sqrt(jnp.maximum(squares, 0)) / both, 0))
    return Composition(*scores)


def _norms(left, right):
    """|L R| of [.., d, k] and [.., k, d]."""
    grams = (jnp.swapaxes(left, -1, -2) @ left) * (right @ jnp.swapaxes(right, -1, -2))
    return jnp.sqrt(jnp.maximum(grams.sum((-1, -2)), 0))
