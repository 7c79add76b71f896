"""An encoder and a decoder of text: T5 (Raffel et al. 2020).

    memory = Encoder(E[tokens]),        logits = Decoder(E[tokens so far], memory) E^T / sqrt(d)

Both are pre-norm stacks with RMSNorm and without biases; positions enter as a bias of attention by distance, which all
blocks of a stack share; q . k is not scaled.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.models.block_spec import Activation, BlockSpec
from aijax.models.embeddings import checked_indices
from aijax.models.relative_bias import RelativeBias
from aijax.models.transformer import Cache, Remat, Transformer, empty_cache
from aijax.parallel import keep_batch_split
from aijax.typing import Array, Bool, Float, Int


class EncoderDecoder(nn.Module):
    """T5: tokens [b, s] and the tokens so far [b, t] -> logits of the next token [b, t, vocab_size].

    Attributes:
      vocab_size: number of tokens.
      width: of the residual stream.
      depth, decoder_depth: blocks of the encoder and of the decoder; without a decoder (0) the memory [b, s, d] is what
        the model gives.
      num_heads, head_width: attention heads of a block and the width of each.
      mlp_width, gated, activation, attention_dropout_rate, norm_epsilon, dtype, param_dtype: see
        `aijax.models.block_spec.BlockSpec`.
      dropout_rate: of the embeddings, of each branch, of what enters the MLP's second layer, and of the last features.
      num_buckets, max_distance: see `aijax.models.relative_bias.distance_bucket`.
      tied: the output's matrix is the embedding; otherwise it is a parameter `head/kernel`.
      scale_output: features are divided by sqrt(width) before the output's matrix.
      stochastic_depth_rate, remat, scan: see `aijax.models.transformer.Transformer`.

    Raises, when it is traced:
      ConfigError: tokens out of range where they are known (inside `jit` they give NaN).

    >>> import jax
    >>> model = EncoderDecoder(11, width=8, depth=1, decoder_depth=1, num_heads=2, head_width=4, mlp_width=16)
    >>> tokens = jnp.ones((2, 5), int), jnp.ones((2, 3), int)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), *tokens)[0].shape
    (2, 3, 11)
    """

    vocab_size: int
    width: int
    depth: int
    decoder_depth: int
    num_heads: int
    head_width: int
    mlp_width: int
    gated: bool = False
    activation: Activation = "relu"
    num_buckets: int = 32
    max_distance: int = 128
    tied: bool = True
    scale_output: bool = True
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    stochastic_depth_rate: float = 0.0
    norm_epsilon: float = 1e-6
    remat: Remat = "none"
    scan: bool | None = None
    dtype: Any = None
    param_dtype: Any = "float32"

    def setup(self):
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embedding = nn.Embed(self.vocab_size, self.width, embedding_init=nn.initializers.normal(1.0), **dtypes)
        self.dropout = nn.Dropout(self.dropout_rate)
        buckets = (self.num_heads, self.num_buckets, self.max_distance)
        self.encoder_bias = RelativeBias(*buckets, two_sided=True, **dtypes)
        self.encoder = self._stack(decodes=False)
        if self.decoder_depth:
            self.decoder_bias = RelativeBias(*buckets, two_sided=False, **dtypes)
            self.decoder = self._stack(decodes=True)
            if not self.tied:
                self.head = nn.Dense(self.vocab_size, use_bias=False, **dtypes)

    def __call__(
        self,
        tokens: Int[Array, "b s"],
        decoder_tokens: Int[Array, "b t"] | None = None,
        *,
        mask: Bool[Array, "b s"] | None = None,
        decoder_mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b t v"]:
        """Returns the logits, or the memory of a model without a decoder.

        Args:
          tokens: what the encoder reads.
          decoder_tokens: what the decoder has written, with the token that starts it.
          mask, decoder_mask: True for tokens that may be attended to, default all.
          train: dropout and stochastic depth are on; they need the "dropout" rng.
        """
        memory = self.encode(tokens, mask=mask, train=train)
        if not self.decoder_depth:
            return memory
        if decoder_tokens is None:
            raise ConfigError("decoder_tokens: expected what the decoder has written, got None")
        return self.decode(decoder_tokens, memory, mask=decoder_mask, memory_mask=mask, train=train)

    def encode(
        self, tokens: Int[Array, "b s"], *, mask: Bool[Array, "b s"] | None = None, train: bool = False
    ) -> Float[Array, "b s d"]:
        """Returns the memory."""
        places = jnp.arange(tokens.shape[1])
        x = self.encoder(self._embed(tokens, train), mask=mask, bias=self.encoder_bias(places, places), train=train)
        return self.dropout(x, deterministic=not train)

    def decode(
        self,
        tokens: Int[Array, "b t"],
        memory: Float[Array, "b s d"] | None,
        *,
        mask: Bool[Array, "b t"] | None = None,
        memory_mask: Bool[Array, "b s"] | None = None,
        cache: Cache | None = None,
        train: bool = False,
    ) -> Any:
        """Returns the logits, and the cache where there is one.

        Args:
          tokens: what the decoder has written; with a cache they come after those in it.
          memory: of `encode`; None where the cache has its keys and values.
          mask: True for tokens that may be attended to, default all.
          memory_mask: True for the memory's tokens that may be attended to, default all.
          cache: of `remember`, or of the call before.
          train: dropout and stochastic depth are on; they need the "dropout" rng.
        """
        queries = jnp.arange(tokens.shape[1])
        keys = queries if cache is None else jnp.arange(cache.size)
        queries = queries if cache is None else queries + cache.length
        x = self.decoder(
            self._embed(tokens, train), mask=mask, bias=self.decoder_bias(queries, keys), memory=memory,
            memory_mask=memory_mask, cache=cache, train=train,
        )  # fmt: skip
        x, *new = x if cache is not None else (x,)
        x = self.dropout(x, deterministic=not train)
        x = x * self.width**-0.5 if self.scale_output else x
        logits = keep_batch_split(self.embedding.attend(x) if self.tied else self.head(x))
        return (logits, *new) if cache is not None else logits

    def remember(
        self, memory: Float[Array, "b s d"], size: int, *, memory_mask: Bool[Array, "b s"] | None = None
    ) -> Cache:
        """Returns the cache of a decoder that has read nothing but the memory, with room for `size` tokens."""
        decoder = Transformer(self.decoder_depth, self._spec(decodes=True), scan=self.scan, parent=None)
        cache = empty_cache(decoder, self.width, memory.shape[0], size, memory.shape[1])
        any_token = jnp.zeros((memory.shape[0], 1), jnp.int32)
        _, cache = self.decode(any_token, memory, memory_mask=memory_mask, cache=cache)
        return cache._replace(length=jnp.zeros_like(cache.length))

    def _embed(self, tokens: Array, train: bool) -> Array:
        tokens = checked_indices("tokens", tokens, self.vocab_size)
        return self.dropout(self.embedding(tokens), deterministic=not train)

    def _stack(self, *, decodes: bool) -> Transformer:
        depth = self.decoder_depth if decodes else self.depth
        return Transformer(depth, self._spec(decodes=decodes), self.stochastic_depth_rate, self.remat, self.scan)

    def _spec(self, *, decodes: bool) -> BlockSpec:
        return BlockSpec(
            self.num_heads, norm="rms", norm_epsilon=self.norm_epsilon, activation=self.activation, causal=decodes,
            dropout_rate=self.dropout_rate, dtype=self.dtype, param_dtype=self.param_dtype, cross_attention=decodes,
            mlp_width=self.mlp_width, gated=self.gated, biases=(), head_width=self.head_width, attention_scale=1.0,
            attention_dropout_rate=self.attention_dropout_rate, mlp_dropout_rate=self.dropout_rate,
        )  # fmt: skip
