"""What the attention of a head looks like, in numbers: which tokens it goes to, and how spread it is.

A head is known by where its weights A_jk lie, j the position that reads and k the one that is read:

    previous-token     A_{j, j-1}
    first-token        A_{j, 0}
    duplicate-token    A_{j, i}          where token i is token j, i < j
    induction          A_{j, i+1}        where also token i+1 is token j+1

each the mean over examples and positions j (Elhage et al. 2021; Olsson et al. 2022, "In-context learning and induction
heads"). The entropy of A_j is in nats; the mean distance is sum_k A_jk (j - k).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import DataError
from aijax.known import known
from aijax.typing import Array, Bool, Float, Int


class AttentionPatterns(NamedTuple):
    """Scores of heads, `[*l, h]` each; all but the last two are from 0 to 1.

    Attributes:
      previous_token: attention to the position before.
      current_token: to the position itself.
      first_token: to the first position.
      duplicate_token: to earlier positions of the same token.
      induction: to what came after an earlier position of the same token, where it comes again.
      positional: 1 less the mean total variation distance of an example's pattern from the mean of all: how much of the
        pattern does not depend on the tokens. One example alone has 1.
      entropy: in nats.
      mean_distance: in positions.
    """

    previous_token: Float[Array, "*l h"]
    current_token: Float[Array, "*l h"]
    first_token: Float[Array, "*l h"]
    duplicate_token: Float[Array, "*l h"]
    induction: Float[Array, "*l h"]
    positional: Float[Array, "*l h"]
    entropy: Float[Array, "*l h"]
    mean_distance: Float[Array, "*l h"]


def attention_pattern_analysis(
    attention_weights: Float[Array, "*l b h t t"], tokens: Int[Array, "b t"] | None = None, *, first: int = 1
) -> AttentionPatterns:
    """Returns scores of each head.

    Args:
      attention_weights: rows sum to one. Layers may come first.
      tokens: that were read. None where the second half of each text repeats the first, the usual probe.
      first: the first position j that counts for the scores of tokens; 2 where texts begin with a token of their own.

    Raises:
      DataError: weights that are not square, tokens of another shape, or, where they are known, weights whose rows are
        no distributions.

    >>> scores = attention_pattern_analysis(jnp.eye(4)[None, None])
    >>> float(scores.current_token[0]), float(scores.entropy[0])
    (1.0, 0.0)
    """
    weights = jnp.asarray(attention_weights)
    _check(weights, tokens, first)
    length = weights.shape[-1]
    query, key = jnp.arange(length)[:, None], jnp.arange(length)
    if tokens is None:
        period = length // 2
        duplicate, induction = query - key == period, query - key == period - 1
        duplicate, induction = (
            jnp.broadcast_to(seen & (query >= period), (1, length, length)) for seen in (duplicate, induction)
        )
    else:
        duplicate, induction = duplicate_positions(tokens), induction_positions(tokens)
    counted = query >= first
    mean = weights.mean(-4, keepdims=True)
    distance = 0.5 * jnp.abs(weights - mean).sum(-1)
    return AttentionPatterns(
        previous_token=attention_to(weights, (query - key == 1) & counted),
        current_token=attention_to(weights, (query == key) & counted),
        first_token=attention_to(weights, (key == 0) & counted),
        duplicate_token=attention_to(weights, duplicate & counted),
        induction=attention_to(weights, induction & counted),
        positional=1 - distance.mean((-3, -1)),
        entropy=attention_entropy(weights).mean((-3, -1)),
        mean_distance=(weights * (query - key)).sum(-1).mean((-3, -1)),
    )


def named_heads(scores: AttentionPatterns, least: float = 0.4) -> dict[str, list[tuple[int, ...]]]:
    """Returns the heads that are of a kind, `(layer, head)`, those with the highest score first; on the host.

    Args:
      scores: of `attention_pattern_analysis`.
      least: score from which on a head is of a kind.

    >>> named_heads(attention_pattern_analysis(jnp.eye(4)[None, None]))["current_token"]
    [(0,)]
    """
    named = {}
    for kind in ("previous_token", "current_token", "first_token", "duplicate_token", "induction"):
        values = np.asarray(getattr(scores, kind))
        order = [np.unravel_index(flat, values.shape) for flat in np.argsort(-values, axis=None)]
        named[kind] = [tuple(map(int, place)) for place in order if values[place] >= least]
    return named


def attention_to(attention_weights: Float[Array, "*l b h t s"], positions: Bool[Array, "..."]) -> Float[Array, "*l h"]:
    """Returns the mean attention to some positions, over the examples and positions j that have any.

    Args:
      attention_weights: of the heads.
      positions: whether position j is to look at position k, `[b, t, s]` or `[t, s]`.

    Where there are none the score is zero.

    >>> float(attention_to(jnp.eye(2)[None, None], jnp.array([[True, False], [True, False]]))[0])
    0.5
    """
    positions = jnp.broadcast_to(positions, (attention_weights.shape[-4], *attention_weights.shape[-2:]))
    rows = jnp.sum(jnp.any(positions, -1))
    total = jnp.einsum("...bhts,bts->...h", attention_weights, positions.astype(attention_weights.dtype))
    return total / jnp.maximum(rows, 1)


def duplicate_positions(tokens: Int[Array, "b t"]) -> Bool[Array, "b t t"]:
    """Returns whether position k has the token of position j and comes before it, for each j and k.

    >>> duplicate_positions(jnp.array([[5, 6, 5]]))[0, 2].tolist()
    [True, False, False]
    """
    same = tokens[:, :, None] == tokens[:, None, :]
    return same & jnp.tri(tokens.shape[1], k=-1, dtype=bool)


def induction_positions(tokens: Int[Array, "b t"]) -> Bool[Array, "b t t"]:
    """Returns whether position k comes after an earlier token like that of position j, and is what follows j.

    >>> induction_positions(jnp.array([[5, 6, 5, 6]]))[0, 2].tolist()
    [False, True, False, False]
    """
    earlier = duplicate_positions(tokens)
    followed = earlier[:, :-1, :-1] & (tokens[:, 1:, None] == tokens[:, None, 1:])
    return jnp.pad(followed, ((0, 0), (0, 1), (1, 0)))


def attention_entropy(attention_weights: Float[Array, "*b t s"]) -> Float[Array, "*b t"]:
    """Returns -sum_k A_jk log A_jk of each row, in nats.

    >>> round(float(attention_entropy(jnp.array([0.5, 0.5]))), 4)
    0.6931
    """
    return -jax.scipy.special.xlogy(attention_weights, attention_weights).sum(-1)


def _check(weights, tokens, first):
    if weights.ndim < 4 or weights.shape[-1] != weights.shape[-2]:
        raise DataError(f"attention_weights: expected [batch, heads, length, length], got {list(weights.shape)}")
    if not 0 <= first < weights.shape[-1]:
        raise DataError(f"first: expected a position from 0 to {weights.shape[-1] - 1}, got {first}")
    wanted = (weights.shape[-4], weights.shape[-1])
    if tokens is not None and tokens.shape != wanted:
        raise DataError(f"tokens: expected {list(wanted)} as the attention_weights have, got {list(tokens.shape)}")
    off = jnp.abs(weights.sum(-1) - 1).max()
    if known((off < 1e-2) & (weights.min() >= 0)) is False:
        raise DataError(f"attention_weights: expected rows that sum to 1, got one that is off by {float(off):.2g}")
