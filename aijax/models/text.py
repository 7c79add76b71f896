"""The text encoder of CLIP, a causal transformer (Radford et al. 2021, section 2.4).

    x = E[tokens] + P,    x <- x + Attention(norm(x)),    x <- x + MLP(norm(x)),    features = norm(x)

The pooled feature is that of the first end-of-text token. Fields, submodules and parameters have the published names.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.models.attention import attend
from aijax.models.block_spec import ACTIVATIONS
from aijax.models.embeddings import check_indices
from aijax.typing import Array, Float, Int

LEGACY_END = 2
"""The `eos_token_id` of configs that were published with a wrong one: the end is then the largest token."""
TEXT_ACTIVATIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": ACTIVATIONS["gelu"],
    "gelu_new": ACTIVATIONS["gelu_tanh"],
    "gelu_pytorch_tanh": ACTIVATIONS["gelu_tanh"],
    "relu": ACTIVATIONS["relu"],
    "silu": ACTIVATIONS["silu"],
}
"""Activations by the names that published configs give them."""


class TextFeatures(NamedTuple):
    """What a text encoder gives.

    Attributes:
      last: features of each token after the final norm, `[b, t, d]`.
      pooled: the feature of the end of the text, `[b, d]`, or `[b, projection_dim]` where it is projected.
      hidden: x before the first block and after each, without the final norm, `depth + 1` arrays `[b, t, d]`.
    """

    last: Array
    pooled: Array
    hidden: tuple[Array, ...]


class CLIPText(nn.Module):
    """The text encoder of CLIP: tokens [b, t] -> `TextFeatures`.

    Attributes:
      vocab_size: number of tokens.
      hidden_size: width of the residual stream.
      intermediate_size: width of the MLP's hidden layer.
      num_hidden_layers: blocks.
      num_attention_heads: of a block.
      max_position_embeddings: most tokens it reads at once.
      hidden_act: a name of `TEXT_ACTIVATIONS`.
      layer_norm_eps: added to variances.
      eos_token_id: the end of text; with 2, the published mistake, it is the largest token that is there.
      bos_token_id, pad_token_id: published; not used, as attention passes over no token.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.

    Raises, when it is traced:
      ConfigError: more tokens than `max_position_embeddings`, heads that do not divide the width; tokens out of range,
        where they are known (where they are not they give NaN).

    >>> model = CLIPText(vocab_size=9, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 5), int))[0].last.shape
    (2, 5, 8)
    """

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    bos_token_id: int | None = 49406
    eos_token_id: int = 49407
    pad_token_id: int | None = 1
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, tokens: Int[Array, "b t"]) -> TextFeatures:
        if tokens.ndim != 2 or tokens.shape[1] > self.max_position_embeddings:
            most = self.max_position_embeddings
            raise ConfigError(f"tokens: expected [b, t] with at most {most} tokens, got shape {tokens.shape}")
        check_indices("tokens", tokens, self.vocab_size)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        sizes = self.vocab_size, self.max_position_embeddings, self.hidden_size
        x = TextEmbeddings(*sizes, name="embeddings", **dtypes)(tokens)
        block = (self.num_attention_heads, self.intermediate_size, self.hidden_act, self.layer_norm_eps)
        encoder = TextBlocks(self.num_hidden_layers, block, name="encoder", **dtypes)
        hidden = encoder(x)
        last = layer_norm(self.layer_norm_eps, "final_layer_norm", **dtypes)(hidden[-1])
        ends = find_ends(tokens, self.eos_token_id)
        return TextFeatures(last, jnp.take_along_axis(last, ends[:, None, None], axis=1)[:, 0], hidden)


class CLIPTextWithProjection(nn.Module):
    """The text encoder of CLIP whose pooled feature is projected: tokens [b, t] -> `TextFeatures`.

    Attributes:
      projection_dim: width of the projected feature.
      vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, max_position_embeddings,
      hidden_act, layer_norm_eps, bos_token_id, eos_token_id, pad_token_id, dtype, param_dtype: see
        `CLIPText`.
    """

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    bos_token_id: int | None = 49406
    eos_token_id: int = 49407
    pad_token_id: int | None = 1
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, tokens: Int[Array, "b t"]) -> TextFeatures:
        fields = set(CLIPText.__dataclass_fields__) - {"parent", "name"}
        text_model = CLIPText(**{field: getattr(self, field) for field in fields}, name="text_model")
        features = text_model(tokens)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        project = nn.Dense(self.projection_dim, use_bias=False, name="text_projection", **dtypes)
        return features._replace(pooled=project(features.pooled))


class TextEmbeddings(nn.Module):
    """Tokens [b, t] -> the sum of their vectors and those of their places, [b, t, d]."""

    vocab_size: int
    length: int
    width: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        init = nn.initializers.normal(0.02)
        tables = {
            name: nn.Embed(count, self.width, self.dtype, self.param_dtype, init, name=name)
            for name, count in (("token_embedding", self.vocab_size), ("position_embedding", self.length))
        }
        return tables["token_embedding"](tokens) + tables["position_embedding"](jnp.arange(tokens.shape[1]))


class TextBlocks(nn.Module):
    """Blocks one after the other: x [b, t, d] -> x before the first and after each; `block` is of `TextBlock`."""

    depth: int
    block: tuple[int, int, str, float]
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> tuple[Array, ...]:
        hidden = [x]
        for i in range(self.depth):
            block = TextBlock(*self.block, self.dtype, self.param_dtype, name=f"layers_{i}")
            hidden.append(block(hidden[-1]))
        return tuple(hidden)


class TextBlock(nn.Module):
    """A pre-norm block with causal attention."""

    num_heads: int
    mlp_width: int
    activation: str
    norm_eps: float
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        attention = CausalAttention(self.num_heads, name="self_attn", **dtypes)
        x = x + attention(layer_norm(self.norm_eps, "layer_norm1", **dtypes)(x))
        y = layer_norm(self.norm_eps, "layer_norm2", **dtypes)(x)
        return x + TextMlp(self.mlp_width, self.activation, name="mlp", **dtypes)(y)


class CausalAttention(nn.Module):
    """Self-attention in which a token sees itself and those before it."""

    num_heads: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        width = x.shape[-1]
        if width % self.num_heads:
            raise ConfigError(f"num_attention_heads: expected a divisor of the width {width}, got {self.num_heads}")
        heads = (*x.shape[:2], self.num_heads, width // self.num_heads)

        def dense(name):
            return nn.Dense(width, dtype=self.dtype, param_dtype=self.param_dtype, name=name)

        query, key, value = (dense(f"{part}_proj")(x).reshape(heads) for part in "qkv")
        return dense("out_proj")(attend(query, key, value, causal=True).reshape(x.shape))


class TextMlp(nn.Module):
    """Two layers with an activation between."""

    hidden_width: int
    activation: str
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        act = choose(TEXT_ACTIVATIONS, self.activation, "hidden_act")
        return nn.Dense(x.shape[-1], name="fc2", **dtypes)(act(nn.Dense(self.hidden_width, name="fc1", **dtypes)(x)))


def layer_norm(eps: float, name: str, *, dtype: Any = None, param_dtype: Any = "float32") -> nn.LayerNorm:
    """Returns a LayerNorm that takes the variance from the mean, as the reference does."""
    return nn.LayerNorm(epsilon=eps, use_fast_variance=False, dtype=dtype, param_dtype=param_dtype, name=name)


def find_ends(tokens: Int[Array, "b t"], end: int) -> Int[Array, " b"]:
    """Returns the place of the first end of text of each row; of the first of the largest token where `end` is 2.
    A row without an end gives 0.

    >>> find_ends(jnp.array([[5, 9, 7, 7]]), 7).tolist(), find_ends(jnp.array([[5, 9, 7, 7]]), 2).tolist()
    ([2], [1])
    """
    return jnp.argmax(tokens if end == LEGACY_END else tokens == end, axis=-1)
