"""Tokens that excite a unit most: no token moves along a gradient, but the gradient says which exchange is favoured.

With e_i the embedding of token i of a text and g_i = da/de_i, putting token w in its place changes the activation by

    a(.., w, ..) - a  ~  g_i . (E_w - e_i)                                        (Ebrahimi et al. 2018, equation 3)

"hotflip" tries the exchanges of all positions that this says are best; "gcg" draws some at random from the best of each
position (Zou et al. 2023, algorithm 1), which gets out of where the first order misleads. The tries are evaluated
exactly, in batches, and the best is made if it is better than the text as it stands.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, choose
from aijax.interp.activation_maximization import check_activation
from aijax.interp.capture import activation_gradients
from aijax.typing import Array, Bool, Callable, Float, Int, PRNGKey


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TokenMaxima:
    """Where the restarts of a search came to, the best first.

    Attributes:
      tokens: `[restarts, t]`.
      value: the activation of each.
      history: before each step and at the end, `[restarts, steps + 1]`; it never falls.
    """

    tokens: Int[Array, "r t"]
    value: Float[Array, " r"]
    history: Float[Array, "r s"]


def maximize_tokens(
    key: PRNGKey,
    activation: Callable[[Array], Array],
    tokens: Int[Array, " t"],
    table: Float[Array, "v d"],
    *,
    method: str = "gcg",
    embedding: str = "embedding",
    free: Bool[Array, " t"] | None = None,
    allowed: Bool[Array, " v"] | None = None,
    candidates: int = 64,
    per_position: int = 16,
    steps: int = 32,
    restarts: int = 4,
    batch_size: int = 64,
) -> TokenMaxima:
    """Returns texts that excite a unit, each found from its own start by exchanging one token a step.

    Args:
      key: of the starts and the draws.
      activation: a scalar of tokens `[t]`.
      tokens: the text to begin with; further restarts begin with random tokens where it is free.
      table: the embedding of every token.
      method: "gcg" or "hotflip".
      embedding: name of the value that has the embeddings of the tokens (see `aijax.interp.capture`).
      free: positions that may change; None for all.
      allowed: tokens that may be put in; None for all.
      candidates: exchanges that are evaluated in a step.
      per_position: of how many at each position "gcg" draws.
      steps: of each restart.
      restarts: how many starts.
      batch_size: candidates that are evaluated at a time.

    Raises:
      ConfigError: an unknown method, a count below 1, more candidates than there are, no free position or no allowed
        token, a table or a value `embedding` that does not fit, an activation that is no scalar.

    >>> from aijax.taps import tap
    >>> table = jnp.eye(5)
    >>> search = lambda key: maximize_tokens(key, lambda w: tap("embedding", table[w])[0, 3], jnp.zeros(2, int), table)
    >>> jax.eval_shape(search, jax.random.key(0)).tokens.shape
    (4, 2)
    """
    propose = choose({"gcg": _draw, "hotflip": _best}, method, "method")
    tokens, table = jnp.asarray(tokens), jnp.asarray(table)
    size, width = table.shape
    length = len(tokens)
    free = np.ones(length, bool) if free is None else np.asarray(free, bool)
    allowed = np.ones(size, bool) if allowed is None else np.asarray(allowed, bool)
    for name, mask, count in (("free", free, length), ("allowed", allowed, size)):
        if mask.shape != (count,) or not mask.any():
            raise ConfigError(f"{name}: expected {count} booleans, not all false, got {list(mask.shape)}")
    counts = {"candidates": candidates, "per_position": per_position, "steps": steps, "restarts": restarts}
    for name, count in (counts | {"batch_size": batch_size}).items():
        if count < 1:
            raise ConfigError(f"{name}: expected 1 or more, got {count}")
    per_position = min(per_position, int(allowed.sum()))
    if method == "hotflip" and candidates > free.sum() * allowed.sum():
        raise ConfigError(f"candidates: expected at most {free.sum() * allowed.sum()} exchanges, got {candidates}")
    check_activation(activation, tokens, restarts)
    _check_embedding(activation, tokens, embedding, width)
    slopes = activation_gradients(activation, embedding)

    def step(state, key):
        tokens, value = state
        (slope,) = slopes(tokens)[1].values()
        slope = slope.reshape(length, width)
        gains = slope @ table.T - jnp.sum(slope * table[tokens], 1, keepdims=True)
        gains = jnp.where(free[:, None] & allowed, gains, -jnp.inf)
        places, words = propose(key, gains, free, candidates, per_position)
        tries = jax.vmap(lambda place, word: tokens.at[place].set(word.astype(tokens.dtype)))(places, words)
        values = jax.lax.map(activation, tries, batch_size=min(batch_size, candidates))
        best = jnp.argmax(values)
        better = values[best] > value
        state = jnp.where(better, tries[best], tokens), jnp.where(better, values[best], value)
        return state, state[1]

    def run(key, start):
        first = activation(start)
        (found, value), history = jax.lax.scan(step, (start, first), jax.random.split(key, steps))
        return found, value, jnp.concatenate([first[None], history])

    start_key, run_key = jax.random.split(key)
    words = jnp.asarray(np.flatnonzero(allowed), tokens.dtype)
    drawn = jax.random.choice(start_key, words, (restarts, length))
    starts = jnp.where(free, drawn, tokens).at[0].set(tokens)
    found, value, history = jax.vmap(run)(jax.random.split(run_key, restarts), starts)
    order = jnp.argsort(-value)
    return TokenMaxima(found[order], value[order], history[order])


def _best(key, gains, free, candidates, per_position):
    """The exchanges of largest gain, as positions and tokens."""
    return jnp.divmod(jax.lax.top_k(gains.reshape(-1), candidates)[1], gains.shape[1])


def _draw(key, gains, free, candidates, per_position):
    """Exchanges drawn from the best of each free position."""
    place_key, word_key = jax.random.split(key)
    places = jax.random.choice(place_key, jnp.asarray(np.flatnonzero(free)), (candidates,))
    words = jax.lax.top_k(gains, per_position)[1]
    return places, words[places, jax.random.randint(word_key, (candidates,), 0, per_position)]


def _check_embedding(activation, tokens, embedding, width):
    found = jax.eval_shape(lambda tokens: activation_gradients(activation, embedding)(tokens)[1], tokens)
    shapes = {name: getattr(value, "shape", None) for name, value in found.items()}
    sizes = [shape for shape in shapes.values() if shape is not None and shape[-1:] == (width,)]
    if len(shapes) != 1 or len(sizes) != 1 or int(np.prod(sizes[0])) != len(tokens) * width:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ConfigError(f"embedding: expected one value of {len(tokens)} rows of {width}, as the table's, got {told}")
