"""Recursions cut into blocks that run side by side.

A recursion `state, y = step(state, x)` is sequential. Where the effect of a stretch of steps can be summarised in an
element, and two elements combined into that of both stretches, it can be cut into blocks of equal length:

    summarise   walk through all blocks at once, one lane each, and return an element for each
    prefixes    combine the elements: what comes before each block
    run         walk again through all blocks at once, each from its own state

Blocks of the whole length are the plain sequential recursion, blocks of length 1 with `parallel` the associative scan
of logarithmic depth (Blelloch 1990; Sarkka and Garcia-Fernandez 2021, IEEE Trans. Autom. Control 66, for filters).
Blocks of about sqrt(n) do twice the arithmetic of the former, in sqrt(n) steps on vectors of sqrt(n) lanes.

Inputs and outputs have their first axis over time. Steps see lanes in the last axis. A last block is filled up with
zeros, which a step must take as no step at all.
"""

import jax
import jax.numpy as jnp

from aijax.typing import Callable, PyTree


def summarise(absorb: Callable, unit: PyTree, xs: PyTree, block_length: int, *, reverse: bool = False) -> PyTree:
    """Returns the element of each block, lanes in the last axis.

    Args:
      absorb: `(element, x) -> element` with one step more.
      unit: the element of no step, for one lane: its leaves have no axis of lanes.
      xs: arrays `[n, ...]`.
      block_length: steps in a block.
      reverse: time runs backwards.
    """
    xs = _cut(xs, block_length)
    lanes = jax.tree.leaves(xs)[0].shape[-1]
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[..., None], (*leaf.shape, lanes)), unit)
    # recomputing a step costs less than keeping all that its derivative needs
    step = jax.checkpoint(lambda element, x: (absorb(element, x), None))
    return jax.lax.scan(step, start, xs, reverse=reverse)[0]


def prefixes(
    combine: Callable, start: PyTree, elements: PyTree, *, parallel: bool = False, reverse: bool = False
) -> tuple[PyTree, PyTree]:
    """Returns what comes before each block, `start` included, and the total; lanes in the first axis.

    Args:
      combine: `(earlier, later) -> element` of both, for any leading axes.
      start: the element before the first block.
      elements: of the blocks, lanes first.
      parallel: combine in a tree of logarithmic depth; otherwise one after the other, in half the operations.
      reverse: time runs backwards.
    """
    if not parallel:
        step = jax.checkpoint(combine)
        total, before = jax.lax.scan(lambda e, x: (step(e, x), e), start, elements, reverse=reverse)
        return before, total
    ordered = [elements, jax.tree.map(lambda leaf: leaf[None], start)]
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(ordered if reverse else ordered[::-1]))
    result = jax.lax.associative_scan(combine, joined, reverse=reverse)
    rest, end = (slice(1, None), 0) if reverse else (slice(None, -1), -1)
    return jax.tree.map(lambda leaf: leaf[rest], result), jax.tree.map(lambda leaf: leaf[end], result)


def run(step: Callable, states: PyTree, xs: PyTree, block_length: int, *, reverse: bool = False) -> PyTree:
    """Returns the outputs of all steps, `[n, ...]`.

    Args:
      step: `(state, x) -> (state, y)`.
      states: the state before each block, lanes in the last axis.
      xs, block_length, reverse: as of `summarise`.
    """
    n = len(jax.tree.leaves(xs)[0])
    _, ys = jax.lax.scan(jax.checkpoint(step), states, _cut(xs, block_length), reverse=reverse)
    return jax.tree.map(lambda leaf: _joined(leaf, n), ys)


def lanes_first(tree: PyTree) -> PyTree:
    """Returns the tree with the last axis of each array moved to the front."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), tree)


def lanes_last(tree: PyTree) -> PyTree:
    """Returns the tree with the first axis of each array moved to the end."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), tree)


def _cut(tree, length):
    """Returns `[n, ...]` as `[length, ..., blocks]`, zeros at the end of the last block."""

    def one(leaf):
        blocks = -(-len(leaf) // length)
        padded = jnp.pad(leaf, [(0, blocks * length - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))
        return jnp.moveaxis(padded.reshape(blocks, length, *leaf.shape[1:]), 0, -1)

    return jax.tree.map(one, tree)


def _joined(leaf, n):
    whole = jnp.moveaxis(leaf, -1, 0)
    return whole.reshape(-1, *whole.shape[2:])[:n]
