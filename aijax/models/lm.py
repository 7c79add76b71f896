"""A language model: a causal transformer that gives, at each position, the logits of the next token.

    p(token_{t+1} | token_1 .. token_t) = softmax(Transformer(E[tokens] + position)_t E^T)

with the embedding E shared between input and output (Press and Wolf 2017).
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.models.block_spec import Activation, BlockSpec, Norm
from aijax.models.transformer import Remat, Transformer
from aijax.parallel import keep_batch_split
from aijax.typing import Array, Callable, Float, Int, Params, PRNGKey


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
      dropout_rate: of the embedded tokens, and of each branch.
      stochastic_depth_rate, remat, scan: see `aijax.models.transformer.Transformer`.
      norm, norm_epsilon, activation, dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.

    Raises, when it is traced:
      ConfigError: more tokens than `context_length`.

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

    @nn.compact
    def __call__(self, tokens: Int[Array, "b t"], *, train: bool = False) -> Float[Array, "b t v"]:
        length, dtypes = tokens.shape[1], {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if length > self.context_length:
            raise ConfigError(f"context_length: the model reads {self.context_length} tokens at once, got {length}")
        init = nn.initializers.normal(self.width**-0.5)
        embedding = nn.Embed(self.vocab_size, self.width, embedding_init=init, name="embedding", **dtypes)
        x = embedding(tokens)
        rotary = choose({"learned": False, "rotary": True}, self.positions, "positions")
        if not rotary:
            shape = (self.context_length, self.width)
            table = self.param("positions", nn.initializers.normal(0.02), shape, jnp.dtype(self.param_dtype))
            x = x + table[:length].astype(x.dtype)
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
        spec = BlockSpec(
            self.num_heads, self.mlp_ratio, self.norm, self.norm_epsilon, self.activation,
            causal=True, rotary=rotary, dropout_rate=self.dropout_rate, **dtypes,
        )  # fmt: skip
        decoder = Transformer(self.depth, spec, self.stochastic_depth_rate, self.remat, self.scan, name="decoder")
        x = decoder(x, train=train)
        head = embedding.attend if self.tied else nn.Dense(self.vocab_size, False, name="head", **dtypes)
        return keep_batch_split(head(x))


def generate(
    key: PRNGKey,
    apply_fn: Callable[[Params, Int[Array, "b t"]], Float[Array, "b t v"]],
    params: Params,
    prompt: Int[Array, "b p"],
    length: int,
    *,
    window: int,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Int[Array, "b p+length"]:
    """Returns the prompt followed by `length` tokens, each drawn from softmax(logits / temperature).

    Each token evaluates the last `window` tokens anew, so that any causal `apply_fn` serves.

    Args:
      key: for drawing; unused when `temperature` is 0.
      apply_fn: `(params, tokens) -> logits`, causal: the logits at t do not depend on tokens after t.
      params: of `apply_fn`.
      prompt: at least one token.
      length: tokens to add.
      window: most tokens that `apply_fn` reads at once, the model's `context_length`.
      temperature: 0 takes the likeliest token.
      top_k: draw among the `top_k` likeliest tokens; None among all.

    Raises:
      ConfigError: an empty prompt, a negative temperature or a `top_k` below 1.
    """
    if prompt.shape[1] == 0:
        raise ConfigError("prompt: expected at least one token, got none")
    if temperature < 0:
        raise ConfigError(f"temperature: expected zero or more, got {temperature!r}")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k: expected at least 1, got {top_k!r}")
    batch, start = prompt.shape
    window = min(window, start + length)
    tokens = jnp.concatenate([prompt, jnp.zeros((batch, length), prompt.dtype)], axis=1)

    def step(tokens: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
        position, key = now
        first = jnp.maximum(0, position - window)
        seen = jax.lax.dynamic_slice_in_dim(tokens, first, window, axis=1)
        logits = jax.lax.dynamic_index_in_dim(apply_fn(params, seen), position - first - 1, axis=1, keepdims=False)
        token = _draw(key, logits, temperature, top_k).astype(tokens.dtype)
        return jax.lax.dynamic_update_index_in_dim(tokens, token, position, axis=1), None

    positions = jnp.arange(start, start + length)
    return jax.lax.scan(step, tokens, (positions, jax.random.split(key, length)))[0]


def _draw(key: PRNGKey, logits: Float[Array, "b v"], temperature: float, top_k: int | None) -> Int[Array, "b"]:
    if temperature == 0:
        return jnp.argmax(logits, axis=-1)
    if top_k is not None and top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return jax.random.categorical(key, logits / temperature, axis=-1)
