"""Runs with edges of the residual stream patched (Wang et al. 2022, path patching; Conmy et al. 2023).

An edge from a writer w to a reader r is given another value w' apart from all others:

    x_r  <-  x_r + sum_w m_wr (w' - w)        m_wr: 1 where the edge is patched, 0 where it is left

with w as it is in this run, so that all edges patched give the run that w' comes from. The m_wr are traced, so that one
program serves all choices of edges.
"""

import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from aijax.interp.residual_graph import TAPS, Graph
from aijax.interp.walk import UnrolledWalk, compiled, trace
from aijax.typing import Array, Float, PyTree


def visit(
    apply_fn: Callable[..., PyTree],
    graph: Graph,
    *,
    write: Callable[[int, Array], Array] = lambda number, value: value,
    read: Callable[[int, Array], Array] = lambda number, value: value,
    others: Mapping[str, Callable[[int, Array], Array]] = {},
) -> Callable[..., PyTree]:
    """Returns the function with a stop at each writer and reader, in the order of the run.

    Args:
      apply_fn: the function that the graph is of. Scans over its taps are unrolled, checkpoints opened.
      graph: of `residual_graph`.
      write: `(number of the writers' site, value) -> value` that takes its place.
      read: the same of readers.
      others: more taps by name: `(occurrence, value) -> value`.
    """
    stops = {(site.name, site.occurrence): (write, number) for number, site in enumerate(graph.writer_sites)}
    stops |= {(site.name, site.occurrence): (read, number) for number, site in enumerate(graph.reader_sites)}
    names = sorted({name for name, _ in stops} | set(others))

    def run(*args):
        program, structure = trace(apply_fn, compiled([TAPS, *map(re.escape, names)]), args, {})
        seen = dict.fromkeys(names, 0)

        def stop(name, value, feed, turn):
            occurrence, seen[name] = seen[name], seen[name] + 1
            change, number = (others[name], occurrence) if name in others else stops[name, occurrence]
            return change(number, value), None

        walk = UnrolledWalk(stop, set(names))
        outputs, _ = walk.run(program.jaxpr, program.consts, jax.tree.leaves(args), {}, None)
        return jax.tree.unflatten(structure, outputs)

    return run


def writer_values(apply_fn: Callable[..., PyTree], graph: Graph) -> Callable[..., tuple[Array, ...]]:
    """Returns a function of the same arguments that gives what was written at each of the writers' sites."""

    def run(*args):
        written = []
        visit(apply_fn, graph, write=lambda number, value: written.append(value) or value)(*args)
        return tuple(written)

    return run


def patch_edges(apply_fn: Callable[..., PyTree], graph: Graph) -> Callable[..., PyTree]:
    """Returns `run(others, patched, *args)`: the function with other values on some edges.

    `others` are values of `writer_values` in another run, and `patched` `[edges]` says how much of each edge's value is
    the other: 0 for none, 1 for all of it.
    """

    def run(others, patched, *args):
        table, changes = graph.matrix(patched), EdgeChanges(graph)

        def write(number, value):
            changes.write(number, others[number] - value)
            return value

        def read(number, value):
            return value + changes.read(number, table).astype(value.dtype)

        return visit(apply_fn, graph, write=write, read=read)(*args)

    return run


class EdgeChanges:
    """By how much the values of writers differ from others, kept for the readers while a run lasts."""

    def __init__(self, graph: Graph):
        table = np.zeros((len(graph.writers), len(graph.readers)), bool)
        table[graph.matrix_index] = True
        self._before = [
            tuple(number for number, end in enumerate(graph.writer_sites) if table[end.rows, site.rows].any())
            for site in graph.reader_sites
        ]
        self._graph, self._written, self._stacked = graph, {}, {}

    def write(self, number: int, change: Array) -> None:
        """Keeps the change of a writers' site, `[..., d]` or `[..., parts, d]`."""
        self._written[number] = change if self._graph.writer_sites[number].parts else change[..., None, :]

    def before(self, number: int) -> tuple[np.ndarray, Array]:
        """Returns the writers with edges to a readers' site, and their changes `[..., writers, d]`."""
        sites = self._before[number]
        if sites not in self._stacked:
            self._stacked[sites] = jnp.concatenate([self._written[each] for each in sites], axis=-2)
        writers = np.concatenate([self._graph.writer_sites[each].numbers for each in sites])
        return writers, self._stacked[sites]

    def read(self, number: int, table: Float[Array, "writers readers"]) -> Array:
        """Returns what a readers' site is to add, given how much of each edge is patched."""
        site = self._graph.reader_sites[number]
        writers, change = self.before(number)
        shares = table[writers, site.rows].astype(change.dtype).T
        added = jnp.broadcast_to(shares, (*change.shape[:-2], *shares.shape)) @ change
        return added if site.parts else added[..., 0, :]
