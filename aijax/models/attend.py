"""Attention of many tokens, a few heads at a time where the matrix of all weights would not fit a cache.

    y_t = sum_s w_st v_s / sum_s w_st,    w_st = exp(k_s . q_t / sqrt(d) - max_s)

On a CPU the backward pass computes the weights again (Rabe and Staats 2021): what takes the time there is moving them,
not computing them. The sums of the weights are one more row of the product with the values, and tokens t are the last
axis of everything, so that all products, forward and backward, have rows as long as the vector units like them
however narrow a head is. Other platforms, and programs for many devices, compute all at once.
"""

import jax
import jax.numpy as jnp

from aijax.models.attention import attend
from aijax.parallel import on_one_device
from aijax.typing import Array, Float

CHUNK_BYTES = 2**20
"""Size of the weights that are made at a time on a CPU."""


def attend_to_many(
    query: Float[Array, "b t h k"], key: Float[Array, "b s h k"], value: Float[Array, "b s h k"]
) -> Float[Array, "b t h k"]:
    """Returns softmax(q k^T / sqrt(k)) v for each head, with weights of at least 32 bits.

    >>> q, k, v = jnp.zeros((1, 3, 2, 4)), jnp.ones((1, 2, 2, 4)), jnp.arange(16.0).reshape(1, 2, 2, 4)
    >>> attend_to_many(q, k, v)[0, 0].tolist()
    [[4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]
    """
    if not on_one_device():
        return _at_once(query, key, value)
    return jax.lax.platform_dependent(query, key, value, cpu=_by_heads, default=_at_once)


def _at_once(query, key, value):
    return attend(query, key, value, causal=False)


def _by_heads(query, key, value):
    (b, t, h, k), s = query.shape, key.shape[1]
    wide = jnp.promote_types(query.dtype, jnp.float32)
    fitting = max(CHUNK_BYTES // max(t * s * wide.itemsize, 1), 1)
    chunk = max(n for n in range(1, b * h + 1) if b * h % n == 0 and n <= fitting) if b else 1

    def chunks(x, axes):
        x = x.astype(wide).transpose(axes)
        return x.reshape(b * h // chunk, chunk, *x.shape[2:])

    heads = chunks(query * k**-0.5, (0, 2, 3, 1)), chunks(key, (0, 2, 1, 3)), chunks(value, (0, 2, 3, 1))
    if len(heads[0]) == 1:
        y = _some_heads(*(x[0] for x in heads))
    else:
        y = jax.lax.map(jax.checkpoint(lambda some: _some_heads(*some)), heads)
    return y.reshape(b, h, -1, t).transpose(0, 3, 1, 2).astype(value.dtype)


def _some_heads(query: Float[Array, "n k t"], key: Float[Array, "n s k"], value: Float[Array, "n k s"]):
    scores = key @ query
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(1, keepdims=True)))
    y = jnp.concatenate([value, jnp.ones_like(value[:, :1])], 1) @ weights
    return y[:, :-1] / y[:, -1:]
