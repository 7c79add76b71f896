"""A transformer: a stack of blocks, each attention and an MLP on a residual stream.

    pre-norm     x <- x + Attention(Norm(x)),    x <- x + MLP(Norm(x)),    then a final Norm      (Xiong et al. 2020)
    post-norm    x <- Norm(x + Attention(x)),    x <- Norm(x + MLP(x))                          (Vaswani et al. 2017)

One `Block` serves encoders and decoders; `BlockSpec` says which kind it is. `Transformer` stacks blocks by a Python
loop, or by `scan` so that one block is compiled whatever the depth. The two differ in how parameters are laid out:

    loop    block_0/mlp/up/kernel [d, m], block_1/mlp/up/kernel [d, m], ...
    scan    blocks/mlp/up/kernel [depth, d, m]

and `stack_blocks`, `unstack_blocks` turn one into the other. Every kernel is a matrix [inputs, outputs].
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import checkify

from aijax.errors import choose
from aijax.models.attention import Attention, Context, HeadInputs, KeyValues
from aijax.models.block_spec import BlockSpec, activate, dense, norm
from aijax.models.norms import shares
from aijax.parallel import keep_batch_split
from aijax.taps import asked, tap_asked, tap_in, watched
from aijax.typing import Any, Array, Bool, Float, Int

Remat = Literal["none", "block", "dots"]

REMAT_POLICIES = {
    "none": None,
    "block": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
SCAN_FROM_DEPTH = 24
TENSOR_RULES = (
    (r".*(query|key|value|gate|up)/kernel", ("fsdp", "tensor")),
    (r".*(query|key|value|gate|up)/bias", ("tensor",)),
    (r".*(out|down)/kernel", ("tensor", "fsdp")),
)
"""Rules of `aijax.parallel.parameter_shardings` that cut heads and the MLP's hidden layer over `tensor`, for a looped
stack: each block then sums over `tensor` twice (Shoeybi et al. 2019)."""


class Cache(NamedTuple):
    """What a decoder remembers of the tokens it has read: an input and a result of each step, as a value.

    Attributes:
      layers: for each block, its keys and values by attention: "attention", and "cross_attention" where there is a
        memory; stacked along a first axis for a scanned stack.
      length: tokens read so far; more than there is room for overwrite the last, which only
        `jax.experimental.checkify` tells.
      memory_mask: which tokens of the memory, whose keys and values it has, may be attended to, `[b, m]`.
    """

    layers: Any
    length: Int[Array, ""]
    memory_mask: Bool[Array, "b m"] | None = None

    @property
    def size(self) -> int:
        """Most tokens it has room for."""
        layer = self.layers if isinstance(self.layers, dict) else self.layers[0]
        return layer["attention"].keys.shape[-2]


class PerBlock(NamedTuple):
    """What each block is told of its own: the chance that a branch is left out for an example while training, a factor
    of its scores, its part of the cache, and which tokens of its output are wanted if not all."""

    skip_rate: Float[Array, ""] | None = None
    scale: Float[Array, ""] | None = None
    cache: dict[str, KeyValues] | None = None
    wanted: Float[Array, "b r d"] | None = None


class Transformer(nn.Module):
    """A stack of blocks and, for pre-norm blocks, the final norm: [b, t, d] -> [b, t, d].

    Attributes:
      depth: number of blocks.
      spec: what each block is.
      stochastic_depth_rate: chance that the last block's branches are skipped for an example; it rises linearly from
        zero at the first block (Huang et al. 2016). Needs the "dropout" rng.
      remat: what the backward pass recomputes: "none", "block" (all of a block), "dots" (all but the products with
        weights).
      scan: stack by `scan` (True), by a loop (False), or by depth (None: scan from depth 24 on).
      final_norm: whether a norm follows the last pre-norm block.

    The two ends of its residual stream are tapped for who asks, "writes_input" and "reads_output", where blocks add
    to it and nothing else.
    """

    depth: int
    spec: BlockSpec
    stochastic_depth_rate: float = 0.0
    remat: Remat = "none"
    scan: bool | None = None
    final_norm: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        *,
        mask: Bool[Array, "..."] | None = None,
        bias: Float[Array, "..."] | None = None,
        angles: Float[Array, "..."] | None = None,
        memory: Float[Array, "b m e"] | None = None,
        memory_mask: Bool[Array, "..."] | None = None,
        cache: Cache | None = None,
        place: int | Int[Array, "b"] | None = None,
        with_hidden: bool = False,
        train: bool = False,
    ) -> Any:
        """Returns the features; where they are asked for, a tuple of the features, the cache, and the hidden states.

        Where the feature of one token is wanted, `[b, d]`, the last block of a loop computes no other's, as far as
        nobody looks at its values.

        Args:
          x: the residual stream.
          mask: True for tokens that may be attended to, `[b, s]`, or by which, `[b, t, s]`; with a cache s is its size.
          bias: added to the scores of attention, `[h, t, s]` or `[b, h, t, s]`.
          angles: of rotary positions, `[t, r]` or `[b, t, r]`.
          memory: for cross-attention, `[b, m, e]`; None after a first step whose cache has its keys and values.
          memory_mask: which of the memory may be attended to, `[b, m]` or `[b, t, m]`; the cache keeps it.
          cache: of `empty_cache`, or of the step before; the tokens come after those in it.
          place: of the only token whose feature is wanted, of all texts or of each; None for all tokens. It is for
            stacks without a cache, of which no hidden states are asked.
          with_hidden: whether x before the first block and after each is returned, a tuple of `depth + 1` arrays.
          train: dropout and stochastic depth are on; they need the "dropout" rng.
        """
        spec, scan = self.spec, is_scanned(self.depth, self.scan)
        policy = choose(REMAT_POLICIES, self.remat, "remat")
        block = Block if policy is None else nn.remat(Block, policy=policy, prevent_cse=not scan)
        if cache is not None:
            checkify.debug_check(cache.length + x.shape[1] <= cache.size, "cache: more tokens than it has room for")
            cache = cache if memory is None else cache._replace(memory_mask=memory_mask)
            memory_mask = cache.memory_mask
        context = Context(mask, bias, angles, memory, memory_mask, None if cache is None else cache.length)
        each = PerBlock(
            jnp.linspace(0, self.stochastic_depth_rate, self.depth) if self.stochastic_depth_rate else None,
            1 / jnp.arange(1.0, self.depth + 1) if spec.scale_by_depth else None,
        )
        x = keep_batch_split(tap_asked(self, "writes_input", x) if spec.additive else x)
        if scan:
            blocks = block(spec, deterministic=not train, name="blocks")
            each = each._replace(cache=None if cache is None else cache.layers)
            x, layers, hidden = _scan_blocks(blocks, x, each, context, self.depth, with_hidden)
        else:
            layers, hidden = [], [x]
            apart = place is not None and self._can_read_apart(context, train)
            for i in range(self.depth):
                own = jax.tree.map(lambda leaf, i=i: leaf[i], each)
                own = own._replace(cache=None if cache is None else cache.layers[i])
                if apart and i == self.depth - 1:
                    own = own._replace(wanted=token_at(x, place))
                    context, place = _seen_from(context, place, x.shape[1], spec.causal), 0
                x = block(spec, deterministic=not train, name=f"block_{i}")(x, *own, context)
                x, layer = x if cache is not None else (x, None)
                layers.append(layer)
                hidden.append(x)
        x = tap_asked(self, "reads_output", x) if spec.additive else x
        if self.final_norm and not spec.post_norm:
            x = norm(spec, "norm")(x)
        if cache is None and not with_hidden:
            return x if place is None else token_at(x, place)[:, 0]
        new = () if cache is None else (_extended(cache, layers if scan else tuple(layers), x.shape[1]),)
        return (x, *new, tuple(hidden)) if with_hidden else (x, *new)

    def _can_read_apart(self, context: Context, train: bool) -> bool:
        """Whether the last block may compute one token: what it reads of all others is their keys and values."""
        spec = self.spec
        drops = train and (spec.dropout_rate or spec.mlp_dropout_rate or spec.attention_dropout_rate)
        places = spec.rotary or context.angles is not None or context.bias is not None
        looked_at = watched() or self.is_mutable_collection("intermediates")
        return not (drops or places or spec.cross_attention or looked_at)


class Block(nn.Module):
    """One block: [b, t, d] -> [b, t, d], and its cache where it has one.

    Of `wanted` tokens, `[b, r, d]`, it gives the features of these alone, which attend to all of x as the mask of the
    context says, `[b, r, t]`.

    The residual stream is tapped before the first branch, "residual", and after each: "residual_attention",
    "residual_mlp"; and what each branch adds to it: "branch_attention", "branch_mlp". Where blocks
    add to the stream and nothing else, there are for who asks the ends of the edges of a circuit
    (`aijax.interp.edges`): "reads_attention_query", "reads_attention_key", "reads_attention_value" and
    "writes_attention", each `[b, t, h, d]`, "reads_mlp" and "writes_mlp".
    """

    spec: BlockSpec
    deterministic: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        skip_rate: Float[Array, ""] | None = None,
        scale: Float[Array, ""] | None = None,
        cache: dict[str, KeyValues] | None = None,
        wanted: Float[Array, "b r d"] | None = None,
        context: Context | None = None,
    ) -> Any:
        spec, written = self.spec, {}
        x = before = tap_in(self, "residual", x)
        for name in spec.branches:
            apart = wanted is not None and name == "attention"
            read, parts = (wanted, x) if apart else self._read(name, before if spec.parallel else x), None
            y = read if spec.post_norm else jax.tree.map(norm(spec, f"norm_{name}"), read)
            if apart:
                y, memory = y
                x, before, context = wanted, wanted, context._replace(memory=memory, memory_mask=context.mask)
            if name == "mlp":
                y = Mlp(spec, self.deterministic, name="mlp")(y)
            else:
                attention = Attention(spec, self.deterministic, apart or name == "cross_attention", name=name)
                if cache is None:
                    y = attention(y, context, scale=scale)
                else:
                    y, written[name] = attention(y, context, cache[name], scale)
                y, parts = y if isinstance(read, HeadInputs) else (y, None)
            if spec.output_norm:
                layer, total = norm(spec, f"norm_{name}_output"), y
                y = layer(total)
                parts = parts if parts is None else shares(layer, total, parts)
            y = nn.Dropout(spec.dropout_rate, deterministic=self.deterministic, name=f"dropout_{name}")(y)
            if spec.layer_scale is not None:
                init, dtype = nn.initializers.constant(spec.layer_scale), jnp.dtype(spec.param_dtype)
                factor = self.param(f"layer_scale_{name}", init, x.shape[-1:], dtype).astype(y.dtype)
                y, parts = y * factor, parts if parts is None else parts * factor
            if parts is not None:
                y = y + (tap_in(self, f"writes_{name}", parts) - parts).sum(-2)
            elif name == "mlp" and spec.additive:
                y = tap_asked(self, "writes_mlp", y)
            y = tap_in(self, f"branch_{name}", self._skip(y, skip_rate))
            x = tap_in(self, f"residual_{name}", keep_batch_split(x + y))
            x = norm(spec, f"norm_{name}")(x) if spec.post_norm else x
        return x if cache is None else (x, written)

    def _read(self, name: str, x: Array) -> Array | HeadInputs:
        """What a branch reads of the stream: for each head and each use of it where a circuit is asked for."""
        if not self.spec.additive:
            return x
        if name != "attention":
            return tap_asked(self, f"reads_{name}", x)
        names = [f"reads_attention_{use}" for use in HeadInputs._fields]
        if not any(asked(self, wanted) for wanted in (*names, "writes_attention")):
            return x
        each = jnp.broadcast_to(x[..., None, :], (*x.shape[:-1], self.spec.num_heads, x.shape[-1]))
        return HeadInputs(*(tap_in(self, wanted, each) for wanted in names))

    def _skip(self, y: Array, rate: Array | None) -> Array:
        if self.deterministic or rate is None:
            return y
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - rate, (y.shape[0],) + (1,) * (y.ndim - 1))
        return jnp.where(kept, y / jnp.asarray(1.0 - rate, y.dtype), jnp.zeros_like(y))


class Mlp(nn.Module):
    """Two layers with an activation between, which a third may gate.

    What enters the second layer is tapped: "hidden".
    """

    spec: BlockSpec
    deterministic: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        spec, width = self.spec, x.shape[-1]
        hidden = round(spec.mlp_ratio * width) if spec.mlp_width is None else spec.mlp_width
        y = dense(spec, hidden, "up")(x)
        y = activate(spec, dense(spec, hidden, "gate")(x)) * y if spec.gated else activate(spec, y)
        if spec.mlp_dropout_rate:
            y = nn.Dropout(spec.mlp_dropout_rate, deterministic=self.deterministic, name="dropout")(y)
        return dense(spec, width, "down")(tap_in(self, "hidden", y))


def empty_cache(model: Transformer, width: int, batch: int, size: int, memory: int = 0, dtype: Any = None) -> Cache:
    """Returns the cache of a decoder that has read nothing.

    Args:
      model: the decoder.
      width: of its residual stream.
      batch: texts.
      size: most tokens it is to read.
      memory: length of the memory of cross-attention, where it has one.
      dtype: of keys and values; None for that of the computation, which without a `spec.dtype` is jax's default.

    >>> spec = BlockSpec(num_heads=4, num_kv_heads=2, causal=True)
    >>> jax.tree.map(jnp.shape, empty_cache(Transformer(1, spec), 32, batch=3, size=10).layers[0]["attention"].keys)
    (3, 2, 10, 8)
    """
    spec = model.spec
    dtype = dtype or spec.dtype or jnp.promote_types(spec.param_dtype, jnp.result_type(float))
    heads, head_width = spec.num_kv_heads or spec.num_heads, spec.head_width or width // spec.num_heads
    lengths = {"attention": size} | ({"cross_attention": memory} if spec.cross_attention else {})
    scan = is_scanned(model.depth, model.scan)

    def layer():
        lead = (model.depth, batch) if scan else (batch,)
        return {
            name: KeyValues(*(jnp.zeros((*lead, heads, length, head_width), dtype) for _ in range(2)))
            for name, length in lengths.items()
        }

    return Cache(layer() if scan else tuple(layer() for _ in range(model.depth)), jnp.zeros((), jnp.int32))


def token_at(x: Float[Array, "b t d"], place: int | Int[Array, "b"]) -> Float[Array, "b 1 d"]:
    """Returns the token at a place, the same in all examples or one of each.

    >>> token_at(jnp.arange(6.0).reshape(2, 3, 1), jnp.array([2, 0])).ravel().tolist()
    [2.0, 3.0]
    """
    if isinstance(place, int):
        return x[:, place : place + 1]
    return jnp.take_along_axis(x, place[:, None, None], axis=1)


def is_scanned(depth: int, scan: bool | None) -> bool:
    """Returns whether a stack of `depth` blocks lays its parameters out for `scan`, given the field `scan`."""
    return depth >= SCAN_FROM_DEPTH if scan is None else scan


def stack_blocks(params: dict) -> dict:
    """Returns the parameters of a looped model in the layout of a scanned one.

    >>> jax.tree.map(jnp.shape, stack_blocks({"block_0": {"w": jnp.ones(3)}, "block_1": {"w": jnp.ones(3)}}))
    {'blocks': {'w': (2, 3)}}
    """
    if not isinstance(params, dict):
        return params
    indices = range(sum(name.startswith("block_") for name in params))
    rest = {name: stack_blocks(child) for name, child in params.items() if not name.startswith("block_")}
    if not indices:
        return rest
    return {**rest, "blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[f"block_{i}"] for i in indices))}


def unstack_blocks(params: dict) -> dict:
    """Returns the parameters of a scanned model in the layout of a looped one: the inverse of `stack_blocks`."""
    if not isinstance(params, dict):
        return params
    rest = {name: unstack_blocks(child) for name, child in params.items() if name != "blocks"}
    if "blocks" not in params:
        return rest
    depth = jax.tree.leaves(params["blocks"])[0].shape[0]
    return rest | {f"block_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"]) for i in range(depth)}


def _seen_from(context: Context, place: int | Array, length: int, causal: bool) -> Context:
    """The context of the token at one place, with a mask of what it may attend to, `[b, s]` or `[b, 1, s]`."""
    mask = context.mask
    if mask is not None and mask.ndim == 3:
        mask = token_at(jnp.broadcast_to(mask, (mask.shape[0], length, mask.shape[2])), place)
    if causal:
        before = jnp.arange(length) <= jnp.reshape(place, (-1, 1, 1))
        mask = before if mask is None else before & (mask if mask.ndim == 3 else mask[:, None])
    return context._replace(mask=mask)


def _extended(cache: Cache, layers: Any, count: int) -> Cache:
    return cache._replace(layers=layers, length=cache.length + count)


def _scan_blocks(
    blocks: nn.Module, x: Array, each: PerBlock, context: Context, depth: int, with_hidden: bool
) -> tuple[Array, Any, list[Array]]:
    def body(module: nn.Module, x: Array, own: PerBlock, context: Context) -> tuple[Array, tuple[Any, Array | None]]:
        y = module(x, *own, context)
        y, layer = y if own.cache is not None else (y, None)
        return y, (layer, y if with_hidden else None)

    scanned = nn.scan(
        body,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, nn.broadcast),
        length=depth,
    )
    last, (layers, hidden) = scanned(blocks, x, each, context)
    return last, layers, [x, *hidden] if with_hidden else []
