"""Generation: a language model continues texts, one token after the other, in one compiled loop.

    token_{n+1} ~ softmax(logits_n / temperature), among the `top_k` likeliest and within the mass `top_p` (`generate`)
    tokens = argmax of log p(tokens) / length^penalty over the paths that a search of beams visits     (`beam_search`)

With a cache, a step reads one token and what is remembered of the others; the cache goes in and comes out as a value.
Without one, a step reads the last `window` tokens anew, so that any causal function serves. Sources: Holtzman et al.
2020 (top_p); Wu et al. 2016, section 7 (beams with a length penalty).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.models.transformer import Cache
from aijax.typing import Array, Bool, Callable, Float, Int, Params, PRNGKey

NEVER = -1e9
"""The log-probability of what may not be chosen; finite, so that sums of it compare."""


def generate(
    key: PRNGKey,
    apply_fn: Callable[..., Any],
    params: Params,
    prompt: Int[Array, "b p"],
    length: int,
    *,
    window: int | None = None,
    cache: Cache | None = None,
    mask: Bool[Array, "b p"] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    end_token: int | None = None,
    pad_token: int | None = None,
) -> Int[Array, "b p+length"]:
    """Returns the prompt followed by `length` tokens.

    Args:
      key: for drawing; unused when `temperature` is 0.
      apply_fn: with a cache `(params, tokens, cache) -> (logits, cache)`; without one `(params, tokens) -> logits`,
        causal: the logits at t do not depend on tokens after t.
      params: of `apply_fn`.
      prompt: at least one token.
      length: tokens to add.
      window: without a cache, most tokens that `apply_fn` reads at once, the model's `context_length`.
      cache: of a model that has read nothing, or nothing but a memory, with room for `p + length` tokens.
      mask: False for the padding on the left of shorter prompts; then `apply_fn` is also given `mask`
        `[b, size of the cache]` and `places` `[b, t]`.
      temperature: 0 takes the likeliest token.
      top_k, top_p: see `draw_token`.
      end_token: a text that has it is finished; the loop ends when all are.
      pad_token: what follows the end of a finished text; default `end_token`.

    Raises:
      ConfigError: an empty prompt, a negative temperature, a `top_k` below 1, a `top_p` not within (0, 1], neither a
        cache nor a window, a cache without room, a mask without a cache.
    """
    if temperature < 0:
        raise ConfigError(f"temperature: expected zero or more, got {temperature!r}")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k: expected at least 1, got {top_k!r}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"top_p: expected above 0 and at most 1, got {top_p!r}")
    reader = _Reader(apply_fn, params, prompt, length, window, cache, mask)
    pad_token = end_token if pad_token is None else pad_token
    keys = jax.random.split(key, length + 1)

    def extend(tokens: Array, count: Array, done: Array, logits: Array) -> tuple[Array, Array, Array]:
        token = draw_token(keys[count - prompt.shape[1]], logits, temperature=temperature, top_k=top_k, top_p=top_p)
        if end_token is not None:
            token = jnp.where(done, pad_token, token)
            done = done | (token == end_token)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, token.astype(tokens.dtype), count, axis=1)
        return tokens, count + 1, done

    def step(state: tuple) -> tuple:
        tokens, count, done, cache = state
        logits, cache = reader.next(tokens, count, cache)
        return *extend(tokens, count, done, logits), cache

    tokens, count = reader.room(pad_token), jnp.int32(prompt.shape[1])
    if length == 0:
        return tokens
    logits, cache = reader.first()
    state = *extend(tokens, count, jnp.zeros(len(prompt), bool), logits), cache
    if length > 1:
        state = jax.lax.while_loop(lambda state: (state[1] < tokens.shape[1]) & ~state[2].all(), step, state)
    return state[0]


def draw_token(
    key: PRNGKey,
    logits: Float[Array, "b v"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Int[Array, " b"]:
    """Returns a token for each row, drawn from softmax(logits / temperature).

    Args:
      key: unused when `temperature` is 0.
      logits: of each token.
      temperature: 0 takes the likeliest token.
      top_k: draw among the `top_k` likeliest tokens; None among all.
      top_p: then among the fewest likeliest tokens that have this probability together; None among all.

    >>> draw_token(jax.random.key(0), jnp.array([[0.0, 2.0, 1.0]]), top_p=0.5).tolist()
    [1]
    """
    if temperature == 0:
        return jnp.argmax(logits, axis=-1)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p is not None and top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        chances = jax.nn.softmax(ordered)
        needed = jnp.cumsum(chances, axis=-1) - chances < top_p
        least = jnp.min(jnp.where(needed, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return jax.random.categorical(key, logits, axis=-1)


class Beams(NamedTuple):
    """What a beam search found: the best texts first.

    Attributes:
      tokens: `[b, n, p + length]`; what follows the end of a text is padding.
      scores: log p(tokens) / length^penalty, `[b, n]`.
    """

    tokens: Array
    scores: Array


def beam_search(
    apply_fn: Callable[..., Any],
    params: Params,
    prompt: Int[Array, "b p"],
    length: int,
    *,
    num_beams: int,
    window: int | None = None,
    cache: Cache | None = None,
    mask: Bool[Array, "b p"] | None = None,
    length_penalty: float = 1.0,
    end_token: int | None = None,
    pad_token: int | None = None,
) -> Beams:
    """Returns the texts of greatest log p(tokens) / length^penalty that a search of `num_beams` paths finds.

    At each step the 2 n likeliest continuations of the n paths are looked at: those among the first n that end are
    finished texts, and the n likeliest that do not end go on. A prompt is done when its n finished texts are all better
    than its best path is now.

    Args:
      apply_fn, params, prompt, length, window, cache, mask, end_token, pad_token: see `generate`; the cache is for
        `b` texts.
      num_beams: n.
      length_penalty: 0 compares probabilities; greater values prefer longer texts.

    Raises:
      ConfigError: as `generate`; fewer than one beam, or a length of 0.
    """
    if num_beams < 1:
        raise ConfigError(f"num_beams: expected at least 1, got {num_beams!r}")
    if length < 1:
        raise ConfigError(f"length: expected at least 1, got {length!r}")
    (batch, start), n = prompt.shape, num_beams
    single = _Reader(apply_fn, params, prompt, length, window, cache, mask)
    reader = single.repeat(n)
    pad_token = end_token if pad_token is None else pad_token
    total = start + length

    def step(state: _Search, logits: Array, cache: Any) -> _Search:
        chances = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        chances = (chances.reshape(batch, n, -1) + state.scores[..., None]).reshape(batch, -1)
        scores, found = jax.lax.top_k(chances, 2 * n)
        beams, token = jnp.divmod(found, chances.shape[1] // n)
        tokens = _take(state.tokens, beams).at[:, :, state.count].set(token.astype(prompt.dtype))
        last = state.count + 1 == total
        ends = jnp.broadcast_to(last, token.shape) if end_token is None else last | (token == end_token)
        going, kept = jax.lax.top_k(scores + NEVER * ends, n)
        finished = ends & (jnp.arange(2 * n) < n) & state.open[:, None]
        final = jnp.where(finished, scores / (state.count + 1.0 - start) ** length_penalty, NEVER)
        pool = jnp.concatenate([state.final, final], axis=1)
        final, best = jax.lax.top_k(pool, n)
        texts = _take(jnp.concatenate([state.texts, tokens], axis=1), best)
        rows = (jnp.arange(batch)[:, None] * n + _take(beams, kept)).reshape(-1)
        hope = going[:, 0] / (state.count + 1.0 - start) ** length_penalty
        still_open = state.open & (hope > jnp.where(final > NEVER / 2, final, NEVER).min(axis=1))
        return _Search(_take(tokens, kept), going, texts, final, still_open, state.count + 1, _reorder(cache, rows))

    def advance(state: _Search) -> _Search:
        return step(state, *reader.next(state.tokens.reshape(batch * n, total), state.count, state.cache))

    tokens = jnp.broadcast_to(single.room(pad_token)[:, None], (batch, n, total))
    logits, cache = single.first()
    kind = jnp.promote_types(logits.dtype, jnp.float32)
    only_first = jnp.where(jnp.arange(n) == 0, 0.0, NEVER).astype(kind)
    state = _Search(
        tokens, jnp.broadcast_to(only_first, (batch, n)), tokens, jnp.full((batch, n), NEVER, kind),
        jnp.ones(batch, bool), jnp.int32(start), None,
    )  # fmt: skip
    state = step(state, jnp.repeat(logits, n, axis=0), _repeat(cache, batch, n))
    if length > 1:
        state = jax.lax.while_loop(lambda state: (state.count < total) & state.open.any(), advance, state)
    return Beams(state.texts, state.final)


class _Search(NamedTuple):
    """Paths that go on with their log-probabilities, and finished texts with their scores."""

    tokens: Array
    scores: Array
    texts: Array
    final: Array
    open: Array
    count: Array
    cache: Any


class _Reader:
    """How logits of the next token come about, with a cache or without."""

    def __init__(self, apply_fn, params, prompt, length, window, cache, mask):
        self.apply_fn, self.params, self.prompt, self.total = apply_fn, params, prompt, prompt.shape[1] + length
        self.window, self.cache, self.mask = window, cache, mask
        if prompt.shape[1] == 0:
            raise ConfigError("prompt: expected at least one token, got none")
        if cache is None and window is None:
            raise ConfigError("window: expected the model's context_length, or a cache, got neither")
        if cache is None and mask is not None:
            raise ConfigError("mask: prompts of several lengths need a cache")
        if cache is not None and cache.size < self.total - 1:
            raise ConfigError(f"cache: expected room for {self.total} tokens, got {cache.size}")

    def room(self, pad_token):
        """The prompt with padding for what is to come."""
        rest = (len(self.prompt), self.total - self.prompt.shape[1])
        return jnp.concatenate([self.prompt, jnp.full(rest, pad_token or 0, self.prompt.dtype)], axis=1)

    def repeat(self, n):
        mask = None if self.mask is None else jnp.repeat(self.mask, n, axis=0)
        prompt = jnp.repeat(self.prompt, n, axis=0)
        cache = self.cache
        return _Reader(self.apply_fn, self.params, prompt, self.total - prompt.shape[1], self.window, cache, mask)

    def first(self):
        """The logits after the prompt, and the cache with it."""
        if self.cache is None:
            return self.next(self.room(0), jnp.int32(self.prompt.shape[1]), None)
        places = None if self.mask is None else jnp.maximum(jnp.cumsum(self.mask, axis=1) - 1, 0)
        logits, cache = self.apply_fn(self.params, self.prompt, self.cache, **self._masked(places))
        return logits[:, -1], cache

    def next(self, tokens, count, cache):
        """The logits after `count` tokens, of which all but the last are in the cache."""
        if cache is None:
            window = min(self.window, self.total)
            first = jnp.maximum(0, count - window)
            seen = jax.lax.dynamic_slice_in_dim(tokens, first, window, axis=1)
            logits = self.apply_fn(self.params, seen)
            return jax.lax.dynamic_index_in_dim(logits, count - first - 1, axis=1, keepdims=False), None
        token = jax.lax.dynamic_slice_in_dim(tokens, count - 1, 1, axis=1)
        place = None if self.mask is None else (self.mask.sum(axis=1) + count - 1 - self.prompt.shape[1])[:, None]
        logits, cache = self.apply_fn(self.params, token, cache, **self._masked(place))
        return logits[:, -1], cache

    def _masked(self, places):
        if places is None:
            return {}
        rest = jnp.ones((len(self.mask), self.cache.size - self.mask.shape[1]), bool)
        return {"mask": jnp.concatenate([self.mask.astype(bool), rest], axis=1), "places": places}


def _take(rows, which):
    """The rows `[b, m, ...]` of `which` `[b, n]`."""
    return jnp.take_along_axis(rows, which.reshape(*which.shape, *(1,) * (rows.ndim - 2)), axis=1)


def _repeat(cache, batch, n):
    return _reorder(cache, jnp.repeat(jnp.arange(batch), n))


def _reorder(cache, rows):
    """The cache with the texts of `rows`; in that of a scanned stack the texts are the second axis."""
    if cache is None:
        return None
    layers = jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=leaf.ndim - 4), cache.layers)
    mask = cache.memory_mask
    return cache._replace(layers=layers, memory_mask=None if mask is None else jnp.take(mask, rows, axis=0))
