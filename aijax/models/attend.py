"""Attention of many tokens, a few images at a time where the matrix of all weights would not fit a cache.

    y_t = sum_s w_ts v_s / sum_s w_ts,    w_ts = exp(q_t . k_s / sqrt(d) - max)

On CPUs, images go one by one, or several where they are small, and the backward pass computes the weights again
(Rabe and Staats 2021): what takes the time there is moving the weights, not computing them. Other platforms compute
all at once.
"""

import jax
import jax.numpy as jnp

from aijax.models.attention import attend
from aijax.typing import Array, Float

CHUNK_BYTES = 2**22
"""Size of the weights that are made at a time on CPUs."""


def attend_to_many(
    query: Float[Array, "b t h k"], key: Float[Array, "b s h k"], value: Float[Array, "b s h k"]
) -> Float[Array, "b t h k"]:
    """Returns softmax(q k^T / sqrt(k)) v for each head, with weights of at least 32 bits.

    >>> q, k, v = jnp.zeros((1, 3, 2, 4)), jnp.ones((1, 2, 2, 4)), jnp.arange(16.0).reshape(1, 2, 2, 4)
    >>> attend_to_many(q, k, v)[0, 0].tolist()
    [[4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]
    """
    return jax.lax.platform_dependent(query, key, value, cpu=_by_images, default=_at_once)


def _at_once(query, key, value):
    return attend(query, key, value, causal=False)


def _by_images(query, key, value):
    (batch, targets, heads, _), sources = query.shape, key.shape[1]
    chunk = max(CHUNK_BYTES // max(heads * targets * sources * 4, 1), 1)
    if batch <= chunk:
        return jax.vmap(_one_image)(query, key, value)
    return jax.lax.map(jax.checkpoint(lambda image: _one_image(*image)), (query, key, value), batch_size=chunk)


def _one_image(query, key, value):
    scores = jnp.einsum("thk,shk->hts", query * query.shape[-1] ** -0.5, key)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    y = jnp.einsum("hts,shk->thk", weights, value.astype(weights.dtype))
    return (y / weights.sum(-1).T[..., None]).astype(value.dtype)
