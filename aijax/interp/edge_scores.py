"""Estimates of what each edge of a residual stream matters, by gradients: a few runs for all edges.

With w a writer's value, w' the other, and x_r the input of a reader, the exact effect of patching the edge
(`aijax.interp.contrast.edge_effects`) is to first order

    s_wr = (w' - w) . dF/dx_r        summed over examples and positions

    EAP                      dF/dx_r of the run as it is (Syed et al. 2023)
    EAP-IG, inputs           its mean over runs whose stream begins with x' + k/K (x - x'), k = 0 .. K-1
                             (Hanna et al. 2024)
    EAP-IG, activations      its mean over runs in which one site after the other writes w' + k/K (w - w'), k = 1 .. K,
                             a constant, whatever it reads (Marks et al. 2024; Hanna et al. 2024)
    AtP*                     EAP, but for queries and keys, whose attention A is computed anew with the edge patched:
                             s_wr = (A' - A) . dF/dA, for where a softmax is saturated its slope is flat
                             (Kramar et al. 2024, section 3.1)
    GradDrop                 sum over the L blocks of |s| / (L - 1), where no gradient passes the writers of the block
                             and |s| is taken of each example, for effects that cancel (section 3.2)

Attribution patching of a component (Nanda 2023) is the sum of EAP over its edges: `writer_scores`.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, UnsupportedError
from aijax.interp.contrast import Contrast, map_runs
from aijax.interp.edges import EdgeChanges, visit, writer_values
from aijax.interp.residual_graph import TAPS, Graph
from aijax.typing import Array, Float

RESCORED = ("query", "key")
"""Uses of an input on which the weights of attention depend."""


@jax.jit
def edge_attribution(contrast: Contrast) -> Float[Array, " edges"]:
    """Returns the scores of EAP: the effects of edges to first order, by one gradient."""
    slopes, _ = _slopes(contrast)
    return _linear(contrast, slopes)


@partial(jax.jit, static_argnames="steps")
def integrated_inputs(contrast: Contrast, *, steps: int = 10) -> Float[Array, " edges"]:
    """Returns the scores of EAP-IG over inputs: gradients at `steps` points from the other input towards this one."""
    _check_steps(steps)
    roots = contrast.graph.roots

    def at(step):
        def write(number, value):
            other = contrast.others[number]
            return other + step / steps * (value - other) if number in roots else value

        return _slopes(contrast, write)[0]

    return _linear(contrast, _mean(at, jnp.arange(float(steps))))


@partial(jax.jit, static_argnames="steps")
def integrated_activations(contrast: Contrast, *, steps: int = 10) -> Float[Array, " edges"]:
    """Returns the scores of EAP-IG over activations: `steps` points from the other value of each site to this one."""
    _check_steps(steps)

    def at(case):
        place, step = case

        def write(number, value):
            other = contrast.others[number]
            between = jax.lax.stop_gradient(other + step / steps * (value - other))
            return jnp.where(number == place, between, value)

        return _slopes(contrast, write)[0]

    places, fractions = jnp.meshgrid(
        jnp.arange(len(contrast.graph.writer_sites)), jnp.arange(1.0, steps + 1), indexing="ij"
    )
    return _linear(contrast, _mean(at, (places.ravel(), fractions.ravel())))


@partial(jax.jit, static_argnames=("grad_drop", "batch_size"))
def attention_rescored(
    contrast: Contrast, *, grad_drop: bool = False, batch_size: int | None = None
) -> Float[Array, " edges"]:
    """Returns the scores of AtP*: EAP, with the weights of attention computed anew for patched queries and keys.

    Args:
      contrast: of `contrast`, of a function whose attention has the tap `weights`, `[b, h, t, s]`.
      grad_drop: whether scores are of GradDrop, which have no signs.
      batch_size: how many patched inputs of attention are there at a time; None for 16 examples in all.

    Raises:
      UnsupportedError: a component with queries or keys that has no tap `weights`.
    """
    graph, heads = contrast.graph, _heads(contrast.graph)
    blocks = list(dict.fromkeys(_block(graph, n) for n in range(len(graph.writer_sites)) if n not in graph.roots))

    def without(block):
        def write(number, value):
            fixed = jax.lax.stop_gradient(value)
            return fixed + (block != jnp.asarray(_places(graph, blocks))[number]) * (value - fixed)

        return _slopes(contrast, write, heads)

    chosen = jnp.arange(len(blocks)) if grad_drop else jnp.asarray([-1])
    slopes, weight_slopes = jax.lax.map(without, chosen)
    parts = jax.vmap(lambda slopes: _by_example(contrast, slopes))(slopes)  # [blocks, b, edges]
    scores = _reduced(parts, grad_drop)
    rescored, edges = _rescored(contrast, heads, weight_slopes, grad_drop, batch_size)
    return scores.at[edges].set(rescored)


def writer_scores(graph: Graph, scores: Float[Array, " edges"]) -> Float[Array, " writers"]:
    """Returns the sum of scores over the edges of each writer: of EAP, attribution patching of the writer."""
    return graph.matrix(scores).sum(1)


def _mean(gradients, cases):
    """The mean of trees of gradients over cases, one at a time."""
    count = len(jax.tree.leaves(cases)[0])
    start = jax.tree.map(jnp.zeros_like, jax.eval_shape(gradients, jax.tree.map(lambda x: x[0], cases)))

    def add(total, case):
        return jax.tree.map(jnp.add, total, gradients(case)), None

    return jax.tree.map(lambda total: total / count, jax.lax.scan(add, start, cases)[0])


def _slopes(contrast, write=lambda number, value: value, heads=()):
    """Gradients of F by what each readers' site reads, and by the weights of attention of `heads`."""
    shapes = {}

    def outcome(feeds):
        def note(place, value):
            shapes[place] = jax.ShapeDtypeStruct(value.shape, value.dtype)
            return value + feeds[place] if feeds else value

        run = visit(
            contrast.apply_fn,
            contrast.graph,
            write=write,
            read=lambda number, value: note(("read", number), value),
            others={name: lambda occurrence, value, name=name: note((name, occurrence), value) for name, _ in heads},
        )
        return jnp.mean(contrast.target(run(contrast.params, contrast.inputs)))

    jax.eval_shape(outcome, {})
    missing = [name for name, occurrence in heads if (name, occurrence) not in shapes]
    if missing:
        raise UnsupportedError(f"method: AtP* needs the tap {missing[0]}, which the function has not")
    slopes = jax.grad(outcome)({place: jnp.zeros(shape.shape, shape.dtype) for place, shape in shapes.items()})
    sites = range(len(contrast.graph.reader_sites))
    return [slopes["read", number] for number in sites], [slopes[place] for place in heads]


def _changes(contrast):
    changes = EdgeChanges(contrast.graph)
    values = writer_values(contrast.apply_fn, contrast.graph)(contrast.params, contrast.inputs)
    for number, (other, value) in enumerate(zip(contrast.others, values, strict=True)):
        changes.write(number, other - value)
    return changes, values


def _linear(contrast, slopes):
    """(w' - w) . slope for all edges."""
    return _by_example(contrast, slopes).sum(0)


def _by_example(contrast, slopes):
    """The same of each example, [b, edges]."""
    graph, (changes, _) = contrast.graph, _changes(contrast)
    rows, columns = graph.matrix_index
    scores = jnp.zeros((slopes[0].shape[0], len(rows)), slopes[0].dtype)
    for number, (site, slope) in enumerate(zip(graph.reader_sites, slopes, strict=True)):
        writers, change = changes.before(number)
        slope = slope if site.parts else slope[..., None, :]
        table = jnp.einsum("b...wd,b...rd->bwr", change, slope)
        own = np.flatnonzero(np.isin(columns, site.numbers))
        places = np.searchsorted(writers, rows[own])
        scores = scores.at[:, own].set(table[:, places, columns[own] - site.first])
    return scores


def _reduced(parts, grad_drop):
    """Scores of blocks and examples [blocks, b, ...] as one for all."""
    if not grad_drop:
        return parts.sum((0, 1))
    return jnp.abs(parts).sum((0, 1)) / max(len(parts) - 1, 1)


def _heads(graph):
    """Taps of the weights of attention, and which occurrence, of components that have queries or keys."""
    found = []
    for site in graph.reader_sites:
        scope, component, use = _named(site)
        if use in RESCORED:
            found.append(("/".join(filter(None, (scope, component, "weights"))), site.occurrence))
    return tuple(dict.fromkeys(found))


def _named(site):
    match = re.fullmatch(TAPS, site.name)
    component, _, use = match["rest"].rpartition("_")
    return match["scope"], component, use


def _block(graph, number):
    site = graph.writer_sites[number]
    return site.name.rpartition("/")[0], site.occurrence


def _places(graph, blocks):
    """The number of the block of each writers' site, -2 for what is of none."""
    return [
        -2 if number in graph.roots else blocks.index(_block(graph, number))
        for number in range(len(graph.writer_sites))
    ]


def _rescored(contrast, heads, slopes, grad_drop, batch_size):
    """(A' - A) . dF/dA, and the edges that these are of: those to queries and keys.

    Writers are held at their values, so that patched inputs of one layer do not reach the next, and one run serves the
    edges of a writer to all readers of a use.
    """
    graph, (changes, values) = contrast.graph, _changes(contrast)
    uses = {
        reader: (use, "/".join(filter(None, (scope, component, "weights"))), site.occurrence, reader - site.first)
        for site in graph.reader_sites
        for scope, component, use in [_named(site)]
        for reader in site.numbers
        if use in RESCORED
    }
    edges = np.asarray([number for number, (_, reader) in enumerate(graph.pairs) if reader in uses], int)
    rows, columns = (index[edges] for index in graph.matrix_index)
    use = np.asarray([RESCORED.index(uses[reader][0]) for reader in columns], int)

    def weights(table):
        found = {}

        def note(name, occurrence, value):
            found[name, occurrence] = value
            return value

        visit(
            contrast.apply_fn,
            graph,
            write=lambda number, value: values[number],
            read=lambda number, value: value + changes.read(number, table).astype(value.dtype),
            others={name: partial(note, name) for name, _ in heads},
        )(contrast.params, contrast.inputs)
        return [found[place] for place in heads]

    now = weights(graph.matrix(jnp.zeros(len(graph.pairs))))

    def score(case):
        writer, which = case
        patched = jnp.zeros(len(graph.pairs)).at[edges].set(((rows == writer) & (use == which)).astype(float))
        parts = [
            jnp.einsum("bhts,lbhts->lbh", new - old, slope)
            for new, old, slope in zip(weights(graph.matrix(patched)), now, slopes, strict=True)
        ]
        return _reduced(jnp.concatenate(parts, axis=-1), grad_drop)  # of each head

    cases = jnp.meshgrid(jnp.arange(len(graph.writers)), jnp.arange(len(RESCORED)), indexing="ij")
    table = map_runs(contrast, score, tuple(case.ravel() for case in cases), batch_size)
    firsts = dict(zip(heads, np.cumsum([0, *(old.shape[1] for old in now)])[:-1], strict=True))
    part = np.asarray([firsts[uses[reader][1:3]] + uses[reader][3] for reader in columns], int)
    return table[rows * len(RESCORED) + use, part], edges


def _check_steps(steps):
    if steps < 1:
        raise ConfigError(f"steps: expected at least 1, got {steps}")
