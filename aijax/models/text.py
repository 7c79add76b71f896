"""Text encoders: tokens to a feature for each and one for the whole text.

    x = E[tokens] + P,        features = Transformer(x),        pooled = W (features at one place)

`TextEncoder` is the text tower of CLIP (causal, pooled at the end of text: Radford et al. 2021, section 2.4) and of
SigLIP (pooled at the last place: Zhai et al. 2023) and the encoder of BERT (post-norm, segments: Devlin et al. 2019),
on the one transformer block. `CLIPText` is CLIP's with the fields of published configs.
"""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.models.block_spec import ACTIVATIONS, Activation, BlockSpec, Norm, norm
from aijax.models.embeddings import checked_indices
from aijax.models.transformer import Remat, Transformer, token_at
from aijax.parallel import keep_batch_split
from aijax.typing import Array, Bool, Float, Int

Pool = Literal["argmax", "end", "first", "last", "none"]

LEGACY_END = 2
"""The `eos_token_id` of configs that were published with a wrong one: the end is then the largest token."""
TEXT_ACTIVATIONS = {
    "quick_gelu": "gelu_quick", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu", "silu": "silu",
}  # fmt: skip
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


class TextEncoder(nn.Module):
    """A text encoder: tokens [b, t] -> `TextFeatures`.

    Attributes:
      vocab_size: number of tokens.
      context_length: most tokens it reads at once.
      width: of the residual stream.
      depth: number of blocks.
      num_heads: attention heads of a block.
      mlp_ratio, mlp_width: see `aijax.models.block_spec.BlockSpec`.
      causal: a token sees itself and those before it.
      pool: the place of the pooled feature: the first `end_token` ("end"), the first of the largest token ("argmax"),
        the "first" or the "last" place, or "none".
      end_token: the token that ends a text, for the pool "end".
      projection_width: of the pooled feature after a linear layer; None for no layer.
      projection_bias: whether that layer has a bias.
      projection_activation: after that layer; None for none.
      num_token_types: kinds of tokens ("segments") with a vector each; 0 for none.
      embedding_norm: a norm follows the embeddings.
      post_norm, norm, norm_epsilon, activation, layer_scale, qk_norm, dropout_rate, attention_dropout_rate, dtype,
      param_dtype: see `aijax.models.block_spec.BlockSpec`.
      stochastic_depth_rate, remat, scan: see `aijax.models.transformer.Transformer`.

    Raises, when it is traced:
      ConfigError: more tokens than `context_length`, tokens out of range where they are known (inside `jit` they give
        NaN), an unknown pool, no `end_token` for the pool "end".

    >>> import jax
    >>> model = TextEncoder(vocab_size=9, context_length=6, width=8, depth=1, num_heads=2, projection_width=5)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 4), int))[0].pooled.shape
    (2, 5)
    """

    vocab_size: int
    context_length: int
    width: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    mlp_width: int | None = None
    causal: bool = False
    pool: Pool = "last"
    end_token: int | None = None
    projection_width: int | None = None
    projection_bias: bool = False
    projection_activation: Activation | None = None
    num_token_types: int = 0
    embedding_norm: bool = False
    post_norm: bool = False
    norm: Norm = "layer"
    norm_epsilon: float = 1e-6
    activation: Activation = "gelu"
    layer_scale: float | None = None
    qk_norm: bool = False
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    stochastic_depth_rate: float = 0.0
    remat: Remat = "none"
    scan: bool | None = None
    dtype: Any = None
    param_dtype: Any = "float32"

    def setup(self):
        self.embedding = nn.Embed(
            self.vocab_size, self.width, self.dtype, self.param_dtype, nn.initializers.normal(0.02)
        )

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "b t"],
        *,
        mask: Bool[Array, "b t"] | None = None,
        token_types: Int[Array, "b t"] | None = None,
        with_features: bool = True,
        train: bool = False,
    ) -> TextFeatures:
        """Returns the features.

        Args:
          tokens: numbers from 0 to `vocab_size - 1`.
          mask: True for tokens that may be attended to, default all.
          token_types: numbers from 0 to `num_token_types - 1`, default 0.
          with_features: whether more than the pooled feature is wanted; if not, nothing else is returned.
          train: dropout and stochastic depth are on; they need the "dropout" rng.
        """
        if tokens.ndim != 2 or tokens.shape[1] > self.context_length:
            most = self.context_length
            raise ConfigError(f"tokens: expected [b, t] with at most {most} tokens, got shape {tokens.shape}")
        tokens = checked_indices("tokens", tokens, self.vocab_size)
        spec, init, dtype = self._spec(), nn.initializers.normal(0.02), jnp.dtype(self.param_dtype)
        x = self.embedding(tokens)
        positions = self.param("positions", init, (self.context_length, self.width), dtype)
        x = x + positions[: tokens.shape[1]].astype(x.dtype)
        if self.num_token_types:
            token_types = jnp.zeros_like(tokens) if token_types is None else token_types
            token_types = checked_indices("token_types", token_types, self.num_token_types)
            size = (self.num_token_types, self.width)
            x = x + nn.Embed(*size, self.dtype, self.param_dtype, init, name="token_types")(token_types)
        elif token_types is not None:
            raise ConfigError("token_types: the model has none (num_token_types is 0)")
        x = norm(spec, "embedding_norm")(x) if self.embedding_norm else x
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
        encoder = Transformer(self.depth, spec, self.stochastic_depth_rate, self.remat, self.scan, name="encoder")
        place = self._place(tokens)
        if not with_features and place is not None:
            return TextFeatures(None, self._projected(encoder(x, mask=mask, place=place, train=train)), ())
        last, hidden = encoder(x, mask=mask, train=train, with_hidden=True)
        return TextFeatures(last, None if place is None else self._projected(token_at(last, place)[:, 0]), hidden)

    def attend(self, x: Float[Array, "b t d"]) -> Float[Array, "b t v"]:
        """Returns the products of features with the vectors of the tokens."""
        return self.embedding.attend(x)

    def _spec(self) -> BlockSpec:
        return BlockSpec(
            self.num_heads, self.mlp_ratio, self.norm, self.norm_epsilon, self.activation, causal=self.causal,
            dropout_rate=self.dropout_rate, dtype=self.dtype, param_dtype=self.param_dtype, post_norm=self.post_norm,
            mlp_width=self.mlp_width, qk_norm=self.qk_norm, attention_dropout_rate=self.attention_dropout_rate,
            layer_scale=self.layer_scale,
        )  # fmt: skip

    def _place(self, tokens: Array) -> int | Array | None:
        """Where the pooled feature is, of all texts or of each."""
        if self.pool == "end" and self.end_token is None:
            raise ConfigError("end_token: the pool 'end' needs one, got None")
        places = {
            "none": lambda: None,
            "first": lambda: 0,
            "last": lambda: tokens.shape[1] - 1,
            "argmax": lambda: jnp.argmax(tokens, axis=-1),
            "end": lambda: jnp.argmax(tokens == self.end_token, axis=-1),
        }
        return choose(places, self.pool, "pool")()

    def _projected(self, pooled: Array) -> Array:
        pooled = keep_batch_split(pooled)
        if self.projection_width is None:
            return pooled
        width, bias = self.projection_width, self.projection_bias
        pooled = nn.Dense(width, bias, self.dtype, self.param_dtype, name="projection")(pooled)
        if self.projection_activation is not None:
            pooled = choose(ACTIVATIONS, self.projection_activation, "projection_activation")(pooled)
        return keep_batch_split(pooled)


class MaskedLanguageModel(nn.Module):
    """A text encoder that guesses tokens: tokens [b, t] -> logits [b, t, vocab_size] (Devlin et al. 2019, section 3.1).

    logits = Norm(act(W features + c)) E^T + b

    Attributes:
      encoder: gives the features.
      tied: E is the encoder's embedding; otherwise it is a parameter `head/kernel`.

    >>> import jax
    >>> model = MaskedLanguageModel(TextEncoder(9, 6, 8, 1, 2, post_norm=True, embedding_norm=True))
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 4), int))[0].shape
    (2, 4, 9)
    """

    encoder: TextEncoder
    tied: bool = True

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "b t"],
        *,
        mask: Bool[Array, "b t"] | None = None,
        token_types: Int[Array, "b t"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b t v"]:
        encoder = self.encoder
        dtypes = {"dtype": encoder.dtype, "param_dtype": encoder.param_dtype}
        x = encoder(tokens, mask=mask, token_types=token_types, train=train).last
        x = ACTIVATIONS[encoder.activation](nn.Dense(encoder.width, name="transform", **dtypes)(x))
        x = nn.LayerNorm(encoder.norm_epsilon, name="transform_norm", **dtypes)(x)
        bias = self.param("bias", nn.initializers.zeros, (encoder.vocab_size,), jnp.dtype(encoder.param_dtype))
        head = encoder.attend if self.tied else nn.Dense(encoder.vocab_size, False, name="head", **dtypes)
        return keep_batch_split(head(x) + bias.astype(x.dtype))


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

    >>> import jax
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

    def setup(self):
        self.tower = _clip_tower(self, None)
        nn.share_scope(self, self.tower)

    def __call__(self, tokens: Int[Array, "b t"]) -> TextFeatures:
        return self.tower(tokens)


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

    def setup(self):
        self.tower = _clip_tower(self, self.projection_dim)
        nn.share_scope(self, self.tower)

    def __call__(self, tokens: Int[Array, "b t"]) -> TextFeatures:
        return self.tower(tokens)


def _clip_tower(model: Any, projection_width: int | None) -> TextEncoder:
    width, heads = model.hidden_size, model.num_attention_heads
    if width % heads:
        raise ConfigError(f"num_attention_heads: expected a divisor of the width {width}, got {heads}")
    return TextEncoder(
        model.vocab_size, model.max_position_embeddings, width, model.num_hidden_layers, heads,
        mlp_width=model.intermediate_size, causal=True,
        pool="argmax" if model.eos_token_id == LEGACY_END else "end", end_token=model.eos_token_id,
        projection_width=projection_width, norm_epsilon=model.layer_norm_eps,
        activation=choose(TEXT_ACTIVATIONS, model.hidden_act, "hidden_act"), dtype=model.dtype,
        param_dtype=model.param_dtype,
    )  # fmt: skip
