"""The pre-norm transformer: a stack of blocks, each attention and an MLP on a residual stream.

    x <- x + Attention(Norm(x)),        x <- x + MLP(Norm(x)),        then a final Norm           (Xiong et al. 2020)

One `Block` serves encoders and decoders; `BlockSpec` says which kind it is. `Transformer` stacks blocks by a Python
loop, or by `scan` so that one block is compiled whatever the depth. The two differ in how parameters are laid out:

    loop    block_0/mlp/up/kernel [d, m], block_1/mlp/up/kernel [d, m], ...
    scan    blocks/mlp/up/kernel [depth, d, m]

and `stack_blocks`, `unstack_blocks` turn one into the other. Every kernel is a matrix [inputs, outputs].
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.parallel import keep_batch_split
from aijax.typing import Array, Float

Norm = Literal["layer", "rms"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Remat = Literal["none", "block", "dots"]

NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}
ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
REMAT_POLICIES = {
    "none": None,
    "block": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
SCAN_FROM_DEPTH = 24


@dataclasses.dataclass(frozen=True)
class BlockSpec:
    """What a block is, whatever its width.

    Attributes:
      num_heads: attention heads; they share the width equally.
      mlp_ratio: width of the MLP's hidden layer over the width of the block.
      norm: "layer" (LayerNorm) or "rms" (RMSNorm).
      norm_epsilon: added to the variance.
      activation: "gelu" (exact), "gelu_tanh" (its tanh approximation), "relu" or "silu".
      causal: a token attends to itself and the tokens before it.
      rotary: queries and keys are turned by their positions (Su et al. 2021).
      dropout_rate: of what each branch adds to the residual stream.
      dtype: of the computation, a dtype or its name; None promotes inputs and parameters.
      param_dtype: of the parameters.
    """

    num_heads: int
    mlp_ratio: float = 4.0
    norm: Norm = "layer"
    norm_epsilon: float = 1e-6
    activation: Activation = "gelu"
    causal: bool = False
    rotary: bool = False
    dropout_rate: float = 0.0
    dtype: Any = None
    param_dtype: Any = "float32"


class Transformer(nn.Module):
    """A stack of pre-norm blocks and the final norm: [b, t, d] -> [b, t, d].

    Attributes:
      depth: number of blocks.
      spec: what each block is.
      stochastic_depth_rate: chance that the last block's branches are skipped for an example; it rises linearly from
        zero at the first block (Huang et al. 2016). Needs the "dropout" rng.
      remat: what the backward pass recomputes: "none", "block" (all of a block), "dots" (all but the products with
        weights).
      scan: stack by `scan` (True), by a loop (False), or by depth (None: scan from depth 24 on).
    """

    depth: int
    spec: BlockSpec
    stochastic_depth_rate: float = 0.0
    remat: Remat = "none"
    scan: bool | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], *, train: bool = False) -> Float[Array, "b t d"]:
        scan = is_scanned(self.depth, self.scan)
        policy = choose(REMAT_POLICIES, self.remat, "remat")
        block = Block if policy is None else nn.remat(Block, policy=policy, prevent_cse=not scan)
        skip_rates = jnp.linspace(0, self.stochastic_depth_rate, self.depth) if self.stochastic_depth_rate else None
        x = keep_batch_split(x)
        if scan:
            blocks = block(self.spec, deterministic=not train, name="blocks")
            x = _scan_blocks(blocks, x, skip_rates, self.depth)
        else:
            for i in range(self.depth):
                rate = None if skip_rates is None else skip_rates[i]
                x = block(self.spec, deterministic=not train, name=f"block_{i}")(x, rate)
        return norm(self.spec, "norm")(x)


class Block(nn.Module):
    """One pre-norm block; `skip_rate` is the chance that a branch is left out for an example while training."""

    spec: BlockSpec
    deterministic: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], skip_rate: Array | None = None) -> Float[Array, "b t d"]:
        spec = self.spec
        branches = (("attention", Attention(spec, name="attention")), ("mlp", Mlp(spec, name="mlp")))
        for name, branch in branches:
            y = branch(norm(spec, f"norm_{name}")(x))
            y = nn.Dropout(spec.dropout_rate, deterministic=self.deterministic, name=f"dropout_{name}")(y)
            x = keep_batch_split(x + self._skip(y, skip_rate))
        return x

    def _skip(self, y: Array, rate: Array | None) -> Array:
        if self.deterministic or rate is None:
            return y
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - rate, (y.shape[0],) + (1,) * (y.ndim - 1))
        return jnp.where(kept, y / jnp.asarray(1.0 - rate, y.dtype), jnp.zeros_like(y))


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(head width)) v for each head (Vaswani et al. 2017)."""

    spec: BlockSpec

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        spec, (*batch, length, width) = self.spec, x.shape
        if width % spec.num_heads:
            raise ConfigError(f"num_heads: expected a divisor of the width {width}, got {spec.num_heads}")
        heads = (*batch, length, spec.num_heads, width // spec.num_heads)
        query, key, value = (dense(spec, width, name)(x).reshape(heads) for name in ("query", "key", "value"))
        if spec.rotary:
            query, key = rotate(query), rotate(key)
        y = attend(query, key, value, causal=spec.causal)
        return dense(spec, width, "out")(y.reshape(x.shape))


class Mlp(nn.Module):
    """Two layers with an activation between."""

    spec: BlockSpec

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        width = x.shape[-1]
        y = dense(self.spec, round(self.spec.mlp_ratio * width), "up")(x)
        y = choose(ACTIVATIONS, self.spec.activation, "activation")(y)
        return dense(self.spec, width, "down")(y)


def norm(spec: BlockSpec, name: str) -> nn.Module:
    """Returns the norm layer of `spec`."""
    layer = choose(NORMS, spec.norm, "norm")
    return layer(epsilon=spec.norm_epsilon, dtype=spec.dtype, param_dtype=spec.param_dtype, name=name)


def dense(spec: BlockSpec, features: int, name: str) -> nn.Dense:
    """Returns a linear layer with the initialisation of transformers (Glorot uniform, no bias at first)."""
    init = nn.initializers.xavier_uniform()
    return nn.Dense(features, kernel_init=init, dtype=spec.dtype, param_dtype=spec.param_dtype, name=name)


def attend(
    query: Float[Array, "b t h k"], key: Float[Array, "b s h k"], value: Float[Array, "b s h k"], *, causal: bool
) -> Float[Array, "b t h k"]:
    """Returns softmax(q k^T / sqrt(k)) v for each head.

    It is `jax.nn.dot_product_attention`, whose softmax is always float32, and in float64 the same in full precision.
    Arrays of different types are promoted to one.
    """
    query, key, value = nn.dtypes.promote_dtype(query, key, value)
    if query.dtype != jnp.float64:
        return jax.nn.dot_product_attention(query, key, value, is_causal=causal)
    scores = jnp.einsum("bthk,bshk->bhts", query, key) * query.shape[-1] ** -0.5
    seen = jnp.tri(*scores.shape[-2:], dtype=bool) if causal else None
    return jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores, where=seen), value)


def rotate(x: Float[Array, "*b t h k"], *, base: float = 10_000.0) -> Float[Array, "*b t h k"]:
    """Returns `x` with the pair (x_i, x_{i + k/2}) of each head turned by the angle t base^(-2i/k) (Su et al. 2021).

    Raises:
      ConfigError: a head of odd width.
    """
    length, width = x.shape[-3], x.shape[-1]
    if width % 2:
        raise ConfigError(f"num_heads: rotary positions need heads of even width, got width {width}")
    angles = jnp.arange(length)[:, None] * base ** (-jnp.arange(0, width, 2) / width)
    cos, sin = (f(angles)[:, None, :].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    left, right = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


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


def _scan_blocks(blocks: nn.Module, x: Array, skip_rates: Array | None, depth: int) -> Array:
    def body(module: nn.Module, x: Array, rate: Array | None) -> tuple[Array, None]:
        return module(x, rate), None

    scanned = nn.scan(
        body,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True, "dropout": True},
        length=depth,
    )
    return scanned(blocks, x, skip_rates)[0]
