"""What a model makes of a whole set, each example counted once: the mean of metrics, or all outputs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aijax.data import evaluation_batches
from aijax.typing import Array, Batch, Params, PyTree


def make_evaluate_step(metrics: Callable[[Params, Batch], Mapping[str, Array]]) -> Callable[[Params, Batch], dict]:
    """Returns the compiled function that sums per-example metrics over the examples whose `mask` is 1.

    Args:
      metrics: `metrics(params, batch) -> {name: values}`, one value an example.

    Returns:
      `sums(params, batch) -> {name: sum} | {"count": examples}`; the batch has the key "mask" ([b], 0 for padding).
    """

    @jax.jit
    def sums(params: Params, batch: Batch) -> dict[str, Array]:
        mask = batch["mask"]
        values = metrics(params, {name: x for name, x in batch.items() if name != "mask"})
        # where, not a product: what a model makes of padding may be infinite
        totals = {name: jnp.sum(jnp.where(mask > 0, value, 0.0)) for name, value in values.items()}
        return totals | {"count": jnp.sum(mask)}

    return sums


def evaluate(sums: Callable[[Params, Batch], dict], params: Params, batches: Iterable[Batch]) -> dict[str, float]:
    """Returns `{metric: mean}` over all examples of `batches`, summed in float64."""
    parts = [sums(params, batch) for batch in batches]
    totals = {name: sum(np.float64(part[name]) for part in parts) for name in parts[0]}
    count = totals.pop("count")
    return {name: float(total / count) for name, total in totals.items()}


def outputs(function: Callable[[Batch], PyTree], source: Any, batch_size: int = 256) -> PyTree:
    """Returns what `function(batch)` gives for all examples of a source, in their order, one row each.

    Args:
      function: a pure function whose values have one row an example; it is compiled.
      source: of examples (see `aijax.data`).
      batch_size: examples at a time.
    """
    apply, pieces = jax.jit(function), []
    for batch in evaluation_batches(source, min(batch_size, len(source))):
        there = batch.pop("mask") > 0
        pieces.append(jax.tree.map(lambda x, there=there: x[there], apply(batch)))
    return jax.tree.map(lambda *rows: jnp.concatenate(rows), *pieces)
