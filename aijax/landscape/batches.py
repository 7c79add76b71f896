"""Means over a data set that is given as one batch or as a list of batches.

A batch is any tree whose arrays count examples first. Batches of equal shapes are stacked once and then streamed by
`lax.scan`, so that what is worked out at a time is of one batch; a mean counts every example once.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, DataError
from aijax.typing import Any, Callable, PyTree


@functools.partial(jax.tree_util.register_dataclass, data_fields=["groups"], meta_fields=["weights"])
@dataclass(frozen=True)
class Batches:
    """Batches by shape: each group a tree `[k, b, ...]`, with the share that one batch of it has in the mean."""

    groups: tuple[PyTree, ...]
    weights: tuple[float, ...]


def as_batches(batches: Any) -> Batches:
    """Returns the batches of a list, or of one batch (anything that is no list).

    Raises:
      ConfigError: an empty list.
      DataError: a batch without examples, or whose arrays count different numbers of them.

    >>> as_batches([jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones((1, 3))]).weights
    (0.4, 0.2)
    """
    if isinstance(batches, Batches):
        return batches
    listed = batches if isinstance(batches, list) else [batches]
    if not listed:
        raise ConfigError("batches: expected at least one batch, got an empty list")
    counts = [_count(batch, index) for index, batch in enumerate(listed)]
    kinds: dict[Any, list[PyTree]] = {}
    for batch in listed:
        leaves, structure = jax.tree.flatten(batch)
        kinds.setdefault((structure, tuple((jnp.shape(a), jnp.result_type(a)) for a in leaves)), []).append(batch)
    sizes = [_count(group[0], 0) for group in kinds.values()]
    groups = tuple(jax.tree.map(lambda *leaves: jnp.stack(leaves), *group) for group in kinds.values())
    return Batches(groups, tuple(size / sum(counts) for size in sizes))


def mean_over(function: Callable[[PyTree], PyTree], batches: Batches) -> PyTree:
    """Returns the mean of `function(batch)` over all examples, where it is a mean over those of a batch."""
    totals = []
    for group, weight in zip(batches.groups, batches.weights, strict=True):
        first = jax.tree.map(lambda leaf: leaf[0], group)
        if len(jax.tree.leaves(group)[0]) == 1:
            total = function(first)
        else:
            zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(function, first))
            add = lambda total, batch: (jax.tree.map(jnp.add, total, function(batch)), None)  # noqa: E731
            total, _ = jax.lax.scan(add, zeros, group)
        totals.append(jax.tree.map(lambda leaf, weight=weight: weight * leaf, total))
    return functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), totals)


def _count(batch, index):
    counts = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    if len(counts) != 1 or counts <= {(), (0,)}:
        raise DataError(f"batches[{index}]: expected arrays that count the same examples first, got {sorted(counts)}")
    return counts.pop()[0]
