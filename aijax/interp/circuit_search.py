"""Circuits: which edges of a residual stream to keep.

The best by score, less what dangles; or ACDC (Conmy et al. 2023, algorithm 1), which visits edges from the output to
the input and drops each one without which the circuit H is less than tau further from the whole model G:

    D(G || H - e) - D(G || H) < tau
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.interp.contrast import Contrast, output
from aijax.interp.residual_graph import Graph
from aijax.typing import Array, Bool, Float, Int, PyTree


def top_edges(graph: Graph, scores: Float[Array, " edges"], number: Int[Array, ""]) -> Bool[Array, " edges"]:
    """Returns which edges are the `number` of largest absolute score, without those that dangle among them."""
    ranks = jnp.argsort(jnp.argsort(-jnp.abs(scores), stable=True))
    return prune_edges(graph, ranks < number)


def prune_edges(graph: Graph, kept: Bool[Array, " edges"]) -> Bool[Array, " edges"]:
    """Returns the edges that lie on a path of kept edges from the beginning of a stream to its end.

    >>> graph = Graph(("input", "a"), ("a", "output"), ((0, 0), (0, 1), (1, 1)), ((1,), ()), (), (), ())
    >>> prune_edges(graph, jnp.asarray([True, True, False])).tolist()
    [False, True, False]
    """
    rows, columns = graph.matrix_index
    feeds = np.zeros((len(graph.readers), len(graph.writers)), bool)
    for reader, fed in enumerate(graph.feeds):
        feeds[reader, list(fed)] = True
    begins, ends = ~feeds.any(0), ~feeds.any(1)

    def step(state):
        kept, _ = state
        table = graph.matrix(kept).astype(bool)
        reached = begins | (table.any(0)[:, None] & feeds).any(0)
        used = ends | (feeds & table.any(1)).any(1)
        left = kept & reached[rows] & used[columns]
        return left, (left != kept).any()

    kept = jnp.asarray(kept, bool)
    return jax.lax.while_loop(lambda state: state[1], step, (kept, jnp.asarray(True)))[0]


@partial(jax.jit, static_argnames="divergence")
def acdc(
    contrast: Contrast, threshold: float, *, divergence: Callable[[PyTree, PyTree], Array] | None = None
) -> tuple[Bool[Array, " edges"], Float[Array, " edges"]]:
    """Returns the edges that ACDC keeps, and by how much the distance grew when each was tried: one run an edge.

    Args:
      contrast: of `contrast`.
      threshold: tau, of the distance.
      divergence: of the output of a circuit from that of the whole model, a number such as the KL divergence; None for
        the mean over examples of the absolute difference of their targets.

    Raises:
      ConfigError: a divergence that is not a number.
    """
    count = len(contrast.graph.pairs)
    whole = output(contrast, jnp.zeros(count))
    if divergence is None:
        wanted = contrast.target(whole)
        divergence = lambda found, whole: jnp.mean(jnp.abs(contrast.target(found) - wanted))  # noqa: E731
    shape = jax.eval_shape(divergence, whole, whole)
    if getattr(shape, "shape", None) != ():
        raise ConfigError(f"divergence: expected a number, got {getattr(shape, 'shape', shape)}")

    def visit(state, edge):
        patched, now = state
        tried = patched.at[edge].set(1)
        then = divergence(output(contrast, tried), whole)
        dropped = then - now < threshold
        return (jnp.where(dropped, tried, patched), jnp.where(dropped, then, now)), then - now

    order = jnp.arange(count)[::-1]
    (patched, _), growth = jax.lax.scan(visit, (jnp.zeros(count), jnp.zeros_like(divergence(whole, whole))), order)
    return prune_edges(contrast.graph, patched == 0), growth[::-1]
