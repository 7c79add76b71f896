"""What a transformer block is, and the layers it is made of: norms, linear layers and activations."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.models.norms import LayerNorm, NoNorm, RMSNorm
from aijax.typing import Array

Norm = Literal["layer", "rms", "none"]
Activation = Literal["gelu", "gelu_tanh", "gelu_quick", "relu", "silu", "tanh"]

NORMS = {"layer": LayerNorm, "rms": RMSNorm, "none": NoNorm}
ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_quick": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
LAYERS = ("query", "key", "value", "out", "gate", "up", "down")
"""The linear layers of a block."""


@dataclasses.dataclass(frozen=True)
class BlockSpec:
    """What a block is, whatever its width.

    Attributes:
      num_heads: attention heads; they share the width equally where there is no `head_width`.
      mlp_ratio: width of the MLP's hidden layer over the width of the block.
      norm: "layer" (LayerNorm), "rms" (RMSNorm) or "none".
      norm_epsilon: added to the variance.
      activation: "gelu" (exact), "gelu_tanh" (its tanh approximation), "gelu_quick" (x sigmoid(1.702 x)), "relu",
        "silu" or "tanh".
      causal: a token attends to itself and the tokens before it.
      rotary: queries and keys are turned by their positions where no angles are given (Su et al. 2021).
      rotary_interleaved: the pairs that are turned are neighbours, see `aijax.models.rotary.rotate`.
      dropout_rate: of what each branch adds to the residual stream.
      dtype: of the computation, a dtype or its name; None promotes inputs and parameters.
      param_dtype: of the parameters.
      post_norm: x <- Norm(x + f(x)) in place of x <- x + f(Norm(x)).
      output_norm: x <- x + Norm'(f(Norm(x))), with norms of its own for what is added (Gemma Team 2024).
      parallel: the MLP reads what attention reads, x <- x + f(Norm(x)) + g(Norm'(x)) (Wang and Komatsuzaki 2021).
      cross_attention: between attention and MLP, a third branch attends to a memory.
      mlp_width: width of the MLP's hidden layer; None for `mlp_ratio` times the width, 0 for a block without an MLP.
      gated: the MLP is down(act(gate(x)) up(x)) in place of down(act(up(x))) (Shazeer 2020).
      biases: which of `LAYERS` have a bias.
      head_width: width of a head; None for the width over `num_heads`.
      num_kv_heads: heads of keys and values, each of which serves as many heads of queries (Ainslie et al. 2023); None
        for `num_heads`.
      attention_scale: of q . k; None for 1 / sqrt(head width).
      scale_by_depth: q . k of block i is also divided by i + 1.
      attention_soft_cap: scores s become cap tanh(s / cap) (Gemma Team 2024); None for no cap.
      qk_norm: queries and keys of each head pass through a norm (Henry et al. 2020).
      attention_dropout_rate: of the attention weights.
      mlp_dropout_rate: of what enters the MLP's second layer.
      layer_scale: first value of a learned factor, one a channel, of what each branch adds (Touvron et al. 2021); None
        for no factor.
      implementation: of attention: None (jax's choice), "xla" or "cudnn" (flash attention on GPUs, 16 bits).
    """

    num_heads: int
    mlp_ratio: float = 4.0
    norm: Norm = "layer"
    norm_epsilon: float = 1e-6
    activation: Activation = "gelu"
    causal: bool = False
    rotary: bool = False
    rotary_interleaved: bool = False
    dropout_rate: float = 0.0
    dtype: Any = None
    param_dtype: Any = "float32"
    post_norm: bool = False
    output_norm: bool = False
    parallel: bool = False
    cross_attention: bool = False
    mlp_width: int | None = None
    gated: bool = False
    biases: tuple[str, ...] = LAYERS
    head_width: int | None = None
    num_kv_heads: int | None = None
    attention_scale: float | None = None
    scale_by_depth: bool = False
    attention_soft_cap: float | None = None
    qk_norm: bool = False
    attention_dropout_rate: float = 0.0
    mlp_dropout_rate: float = 0.0
    layer_scale: float | None = None
    implementation: Literal["xla", "cudnn"] | None = None

    def __post_init__(self):
        for name in self.biases:
            choose(dict.fromkeys(LAYERS), name, "biases")
        if self.num_kv_heads is not None and (self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads):
            raise ConfigError(
                f"num_kv_heads: expected a divisor of num_heads {self.num_heads}, got {self.num_kv_heads}"
            )
        if self.post_norm and (self.output_norm or self.parallel):
            raise ConfigError("post_norm: it is no choice of blocks with output_norm or parallel, got True")
        if self.attention_soft_cap is not None and self.attention_soft_cap <= 0:
            raise ConfigError(f"attention_soft_cap: expected more than zero, got {self.attention_soft_cap}")

    @property
    def additive(self) -> bool:
        """Whether the residual stream is a sum of what branches wrote, each of which reads it and nothing else."""
        return not (self.post_norm or self.cross_attention)

    @property
    def branches(self) -> tuple[str, ...]:
        """What a block adds to the residual stream, in order."""
        cross = ("cross_attention",) if self.cross_attention else ()
        return ("attention", *cross) if self.mlp_width == 0 else ("attention", *cross, "mlp")


def norm(spec: BlockSpec, name: str) -> nn.Module:
    """Returns the norm layer of `spec`."""
    layer = choose(NORMS, spec.norm, "norm")
    return layer(epsilon=spec.norm_epsilon, dtype=spec.dtype, param_dtype=spec.param_dtype, name=name)


class Linear(nn.Module):
    """A linear layer with all tokens as the rows of one matrix: on CPUs its derivatives then copy nothing."""

    features: int
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, groups: int | None = None) -> Array:
        """Returns x W + b; with `groups`, x is `[..., h, inputs]`, and each h has the outputs of its group alone."""
        dtype, init = jnp.dtype(self.param_dtype), nn.initializers.xavier_uniform()
        kernel = self.param("kernel", init, (x.shape[-1], self.features), dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), dtype) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        if groups is not None:
            grouped = x.reshape(*x.shape[:-2], groups, -1, x.shape[-1])
            y = jnp.einsum("...ghd,dgk->...ghk", grouped, kernel.reshape(-1, groups, self.features // groups))
            y = y if bias is None else y + bias.reshape(groups, 1, -1)
            return y.reshape(*x.shape[:-1], -1)
        y = x.reshape(-1, x.shape[-1]) @ kernel
        return (y if bias is None else y + bias).reshape(*x.shape[:-1], self.features)


def dense(spec: BlockSpec, features: int, name: str) -> Linear:
    """Returns the linear layer `name` with the initialisation of transformers (Glorot uniform, no bias at first)."""
    return Linear(features, name in spec.biases, spec.dtype, spec.param_dtype, name=name)


def activate(spec: BlockSpec, x: jax.Array) -> jax.Array:
    """Returns the activation of `spec` at x, for whose derivative nothing is kept but x."""
    return jax.checkpoint(choose(ACTIVATIONS, spec.activation, "activation"))(x)
