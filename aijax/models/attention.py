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
from aijax.taps import asked, tap_in
from aijax.typing import Array, Bool, Float, Int


class KeyValues(NamedTuple):
    """Keys and values of an attention, `[b, g, s, k]` each: head by head, as they are read one token at a time."""

    keys: Array
    values: Array


class HeadInputs(NamedTuple):
    """What each head reads for its queries, keys and values: not one `[b, t, d]` for all but `[b, t, h, d]` each."""

    query: Array
    key: Array
    value: Array


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

    Where heads have inputs of their own (`HeadInputs`), it also gives what each adds to the output, [b, t, h, d].

    What is tapped: "queries", "keys" and "values", `[b, t, h, k]`, and with rotary positions "rotated_queries" and
    "rotated_keys"; "heads", what each head has read, `[b, t, h, k]`; and for who asks "scores" and "weights",
    `[b, h, t, s]`, and "results", what each head adds to the output, `[b, t, h, d]`, without the bias.

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
        x: Float[Array, "b t d"] | HeadInputs,
        context: Context | None = None,
        cache: KeyValues | None = None,
        scale: Array | None = None,
    ) -> Any:
        reads = x if isinstance(x, HeadInputs) else None
        x = x if reads is None else reads.query
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
        key = value = None
        if not remembered:
            num_kv_heads = spec.num_kv_heads or spec.num_heads
            sources = (source, source) if reads is None else reads[1:]
            key, value = (
                self._heads(source, name, num_kv_heads, head_width)
                for source, name in zip(sources, ("key", "value"), strict=True)
            )
        if spec.qk_norm:
            query = norm(spec, "norm_query")(query)
            key = key if remembered else norm(spec, "norm_key")(key)
        if scale is not None:
            query = query * scale.astype(query.dtype)
        how = {"scale": spec.attention_scale, "soft_cap": spec.attention_soft_cap}
        if self.to_memory:
            how["mask"] = _by_heads(context.memory_mask)
            if cached and not remembered:
                if key.shape[1] != cache.keys.shape[2]:
                    raise ConfigError(f"memory: the cache is for {cache.keys.shape[2]} tokens, got {key.shape[1]}")
                cache = _write(cache, key, value, 0)
        else:
            if context.angles is not None or spec.rotary:
                angles = self._angles(x.shape[1], head_width, context)
                query, key = (
                    tap_in(self, f"rotated_{name}", rotate(heads, angles, interleaved=spec.rotary_interleaved))
                    for name, heads in (("queries", query), ("keys", key))
                )
            how |= {"mask": _by_heads(context.mask), "bias": context.bias}
            if cached:
                cache = _write(cache, key, value, context.length)
                seen = _seen(cache, x.shape[1], context.length, spec.causal)
                how["mask"] = seen if how["mask"] is None else seen & how["mask"]
            else:
                how["causal"] = spec.causal
        y = self._read(query, *(cache if cached else (key, value)), cached=cached, **how)
        y, results = self._written(y, width, by_head=reads is not None or asked(self, "results"))
        y = (y, results) if reads is not None else y
        return (y, cache) if cached else y

    def _written(self, heads: Array, width: int, *, by_head: bool) -> tuple[Array, Array | None]:
        """What the heads write, [b, t, h, k] -> [b, t, d], and what each of them does, [b, t, h, d], without bias."""
        out = dense(self.spec, width, "out")
        y = out(heads.reshape(*heads.shape[:-2], -1))
        if not by_head:
            return y, None
        kernel = out.get_variable("params", "kernel").reshape(*heads.shape[-2:], width)
        results = jnp.einsum("...hk,hkd->...hd", heads, kernel.astype(heads.dtype))
        tapped = tap_in(self, "results", results)
        return y + (tapped - results).sum(-2), tapped

    def _heads(self, x: Array, name: str, num_heads: int, head_width: int) -> Array:
        layer = dense(self.spec, num_heads * head_width, name)
        if x.ndim == 4:  # heads of queries, each of which has its own input
            heads = layer(x, num_heads)
        else:
            heads = layer(x).reshape(*x.shape[:-1], num_heads, head_width)
        return tap_in(self, {"query": "queries", "key": "keys", "value": "values"}[name], heads)

    def _angles(self, length: int, head_width: int, context: Context) -> Array | None:
        if context.angles is not None or context.length is None:
            return context.angles
        return rotary_angles(context.length + jnp.arange(length), frequencies(head_width))

    def _read(self, query: Array, key: Array, value: Array, *, cached: bool, **how: Any) -> Array:
        rate = 0.0 if self.deterministic else self.spec.attention_dropout_rate
        if rate or cached or asked(self, "weights") or asked(self, "scores"):
            query, key, value = nn.dtypes.promote_dtype(query, key, value)
            key, value = (key, value) if cached else (_heads_first(key), _heads_first(value))
            weights = tap_in(self, "weights", jax.nn.softmax(tap_in(self, "scores", _scores(query, key, **how))))
            y = _mix(nn.Dropout(rate, deterministic=self.deterministic)(weights), value)
        else:
            y = attend(query, key, value, implementation=self.spec.implementation, **how)
        return tap_in(self, "heads", y)


def attend(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b s g k"],
    value: Float[Array, "b s g k"],
    *,
    causal: bool = False,
    mask: Bool[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
    soft_cap: float | None = None,
    implementation: str | None = None,
) -> Float[Array, "b t h k"]:
    """Returns softmax(scale q k^T + bias) v for each head.

    It is `jax.nn.dot_product_attention`, whose softmax is always float32; on CPUs and in float64 it is two products of
    matrices a head, the sums of the weights divided out after the second. Arrays of different types are promoted to
    one.

    Args:
      query, key, value: heads of keys and values each serve h / g heads of queries.
      causal: query t sees keys up to t.
      mask: True where a query sees a key; it broadcasts with `[b, h, t, s]`.
      bias: broadcasts with `[b, h, t, s]`.
      scale: None for 1 / sqrt(k).
      soft_cap: scores s = scale q k^T become cap tanh(s / cap), in two products everywhere; None for no cap.
      implementation: None, "xla" or "cudnn".
    """
    query, key, value = nn.dtypes.promote_dtype(query, key, value)
    bias = bias if bias is None else bias.reshape((1,) * (4 - bias.ndim) + bias.shape).astype(query.dtype)

    def by_products(query, key, value, bias, mask):
        scores = _scores(query, _heads_first(key), causal=causal, mask=mask, bias=bias, scale=scale, soft_cap=soft_cap)
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
        y = _mix(weights, _heads_first(value).astype(weights.dtype)) / _heads_first(weights.sum(-1))[..., None]
        return y.astype(value.dtype)

    def fused(query, key, value, bias, mask):
        return jax.nn.dot_product_attention(
            query, key, value, bias, mask, is_causal=causal, scale=scale, implementation=implementation
        )

    if query.dtype == jnp.float64 or soft_cap is not None:
        return by_products(query, key, value, bias, mask)
    if implementation is not None:
        return fused(query, key, value, bias, mask)
    return jax.lax.platform_dependent(query, key, value, bias, mask, cpu=by_products, default=fused)


def attention_weights(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b s g k"],
    *,
    causal: bool = False,
    mask: Bool[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
    soft_cap: float | None = None,
) -> Float[Array, "b h t s"]:
    """Returns softmax(scale q k^T + bias) for each head, in at least 32 bits; the arguments are those of `attend`."""
    how = {"causal": causal, "mask": mask, "bias": bias, "scale": scale, "soft_cap": soft_cap}
    return jax.nn.softmax(_scores(query, _heads_first(key), **how))


def _scores(query, key, *, causal=False, mask=None, bias=None, scale=None, soft_cap=None):
    """What the weights `[b, h, t, s]` are the softmax of, for keys `[b, g, s, k]`."""
    batch, length, heads, width = query.shape
    groups = key.shape[1]
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    query = query * jnp.asarray(width**-0.5 if scale is None else scale, query.dtype)
    query = _heads_first(query).reshape(batch, groups, heads // groups * length, width)
    scores = jnp.matmul(query, jnp.swapaxes(key, 2, 3), preferred_element_type=dtype)
    scores = scores.reshape(batch, heads, length, -1)
    scores = scores if soft_cap is None else soft_cap * jnp.tanh(scores / soft_cap)
    scores = scores if bias is None else scores + bias
    seen = jnp.tri(*scores.shape[-2:], dtype=bool) if causal else None
    if mask is not None:
        seen = mask if seen is None else seen & mask
    return scores if seen is None else jnp.where(seen, scores, jnp.finfo(dtype).min)


def _mix(weights, value):
    """The values `[b, g, s, k]` that the weights choose, `[b, t, h, k]`, of the values' type."""
    batch, heads, length, _ = weights.shape
    groups, width = value.shape[1], value.shape[3]
    weights = weights.reshape(batch, groups, heads // groups * length, -1).astype(value.dtype)
    return _heads_first((weights @ value).reshape(batch, heads, length, width))


def _heads_first(x):
    return jnp.swapaxes(x, 1, 2)


def _write(cache: KeyValues, key: Array, value: Array, place: Any) -> KeyValues:
    """The cache with keys and values `[b, t, g, k]` from a place on."""
    new = (
        jax.lax.dynamic_update_slice_in_dim(old, _heads_first(entries).astype(old.dtype), place, axis=2)
        for old, entries in zip(cache, (key, value), strict=True)
    )
    return KeyValues(*new)


def _seen(cache: KeyValues, count: int, length: Array, causal: bool) -> Array:
    """Which places of the cache each of `count` new tokens sees."""
    last = length + (jnp.arange(count) if causal else jnp.full(count, count - 1))
    return (jnp.arange(cache.keys.shape[2]) <= last[:, None])[None, None]


def _by_heads(mask: Array | None) -> Array | None:
    """A mask `[b, s]` or `[b, t, s]` that broadcasts with `[b, h, t, s]`."""
    if mask is None:
        return None
    mask = mask.astype(bool)
    return mask[:, None, None] if mask.ndim == 2 else mask[:, None]
