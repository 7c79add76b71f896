"""A language model: a causal transformer that gives, at each position, the logits of the next token.

    p(token_{t+1} | token_1 .. token_t) = softmax(Transformer(E[tokens] + position)_t E^T)

with the embedding E shared between input and output (Press and Wolf 2017) or not. The defaults are GPT-2's block
(Radford et al. 2019); with `norm="rms"`, `activation="silu"`, `gated=True`, `positions="rotary"`, `biases=()` it is
Llama's (Touvron et al. 2023).
"""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.models.block_spec import LAYERS, Activation, BlockSpec, Norm
from aijax.models.embeddings import checked_indices
from aijax.models.rotary import BASE, frequencies, rotary_angles, scaled_frequencies
from aijax.models.transformer import Cache, Remat, Transformer, empty_cache
from aijax.parallel import keep_batch_split
from aijax.taps import tap_in
from aijax.typing import Array, Bool, Int


class LanguageModel(nn.Module):
    """A decoder-only transformer: tokens [b, t] -> logits [b, t, vocab_size].

    Attributes:
      vocab_size: number of tokens.
      context_length: most tokens it reads at once.
      width: of the residual stream.
      depth: number of blocks.
      num_heads: attention heads of a block.
      mlp_ratio: width of the MLP over `width`.
      positions: "learned" (a table) or "rotary" (Su et al. 2021).
      tied: the output's matrix is the embedding; otherwise it is a parameter `head/kernel`.
      num_outputs: number of tokens that logits are given for, where the head is not tied; None for `vocab_size`.
      head_bias: the head has one, where it is not tied.
      logit_soft_cap: logits y become cap tanh(y / cap) (Gemma Team 2024); None for no cap.
      dropout_rate: of the embedded tokens, and of each branch.
      stochastic_depth_rate, remat, scan: see `aijax.models.transformer.Transformer`.
      norm, norm_epsilon, activation, dtype, param_dtype, mlp_width, gated, biases, head_width, num_kv_heads,
      attention_scale, scale_by_depth, attention_dropout_rate, implementation, output_norm, parallel,
        attention_soft_cap, rotary_interleaved: see `aijax.models.block_spec.BlockSpec`.
      rotary_base: of the frequencies of rotary positions.
      rotary_scaling: how these are changed for long texts, see `aijax.models.rotary.scaled_frequencies`.
      rotary_width: channels of a head that are turned, the first; None for all.
      rotary_dtype: of the angles; "float32" as in published models, or "float64" where no `rotary_scaling` is asked
        for.

    What is tapped: "position_embedding" `[t, d]` of learned positions, beside what is tapped in the blocks.

    Raises, when it is traced:
      ConfigError: more tokens than `context_length` (which frequencies that change with the length, "dynamic", may
        exceed); tokens out of range where they are known, inside `jit` they give NaN.

    >>> import jax
    >>> model = LanguageModel(vocab_size=11, context_length=8, width=8, depth=1, num_heads=2)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 5), jnp.int32))[0].shape
    (2, 5, 11)
    """

    vocab_size: int
    context_length: int
    width: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    positions: Literal["learned", "rotary"] = "learned"
    tied: bool = True
    dropout_rate: float = 0.0
    stochastic_depth_rate: float = 0.0
    norm: Norm = "layer"
    norm_epsilon: float = 1e-6
    activation: Activation = "gelu_tanh"
    remat: Remat = "none"
    scan: bool | None = None
    dtype: Any = None
    param_dtype: Any = "float32"
    mlp_width: int | None = None
    gated: bool = False
    biases: tuple[str, ...] = LAYERS
    head_width: int | None = None
    num_kv_heads: int | None = None
    attention_scale: float | None = None
    scale_by_depth: bool = False
    attention_dropout_rate: float = 0.0
    implementation: Literal["xla", "cudnn"] | None = None
    rotary_base: float = BASE
    rotary_scaling: Mapping[str, Any] | None = None
    rotary_width: int | None = None
    rotary_interleaved: bool = False
    rotary_dtype: Any = "float32"
    num_outputs: int | None = None
    head_bias: bool = False
    logit_soft_cap: float | None = None
    output_norm: bool = False
    parallel: bool = False
    attention_soft_cap: float | None = None

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "b t"],
        *,
        mask: Bool[Array, "b s"] | None = None,
        places: Int[Array, "b t"] | None = None,
        cache: Cache | None = None,
        place: int | Int[Array, "b"] | None = None,
        train: bool = False,
    ) -> Any:
        """Returns the logits, and the cache where there is one.

        Args:
          tokens: numbers from 0 to `vocab_size - 1`; with a cache they come after those in it.
          mask: True for tokens that may be attended to, default all; s is t, or the cache's size.
          places: positions of the tokens, default from 0 on, or from the cache's length on.
          cache: of `empty_cache`, or of the call before.
          place: the only token whose logits are wanted, `[b, vocab_size]`, of all texts or of each: as far as it can,
            the last block computes no other (see `aijax.models.transformer.Transformer`). Not with a cache.
          train: dropout and stochastic depth are on; they need the "dropout" rng.
        """
        length, dtypes = tokens.shape[1], {"dtype": self.dtype, "param_dtype": self.param_dtype}
        size = length if cache is None else cache.size
        rotary = choose({"learned": False, "rotary": True}, self.positions, "positions")
        if self.tied and (self.num_outputs is not None or self.head_bias):
            raise ConfigError("tied: num_outputs and head_bias need a head of its own, so expected False, got True")
        if place is not None and cache is not None:
            raise ConfigError("place: logits of one token alone are for calls without a cache, got one")
        dynamic = (self.rotary_scaling or {}).get("rope_type") == "dynamic"
        if max(length, size) > self.context_length and not (rotary and dynamic):
            raise ConfigError(f"context_length: the model reads {self.context_length} tokens at once, got {size}")
        tokens = checked_indices("tokens", tokens, self.vocab_size)
        at_start = places is None and cache is None
        if places is None:
            places = jnp.arange(length) + (0 if cache is None else cache.length)
        init = nn.initializers.normal(self.width**-0.5)
        embedding = nn.Embed(self.vocab_size, self.width, embedding_init=init, name="embedding", **dtypes)
        x = embedding(tokens)
        angles, spec = None, self._spec()
        if rotary:
            angles = rotary_angles(places, self._frequencies(size)[0], self.rotary_dtype)
        else:
            shape = (self.context_length, self.width)
            table = self.param("positions", nn.initializers.normal(0.02), shape, jnp.dtype(self.param_dtype))
            rows = tap_in(self, "position_embedding", table[:length] if at_start else jnp.take(table, places, axis=0))
            x = x + rows.astype(x.dtype)
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
        decoder = Transformer(self.depth, spec, self.stochastic_depth_rate, self.remat, self.scan, name="decoder")
        x = decoder(x, mask=mask, angles=angles, cache=cache, place=place, train=train)
        x, *new = x if cache is not None else (x,)
        head = embedding.attend if self.tied else self._head()
        logits = keep_batch_split(head(x))
        if self.logit_soft_cap is not None:
            logits = self.logit_soft_cap * jnp.tanh(logits / self.logit_soft_cap)
        return (logits, *new) if cache is not None else logits

    def empty_cache(self, batch: int, size: int, dtype: Any = None) -> Cache:
        """Returns the cache of a model that has read nothing, for `size` tokens of `batch` texts."""
        decoder = Transformer(self.depth, self._spec(), scan=self.scan, parent=None)
        return empty_cache(decoder, self.width, batch, size, dtype=dtype)

    def _spec(self) -> BlockSpec:
        scale = self.attention_scale
        if self.positions == "rotary" and (factor := self._frequencies(1)[1]) != 1.0:
            scale = factor**2 * ((self._head_width() ** -0.5) if scale is None else scale)
        return BlockSpec(
            self.num_heads, self.mlp_ratio, self.norm, self.norm_epsilon, self.activation, causal=True,
            dropout_rate=self.dropout_rate, dtype=self.dtype, param_dtype=self.param_dtype, mlp_width=self.mlp_width,
            gated=self.gated, biases=self.biases, head_width=self.head_width, num_kv_heads=self.num_kv_heads,
            attention_scale=scale, scale_by_depth=self.scale_by_depth,
            attention_dropout_rate=self.attention_dropout_rate, implementation=self.implementation,
            output_norm=self.output_norm, parallel=self.parallel, attention_soft_cap=self.attention_soft_cap,
            rotary_interleaved=self.rotary_interleaved,
        )  # fmt: skip

    def _head(self) -> nn.Module:
        outputs = self.vocab_size if self.num_outputs is None else self.num_outputs
        return nn.Dense(outputs, self.head_bias, dtype=self.dtype, param_dtype=self.param_dtype, name="head")

    def _head_width(self) -> int:
        return self.head_width or self.width // self.num_heads

    def _frequencies(self, length: int) -> tuple[Any, float]:
        width = self.rotary_width or self._head_width()
        if self.rotary_scaling is None:
            return frequencies(width, self.rotary_base, self.rotary_dtype), 1.0
        if jnp.dtype(self.rotary_dtype) != jnp.float32:
            raise ConfigError(f"rotary_dtype: expected float32 with rotary_scaling, got {self.rotary_dtype!r}")
        return scaled_frequencies(
            width, self.rotary_base, self.rotary_scaling, context_length=self.context_length, length=length
        )
