"""A behaviour of a model on a batch, beside what its components would write in another run.

    F(m) = mean over examples of target(apply_fn(params, inputs))  with the edges m patched (`aijax.interp.edges`)

The other values w' are those of a run on corrupted inputs, an example for an example; or, where there are none, what
tells least: a writer's mean over the batch at each position (Wang et al. 2022), or zero.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, DataError, choose
from aijax.interp.edges import patch_edges, writer_values
from aijax.interp.residual_graph import Graph, residual_graph
from aijax.interp.walk import unjitted
from aijax.typing import Array, Float, PyTree

STATIC = {"static": True}
EXAMPLES_AT_A_TIME = 16
ABLATIONS = {
    "mean": lambda value: value.mean(0, keepdims=True),
    "zero": lambda value: jnp.zeros_like(value[:1]),
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Contrast:
    """A behaviour, and another value of everything that is written: see `contrast`.

    Attributes:
      params, inputs: of the function.
      others: values of the writers' sites in the other run; their first axis is the examples', or 1.
      apply_fn: `apply_fn(params, inputs)`.
      target: of its output, a number or one for each example.
      graph: the edges.
    """

    params: PyTree
    inputs: PyTree
    others: tuple[Array, ...]
    apply_fn: Callable = field(metadata=STATIC)
    target: Callable = field(metadata=STATIC)
    graph: Graph = field(metadata=STATIC)


def contrast(
    apply_fn: Callable[[PyTree, PyTree], PyTree],
    params: PyTree,
    inputs: PyTree,
    target_behavior: Callable[[PyTree], Array],
    *,
    corrupted: PyTree | None = None,
    ablation: str = "mean",
) -> Contrast:
    """Returns the behaviour of a model on a batch, with what takes the place of an edge's value when it is patched.

    Args:
      apply_fn: a function with the taps of `aijax.interp.residual_graph`.
      params: its parameters.
      inputs: arrays whose first axis is the example.
      target_behavior: of its output, a number for each example, or one number.
      corrupted: inputs of the other run, of the same shapes: example i of the one is compared with i of the other.
      ablation: where there are none, "mean" over the examples or "zero".

    Raises:
      ConfigError: a function without taps, a target that is no number or depends on no edge, an unknown ablation.
      DataError: corrupted inputs of other shapes; the mean of one example.
    """
    choose(ABLATIONS, ablation, "ablation")
    apply_fn = unjitted(apply_fn)
    examples = jnp.shape(jax.tree.leaves(inputs)[0])[0]
    shape = jax.eval_shape(lambda params, inputs: target_behavior(apply_fn(params, inputs)), params, inputs)
    if getattr(shape, "shape", None) not in ((), (examples,)) or not jnp.issubdtype(shape.dtype, jnp.floating):
        found = f"{shape.dtype}{list(shape.shape)}" if hasattr(shape, "shape") else jax.tree.structure(shape)
        raise ConfigError(f"target_behavior: expected a number, or one for each of {examples} examples, got {found}")
    graph = residual_graph(lambda params, inputs: target_behavior(apply_fn(params, inputs)), params, inputs)
    values = jax.jit(writer_values(apply_fn, graph))
    if corrupted is not None:
        _check_alike(inputs, corrupted)
        others = values(params, corrupted)
    else:
        if ablation == "mean" and examples == 1:
            raise DataError(
                "inputs: the mean over one example is the example; expected more of them, corrupted inputs, or "
                "ablation 'zero'"
            )
        others = jax.tree.map(ABLATIONS[ablation], values(params, inputs))
    return Contrast(params, inputs, others, apply_fn, target_behavior, graph)


@jax.jit
def outcome(contrast: Contrast, patched: Float[Array, " edges"]) -> Float[Array, ""]:
    """Returns F, the mean of the target over examples, with edges patched: 1 where an edge's value is the other."""
    return jnp.mean(contrast.target(output(contrast, patched)))


@jax.jit
def output(contrast: Contrast, patched: Float[Array, " edges"]) -> PyTree:
    """Returns the output of the function with some edges patched."""
    run = patch_edges(contrast.apply_fn, contrast.graph)
    return run(contrast.others, patched, contrast.params, contrast.inputs)


@partial(jax.jit, static_argnames="batch_size")
def outcomes(
    contrast: Contrast, patched: Float[Array, "n edges"], *, batch_size: int | None = None
) -> Float[Array, " n"]:
    """Returns F for each of n choices of patched edges, as one program that has `batch_size` of them at a time.

    A choice takes the memory of a run, so the batch bounds that of all; None for as many as have 16 examples together.
    """
    return map_runs(contrast, partial(outcome, contrast), patched, batch_size)


@partial(jax.jit, static_argnames="batch_size")
def edge_effects(
    contrast: Contrast, kept: Float[Array, " edges"] | None = None, *, batch_size: int | None = None
) -> Float[Array, " edges"]:
    """Returns for each edge F with it patched less F without: its exact effect, by a run for each.

    Args:
      contrast: of `contrast`.
      kept: edges of a circuit, 1 for those it has: all others are patched from the start, and have no effect.
        None for all edges.
      batch_size: runs at a time; None for as many as have 16 examples together.
    """
    count = len(contrast.graph.pairs)
    kept = jnp.ones(count) if kept is None else jnp.asarray(kept, float)
    start = outcome(contrast, 1 - kept)

    def effect(edge):
        return outcome(contrast, (1 - kept).at[edge].set(1)) - start

    return map_runs(contrast, effect, jnp.arange(count), batch_size)


def map_runs(contrast: Contrast, run: Callable[[PyTree], PyTree], cases: PyTree, batch_size: int | None) -> PyTree:
    """Returns `run(case)` for each case along the first axis, some at a time; None for 16 examples in all.

    Raises:
      ConfigError: a batch size below 1.
    """
    if batch_size is None:
        batch_size = max(1, EXAMPLES_AT_A_TIME // jnp.shape(jax.tree.leaves(contrast.inputs)[0])[0])
    if batch_size < 1:
        raise ConfigError(f"batch_size: expected at least 1, got {batch_size}")
    return jax.lax.map(run, cases, batch_size=None if batch_size == 1 else batch_size)


def _check_alike(inputs, corrupted):
    shapes = [[(np.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(x)] for x in (inputs, corrupted)]
    if jax.tree.structure(inputs) != jax.tree.structure(corrupted):
        raise DataError(
            f"corrupted: expected the tree of inputs, {jax.tree.structure(inputs)}, got {jax.tree.structure(corrupted)}"
        )
    for (shape, dtype), (other, other_dtype) in zip(*shapes, strict=True):
        if shape != other or dtype != other_dtype:
            raise DataError(
                f"corrupted: expected the shape of inputs, {dtype}{list(shape)}, got {other_dtype}{list(other)}; "
                "sequences are to be of equal length"
            )
