"""Circuits of a model: the few edges that do what it does on a task, found, weighed and compared with random ones.

    circuit = circuit_discovery(apply_fn, params, inputs, target_behavior=lambda y: y[:, 0])
    circuit.edges()                         # [("a0.h3->a1.h1<k>", -8.8), ...]
    circuit.faithfulness, circuit.curves.cpr

A method gives each edge a score (`aijax.interp.contrast.edge_effects`, `aijax.interp.edge_scores`) and the circuit has
the edges of the largest, or it chooses the edges itself (`aijax.interp.circuit_search.acdc`).
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, choose, did_you_mean
from aijax.interp import edge_scores
from aijax.interp.circuit_curves import Curves, circuit_curves, default_sizes
from aijax.interp.circuit_search import acdc, top_edges
from aijax.interp.contrast import Contrast, contrast, edge_effects, outcomes
from aijax.interp.residual_graph import Graph
from aijax.typing import Any, Array, Bool, Float, PRNGKey, PyTree

METHODS = {
    "exact": edge_effects,
    "eap": edge_scores.edge_attribution,
    "eap_ig": edge_scores.integrated_inputs,
    "eap_ig_activations": edge_scores.integrated_activations,
    "atp_star": edge_scores.attention_rescored,
    "acdc": acdc,
}
"""What gives the scores, by name; see `circuit_discovery`."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Circuit:
    """Edges that do what a model does.

    Attributes:
      kept: which edges it has.
      scores: of all edges: an effect of patching the edge, exact or estimated; of ACDC, by how much the distance grew.
      faithfulness: f of the circuit, 1 for the whole model and 0 for none of its edges.
      completeness: 1 - f of all other edges.
      curves: of circuits by their size, chosen by the scores, beside random ones.
      graph: the edges that there are.
    """

    kept: Bool[Array, " edges"]
    scores: Float[Array, " edges"]
    faithfulness: Float[Array, ""]
    completeness: Float[Array, ""]
    curves: Curves
    graph: Graph = field(metadata={"static": True})

    def edges(self) -> list[tuple[str, float]]:
        """Returns its edges and their scores, the largest first."""
        scores = np.asarray(self.scores)
        order = np.argsort(-np.abs(scores), kind="stable")
        names = self.graph.edges
        return [(names[edge], float(scores[edge])) for edge in order if self.kept[edge]]


def circuit_discovery(
    apply_fn: Callable[[PyTree, PyTree], PyTree],
    params: PyTree,
    inputs: PyTree,
    *,
    target_behavior: Callable[[PyTree], Array],
    corrupted: PyTree | None = None,
    ablation: str = "mean",
    method: str = "exact",
    num_edges: int | None = None,
    faithfulness: float = 0.9,
    sizes: tuple[int, ...] | None = None,
    draws: int = 3,
    probes: int = 4,
    batch_size: int | None = None,
    key: PRNGKey | None = None,
    **options: Any,
) -> Circuit:
    """Returns the circuit of a behaviour, how faithful, complete and minimal it is, and random ones of its size.

    Args:
      apply_fn: a function with the taps of `aijax.interp.residual_graph`, such as that of a transformer.
      params: its parameters.
      inputs: arrays whose first axis is the example.
      target_behavior: of its output, a number for each example or one number, such as a difference of two logits.
      corrupted: inputs on which the behaviour is not to be had, alike in all else: what an edge carries on them takes
        its place when it is left out. Without them it is `ablation` of what it carries: its "mean" over the examples,
        or "zero".
      method: where scores are from.
        "exact": the effect of each edge alone, by a run for each: right, and as dear as there are edges.
        "eap": to first order, by one gradient.
        "eap_ig": by `steps` gradients (10) between the other input and this one.
        "eap_ig_activations": by `steps` gradients for each layer between its other values and these.
        "atp_star": as "eap", with attention computed anew for queries and keys; `grad_drop` (False).
        "acdc": edges are tried in turn and left out for good where the behaviour changes by less than `threshold`
          (None: a hundredth of what all edges together do); `divergence` as of `acdc`.
      num_edges: how many edges of the largest score the circuit has, less those that dangle; None for the fewest of
        `sizes` that are faithful enough. ACDC chooses itself.
      faithfulness: what is enough.
      sizes, draws, probes: of the curves, see `circuit_curves`; `num_edges` is one of the sizes.
      batch_size: runs at a time, which bounds the memory; None for as many as have 16 examples together.
      key: of random edges; None for key 0.
      options: of the method, as above.

    Raises:
      ConfigError: an unknown method or option, a function without taps, a target that is no number or depends on no
        edge, a number of edges that is not there.
      DataError: corrupted inputs of other shapes, the mean of one example, a behaviour that no edge changes.

    Conmy et al. 2023; Syed et al. 2023; Hanna et al. 2024; Kramar et al. 2024.
    """
    function = choose(METHODS, method, "method")
    taken = [name for name in inspect.signature(function).parameters if name not in ("contrast", "kept", "batch_size")]
    for name in options:
        if name not in taken:
            raise ConfigError(f"{name}: method {method!r} has no such option{did_you_mean(name, taken)}")
    if method == "acdc" and num_edges is not None:
        raise ConfigError(f"num_edges: 'acdc' chooses by its threshold, so expected None, got {num_edges}")
    behaviour = contrast(apply_fn, params, inputs, target_behavior, corrupted=corrupted, ablation=ablation)
    count = len(behaviour.graph.pairs)
    if num_edges is not None and not 1 <= num_edges <= count:
        raise ConfigError(f"num_edges: expected 1 to {count}, got {num_edges}")
    scores, kept = _scored(behaviour, method, batch_size, options)
    if num_edges is not None:
        sizes = tuple(sorted({*(default_sizes(count) if sizes is None else sizes), num_edges}))
    key = jax.random.key(0) if key is None else key
    curves = circuit_curves(key, behaviour, scores, sizes=sizes, draws=draws, probes=probes, batch_size=batch_size)
    if kept is None:
        return _best(behaviour.graph, scores, curves, num_edges, faithfulness)
    found = outcomes(behaviour, jnp.stack([~kept, kept]).astype(scores.dtype), batch_size=batch_size)
    f = (found - curves.none) / (curves.whole - curves.none)
    return Circuit(kept, scores, f[0], 1 - f[1], curves, behaviour.graph)


@partial(jax.jit, static_argnames=("graph", "num_edges"))
def _best(graph, scores, curves, num_edges, faithfulness):
    """The circuit of so many edges, one of the sizes of the curves; or of the fewest that are faithful enough."""
    best = curves.best
    enough = best.faithfulness >= faithfulness if num_edges is None else best.sizes == num_edges
    place, any_enough = jnp.argmax(enough), enough.any()
    kept = top_edges(graph, scores, jnp.where(any_enough, best.sizes[place], len(graph.pairs)))
    f, completeness = (jnp.where(any_enough, values[place], 1.0) for values in (best.faithfulness, best.completeness))
    return Circuit(kept, scores, f, completeness, curves, graph)


def _scored(behaviour: Contrast, method: str, batch_size: int | None, options: dict):
    """Scores of the edges, and which are kept where the method says so."""
    if method != "acdc":
        batched = {"batch_size": batch_size} if method in ("exact", "atp_star") else {}
        return METHODS[method](behaviour, **batched, **options), None
    if options.get("threshold") is None:
        count = len(behaviour.graph.pairs)
        whole, none = outcomes(behaviour, jnp.asarray([[0.0], [1.0]]) * jnp.ones(count), batch_size=batch_size)
        options = options | {"threshold": 0.01 * jnp.abs(whole - none)}
    kept, scores = acdc(behaviour, **options)
    return scores, kept
