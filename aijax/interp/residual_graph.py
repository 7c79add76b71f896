"""Edges of a residual stream: whose output is part of whose input.

Components write to the stream, and what one of them reads is the sum of all that was written before it. So each pair of
a writer and a later reader is an edge (Elhage et al. 2021; Wang et al. 2022). Which components there are is told by the
taps of a function, called `SCOPE/writes_NAME` and `SCOPE/reads_NAME_USE`, the use left out where there is one. Values
are `[..., d]`, or `[..., h, d]` where a component has h parts such as heads. A component that reads nothing,
`writes_input`, begins a stream, and one that writes nothing, `reads_output`, ends it.

The transformers of `aijax.models` have these taps, each head with its query, key and value input before the norm, of
its own where heads share keys and values; those whose blocks norm the sum (`post_norm`) or read a memory
(`cross_attention`) have none. Where outputs are normed (`output_norm`) a head writes its share of the normed output,
the divisor being that of its run.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.interp.walk import Ancestry, UnrolledWalk, compiled, names_in, trace
from aijax.typing import Any, Array, Float, PyTree

TAPS = r"(?:(?P<scope>.*)/)?(?P<kind>writes|reads)_(?P<rest>\w+)"
LETTERS = {"attention": "a", "mlp": "m"}
USES = {"query": "q", "key": "k", "value": "v"}


class Site(NamedTuple):
    """A tap where parts of the stream are written or read.

    Attributes:
      name: of the tap.
      occurrence: how many of that name come before it, such as in the turns of a scan.
      first: number of its first part among all writers, or all readers.
      parts: how many it has on the axis before the last; None for one part without an axis.
    """

    name: str
    occurrence: int
    first: int
    parts: int | None

    @property
    def numbers(self) -> range:
        """The numbers of its parts."""
        return range(self.first, self.first + (self.parts or 1))

    @property
    def rows(self) -> slice:
        """The numbers of its parts, as an index."""
        return slice(self.numbers.start, self.numbers.stop)


@dataclass(frozen=True)
class Graph:
    """The edges of a function's residual stream, in the order of readers and then of writers.

    Attributes:
      writers, readers: their names: "input", "a0.h1" (a head), "m0" (an MLP); "a1.h0<q>", "m1", "output".
      pairs: of each edge, the numbers of its writer and its reader.
      feeds: of each reader, the numbers of the writers of its component.
      writer_sites, reader_sites: the taps, in the order in which they are run.
      roots: numbers of the writers' sites that depend on no other.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    feeds: tuple[tuple[int, ...], ...]
    writer_sites: tuple[Site, ...]
    reader_sites: tuple[Site, ...]
    roots: tuple[int, ...]

    @property
    def edges(self) -> tuple[str, ...]:
        """The names of the edges, such as "a0.h1->a1.h0<q>"."""
        return tuple(f"{self.writers[w]}->{self.readers[r]}" for w, r in self.pairs)

    @property
    def matrix_index(self) -> tuple[np.ndarray, np.ndarray]:
        """Writers and readers of the edges: where the values of edges stand in a matrix `[writers, readers]`."""
        return tuple(np.asarray(self.pairs, int).reshape(-1, 2).T)

    def matrix(self, values: Float[Array, " edges"]) -> Float[Array, "writers readers"]:
        """Returns values of edges as a matrix with zeros where there is no edge."""
        shape = len(self.writers), len(self.readers)
        return jnp.zeros(shape, jnp.result_type(values)).at[self.matrix_index].set(values)


def residual_graph(function: Callable[..., PyTree], *args: PyTree) -> Graph:
    """Returns the edges of the residual streams in a function.

    Args:
      function: such as `apply_fn(params, inputs)`.
      args: its arguments, or their shapes.

    Raises:
      ConfigError: a function without the taps, or whose output depends on none of them; writers and readers of one
        stream whose shapes differ.

    >>> from aijax.taps import tap
    >>> def apply_fn(w, x):
    ...     x = tap("writes_input", x)
    ...     x = x + tap("writes_a", w * tap("reads_a", x))
    ...     return tap("reads_output", x).sum(-1)
    >>> residual_graph(apply_fn, jnp.ones(()), jnp.ones((4, 3))).edges
    ('input->a', 'input->output', 'a->output')
    """
    patterns = compiled(TAPS)
    program, _ = trace(function, patterns, args, {})
    wanted = {name for name in names_in(program.jaxpr) if patterns[0].fullmatch(name)}
    shapes, inputs = [], jax.tree.leaves(args)

    def shaped(name, value, feed, turn):
        shapes.append((name, value.shape))
        return value, None

    walk = UnrolledWalk(shaped, wanted)
    jax.eval_shape(lambda inputs: walk.run(program.jaxpr, program.consts, inputs, {}, None)[0], inputs)
    ends = _ends(shapes)
    if not any(end.writes for end in ends) or not any(not end.writes for end in ends):
        raise ConfigError(
            "apply_fn: expected taps writes_* and reads_* on a residual stream, as transformers of pre-norm blocks "
            f"have them, got {', '.join(sorted(wanted)) or 'none'}"
        )
    streams, reached, roots = _streams(program, wanted, ends, len(inputs))
    if not reached:
        raise ConfigError("target_behavior: it does not depend on any edge of the residual stream")
    return _graph(ends, streams, roots)


class _End(NamedTuple):
    """A tap of the graph: who it belongs to, and whether it is written or read there."""

    name: str
    occurrence: int
    shape: tuple[int, ...]
    writes: bool
    scope: str
    component: str
    use: str
    parts: int | None

    @property
    def owner(self) -> tuple[str, str, int]:
        return self.scope, self.component, self.occurrence

    @property
    def stream_shape(self) -> tuple[int, ...]:
        return self.shape if self.parts is None else (*self.shape[:-2], self.shape[-1])


def _ends(shapes):
    """The taps of a function in the order of its run; readers of a component carry its name, and what more is a use."""
    found, seen = [], {}
    matches = [re.fullmatch(TAPS, name) for name, _ in shapes]
    written = {(match["scope"] or "", match["rest"]) for match in matches if match["kind"] == "writes"}
    least = min((len(shape) for _, shape in shapes), default=0)
    for (name, shape), match in zip(shapes, matches, strict=True):
        scope, rest = match["scope"] or "", match["rest"]
        component, use = rest, ""
        while match["kind"] == "reads" and (scope, component) not in written and "_" in component:
            component = component.rpartition("_")[0]
        if (scope, component) in written:
            use = rest[len(component) + 1 :]
        else:
            component = rest
        if len(shape) > least + 1:
            raise ConfigError(f"{name}: expected a value with {least} or {least + 1} axes, got {list(shape)}")
        parts = shape[-2] if len(shape) > least else None
        occurrence = seen[name] = seen.get(name, -1) + 1
        found.append(_End(name, occurrence, shape, match["kind"] == "writes", scope, component, use, parts))
    return found


def _streams(program, wanted, ends, inputs):
    """For each reader the ends that write to its stream; whether the output depends on any; ends that begin all."""
    readers = {end.owner for end in ends if not end.writes}
    streams, roots, count = {}, [], iter(range(len(ends)))

    def site(name, before, feed, turn):
        number = next(count)
        if not ends[number].writes:
            streams[number] = [writer for kind, writer in sorted(before) if kind == "stream"]
            return before | {("read", number)}, None
        if ends[number].owner not in readers:  # a stream begins
            if not any(kind == "written" for kind, _ in before):
                roots.append(number)
            before = frozenset(mark for mark in before if mark[0] != "stream")
        return before | {("written", number), ("stream", number)}, None

    outputs, _ = Ancestry(site, wanted).run(program.jaxpr, program.consts, [frozenset()] * inputs, {}, None)
    reached = any(kind == "read" for marks in outputs if isinstance(marks, frozenset) for kind, _ in marks)
    return streams, reached, roots


def _graph(ends, streams, roots):
    labels = _labels(ends)
    writers, readers = (
        {number: end for number, end in enumerate(ends) if end.writes is writes} for writes in (True, False)
    )
    writer_sites, reader_sites = _sites(writers), _sites(readers)
    pairs, feeds = [], []
    for reader, end in readers.items():
        if not streams[reader]:
            raise ConfigError(f"{end.name}: expected a tap writes_* before it, such as writes_input, got none")
        for writer in streams[reader]:
            if ends[writer].stream_shape != end.stream_shape:
                raise ConfigError(
                    f"{end.name}: it reads {list(end.stream_shape)} of a stream to which {ends[writer].name} writes "
                    f"{list(ends[writer].stream_shape)}"
                )
        fed = [
            part
            for number, other in writers.items()
            if other.owner == end.owner
            for part in writer_sites[number].numbers
        ]
        parts = reader_sites[reader].numbers
        for place, part in enumerate(parts):
            pairs += [(written, part) for writer in streams[reader] for written in writer_sites[writer].numbers]
            feeds.append((fed[place],) if len(fed) == len(parts) else tuple(fed))
    return Graph(
        writers=tuple(name for end in writers.values() for name in _names(end, labels)),
        readers=tuple(name for end in readers.values() for name in _names(end, labels)),
        pairs=tuple(pairs),
        feeds=tuple(feeds),
        writer_sites=tuple(writer_sites.values()),
        reader_sites=tuple(reader_sites.values()),
        roots=tuple(list(writers).index(root) for root in roots),
    )


def _sites(ends):
    sites, first = {}, 0
    for number, end in ends.items():
        sites[number] = Site(end.name, end.occurrence, first, end.parts)
        first += end.parts or 1
    return sites


def _names(end, labels):
    use = f"<{USES.get(end.use, end.use)}>" if end.use else ""
    parts = [""] if end.parts is None else [f".h{part}" for part in range(end.parts)]
    return [f"{labels[end.owner]}{part}{use}" for part in parts]


def _labels(ends) -> dict[Any, str]:
    """Names of components: short ones, or with their scopes where short ones are not unique."""
    owners = list(dict.fromkeys(end.owner for end in ends))
    several = {(scope, component) for scope, component, occurrence in owners if occurrence}

    def short(owner):
        scope, component, occurrence = owner
        block = re.search(r"(?:^|/)block_(\d+)$", scope)
        if component in LETTERS and (block or scope.rpartition("/")[2] == "blocks"):
            return f"{LETTERS[component]}{block[1] if block else occurrence}"
        return f"{component}{occurrence}" if (scope, component) in several else component

    labels = {owner: short(owner) for owner in owners}
    if len(set(labels.values())) < len(labels):
        labels = {owner: "/".join(filter(None, (owner[0], short(owner)))) for owner in owners}
    return labels
