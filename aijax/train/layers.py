"""Learning rates that fall from the last layer of a transformer to the first, for fine-tuning.

With L blocks and a decay d, the parameters of layer l learn at the rate `d^(L + 1 - l)` times the schedule's: l = 0 for
what makes tokens of the input (embedding, positions, class token), l = i + 1 for block i, and l = L + 1, the full rate,
for what follows the blocks (norm, pool, head). What was learned first, and is most general, changes least.

Source: H. Bao, L. Dong, F. Wei, BEiT (2022), appendix; K. Clark et al., ELECTRA (2020), appendix A.
"""

import re

import jax
import jax.numpy as jnp
import optax

from aijax.errors import ConfigError
from aijax.trees import map_named, named_leaves
from aijax.typing import Params, PyTree

BLOCK, STACKED = re.compile(r"(?:.*/)?block_(\d+)/.*"), re.compile(r"(?:.*/)?blocks/.*")
INPUT = re.compile(
    r"(?:.*/)?(?:embeddings?|stem_\d+|patch_embed\w*|\w*token|registers|\w*positions?\w*|\w*_embeddings?)(?:/.*)?"
)
"""Paths of what makes tokens of the input; blocks are looked for first."""


def layer_multipliers(params: Params, decay: float, where: str = "decay") -> PyTree:
    """Returns for each parameter `d^(L + 1 - l)`; for stacked blocks an array that broadcasts against the parameter.

    Args:
      params: of a model with blocks `block_0`, `block_1`, ... or, stacked, `blocks`; arrays or shapes.
      decay: d, above 0 and up to 1.
      where: the field's place in the config, for messages.

    Raises:
      ConfigError: a decay out of range, a model without blocks.

    >>> params = {"embedding": jnp.ones(2), "block_0": {"w": jnp.ones(2)}, "head": jnp.ones(2)}
    >>> layer_multipliers(params, 0.5)
    {'block_0': {'w': 0.5}, 'embedding': 0.25, 'head': 1.0}
    """
    if not 0 < decay <= 1:
        raise ConfigError(f"{where}: expected a number above 0 and up to 1, got {decay}")
    names = named_leaves(params)
    looped = [int(found[1]) for found in map(BLOCK.fullmatch, names) if found]
    stacked = [leaf.shape[0] for name, leaf in names.items() if STACKED.fullmatch(name)]
    if not looped and not stacked:
        raise ConfigError(f"{where}: the model has no blocks ('block_0', ...); its layers are not known")
    depth = max([index + 1 for index in looped] + stacked)

    def multiplier(name, leaf):
        if found := BLOCK.fullmatch(name):
            return decay ** (depth - int(found[1]))
        if STACKED.fullmatch(name):
            powers = decay ** jnp.arange(depth, 0, -1.0)
            return powers.reshape(-1, *[1] * (len(leaf.shape) - 1))
        return decay ** (depth + 1) if INPUT.fullmatch(name) else 1.0

    return map_named(multiplier, params)


def scale_by_layer(multipliers: PyTree) -> optax.GradientTransformation:
    """Returns what multiplies each update, that of the weight decay included, by its layer's rate."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda u, m: u * jnp.asarray(m, u.dtype), updates, multipliers), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
