"""Attention: each query reads the values whose keys it resembles (Vaswani et al. 2017, section 3.2).

    y_t = sum_s w_ts v_s,        w_ts = softmax_s(scale q_t . k_s + bias_ts)        for each head

One module serves self-attention, with or without a cache of what was read before, and attention to a memory. Groups of
query heads may share keys and values (Ainslie et al. 2023).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.models.block_spec import BlockSpec, dense, norm
from aijax.models.rotary import frequencies, rotary_angles, rotate
from aijax.typing import Array, Bool, Float, Int

WEIGHTS = "attention_weights"
"""The collection in which attention weights `[b, h, t, s]` are put where it is mutable."""


class KeyValues(NamedTuple):
    """Keys and values of an attention, `[b, s, h, k]` each."""

    keys: Array
    values: Array


class Context(NamedTuple):
    """What each block of a stack is told beside the residual stream.

    Attributes:
      mask: which tokens may be attended to, `[b, s]`, or by which, `[b, t, s]`.
      bias: added to the scores, `[h, t, s]` or `[b, h, t, s]`.
      angles: of rotary positions, `[t, r]` or `[b, t, r]`.
      memory: what cross-attention reads, `[b, m, e]`.
      memory_mask: which of it may be attended to, `[b, m]` or `[b, t, m]`.
      length: tokens that are in the cache.
    """

    mask: Bool[Array, "..."] | None = None
    bias: Float[Array, "..."] | None = None
    angles: Float[Array, "..."] | None = None
    memory: Float[Array, "b m e"] | None = None
    memory_mask: Bool[Array, "..."] | None = None
    length: Int[Array, ""] | None = None


class Attention(nn.Module):
    """Self-attention, or attention to the memory of the context: [b, t, d] -> [b, t, d], and the cache if there is one.

    Attributes:
      spec: of the block.
      deterministic: no dropout of weights.
      to_memory: keys and values are of the memory.
    """

    spec: BlockSpec
    deterministic: bool = True
    to_memory: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        context: Context | None = None,
        cache: KeyValues | None = None,
        scale: Array | None = None,
    ) -> Any:
        spec, width, cached = self.spec, x.shape[-1], cache is not None
        context = Context() if context is None else context
        if spec.head_width is None and width % spec.num_heads:
            raise ConfigError(f"num_heads: expected a divisor of the width {width}, got {spec.num_heads}")
        head_width = spec.head_width or width // spec.num_heads
        query = self._heads(x, "query", spec.num_heads, head_width)
        source = context.memory if self.to_memory else x
        if source is None and cache is None:
            raise ConfigError("memory: cross-attention needs one, got None")
        remembered = self.to_memory and source is None
        if remembered:
            key, value = cache
        else:
            num_kv_heads = spec.num_kv_heads or spec.num_heads
            key, value = (self._heads(source, name, num_kv_heads, head_width) for name in ("key", "value"))
        if spec.qk_norm:
            query = norm(spec, "norm_query")(query)
            key = key if remembered else norm(spec, "norm_key")(key)
        if scale is not None:
            query = query * scale.astype(query.dtype)
        if self.to_memory:
            cache = None if cache is None else KeyValues(key.astype(cache.keys.dtype), value.astype(cache.values.dtype))
            how = {"mask": _by_heads(context.memory_mask)}
        else:
            if context.angles is not None or spec.rotary:
                angles = self._angles(x.shape[1], head_width, context)
                query, key = rotate(query, angles), rotate(key, angles)
            how = {"mask": _by_heads(context.mask), "bias": context.bias, "causal": spec.causal}
            if cache is not None:
                cache, seen = _write(cache, KeyValues(key, value), context.length, spec.causal)
                key, value = cache
                how["mask"] = seen if how["mask"] is None else seen & how["mask"]
                how["causal"] = False
        y = self._read(query, key, value, scale=spec.attention_scale, **how)
        y = dense(spec, width, "out")(y.reshape(*x.shape[:-1], -1))
        return (y, cache) if cached else y

    def _heads(self, x: Array, name: str, num_heads: int, head_width: int) -> Array:
        return dense(self.spec, num_heads * head_width, name)(x).reshape(*x.shape[:-1], num_heads, head_width)

    def _angles(self, length: int, head_width: int, context: Context) -> Array | None:
        if context.angles is not None or context.length is None:
            return context.angles
        return rotary_angles(context.length + jnp.arange(length), frequencies(head_width))

    def _read(self, query: Array, key: Array, value: Array, **how: Any) -> Array:
        rate = 0.0 if self.deterministic else self.spec.attention_dropout_rate
        watched = self.is_mutable_collection(WEIGHTS) and not self.is_initializing()
        if not (rate or watched):
            return attend(query, key, value, implementation=self.spec.implementation, **how)
        query, key, value = nn.dtypes.promote_dtype(query, key, value)
        weights = attention_weights(query, key, **how)
        self.sow(WEIGHTS, "weights", weights)
        return read(nn.Dropout(rate, deterministic=self.deterministic)(weights), value)


def attend(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b s g k"],
    value: Float[Array, "b s g k"],
    *,
    causal: bool = False,
    mask: Bool[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
    implementation: str | None = None,
) -> Float[Array, "b t h k"]:
    """Returns softmax(scale q k^T + bias) v for each head.

    It is `jax.nn.dot_product_attention`, whose softmax is always float32, and in float64 the same in full precision.
    Arrays of different types are promoted to one.

    Args:
      query, key, value: heads of keys and values each serve h / g heads of queries.
      causal: query t sees keys up to t.
      mask: True where a query sees a key; it broadcasts with `[b, h, t, s]`.
      bias: broadcasts with `[b, h, t, s]`.
      scale: None for 1 / sqrt(k).
      implementation: None, "xla" or "cudnn".
    """
    query, key, value = nn.dtypes.promote_dtype(query, key, value)
    if query.dtype == jnp.float64:
        return read(attention_weights(query, key, causal=causal, mask=mask, bias=bias, scale=scale), value)
    bias = bias if bias is None else bias.reshape((1,) * (4 - bias.ndim) + bias.shape).astype(query.dtype)
    return jax.nn.dot_product_attention(
        query, key, value, bias, mask, is_causal=causal, scale=scale, implementation=implementation
    )


def attention_weights(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b s g k"],
    *,
    causal: bool = False,
    mask: Bool[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
) -> Float[Array, "b h t s"]:
    """Returns softmax(scale q k^T + bias) for each head, in at least 32 bits; the arguments are those of `attend`."""
    batch, length, heads, width = query.shape
    groups = key.shape[2]
    query = query.reshape(batch, length, groups, heads // groups, width)
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("btghk,bsgk->bghts", query, key, preferred_element_type=dtype)
    scores = scores.reshape(batch, heads, length, -1) * (width**-0.5 if scale is None else scale)
    scores = scores if bias is None else scores + bias
    seen = jnp.tri(*scores.shape[-2:], dtype=bool) if causal else None
    if mask is not None:
        seen = mask if seen is None else seen & mask
    if seen is not None:
        scores = jnp.where(seen, scores, jnp.finfo(dtype).min)
    return jax.nn.softmax(scores)


def read(weights: Float[Array, "b h t s"], value: Float[Array, "b s g k"]) -> Float[Array, "b t h k"]:
    """Returns the values that the weights choose, of the values' type."""
    batch, heads, length, _ = weights.shape
    groups, width = value.shape[2:]
    weights = weights.reshape(batch, groups, heads // groups, length, -1).astype(value.dtype)
    return jnp.einsum("bghts,bsgk->btghk", weights, value).reshape(batch, length, heads, width)


def _write(cache: KeyValues, new: KeyValues, length: Array, causal: bool) -> tuple[KeyValues, Array]:
    """The cache with new entries from place `length` on, and which places each query sees."""
    written = KeyValues(
        *(
            jax.lax.dynamic_update_slice_in_dim(old, entries.astype(old.dtype), length, axis=1)
            for old, entries in zip(cache, new, strict=True)
        )
    )
    count, places = new.keys.shape[1], jnp.arange(cache.keys.shape[1])
    last = length + (jnp.arange(count) if causal else jnp.full(count, count - 1))
    return written, (places <= last[:, None])[None, None]


def _by_heads(mask: Array | None) -> Array | None:
    """A mask `[b, s]` or `[b, t, s]` that broadcasts with `[b, h, t, s]`."""
    if mask is None:
        return None
    mask = mask.astype(bool)
    return mask[:, None, None] if mask.ndim == 2 else mask[:, None]
