"""Activation patching: a value of one run put into another, one site at a time, and what a metric makes of it.

A run of `inputs` is repeated for each site s, index i and, in a scan, layer, with x_{s,i} in place of the value there:

    patched_{s,i} = metric(f(inputs; v_{s,i} <- x_{s,i}))

x is of a run of `source` ("resample"), zero, or the mean of a run. With corrupted inputs and a clean source it is
denoising: what suffices for the answer. With clean inputs and a corrupted source it is noising: what is needed for it
(Vig et al. 2020; Meng et al. 2022; Heimersheim and Nanda 2024). All of it is one program, some patches at a time.

Attribution patching estimates all at once, to first order (Nanda 2023; Syed et al. 2023):

    patched_{s,i} - unpatched  ~  sum over the rest of the axes of (x - v)_{s,i} d metric / d v_{s,i}
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, DataError, UnsupportedError, choose
from aijax.interp.capture import transformed
from aijax.interp.pieces import Pieces
from aijax.interp.walk import Ancestry, compiled, names_in, trace
from aijax.typing import Any, Array, Callable, Float, Params, PyTree

Ablation = Literal["resample", "mean", "zero"]
ABLATIONS = dict.fromkeys(("resample", "mean", "zero"))


class Patched(NamedTuple):
    """What a metric made of patches.

    Attributes:
      values: for each site, one for each index of its axes, those of a scan's layers first. Of `sweep` the metric of
        the patched run, of `attribution` the estimate of its change.
      unpatched: the metric of the run of `inputs`.
      source: that of the run of `source`; None where there is none.
    """

    values: dict[str, Float[Array, "..."]]
    unpatched: Float[Array, ""]
    source: Float[Array, ""] | None


def sweep(
    apply_fn: Callable[[Params, Any], PyTree],
    metric: Callable[[PyTree], Array],
    sites: Mapping[str, Sequence[int]],
    *,
    ablation: Ablation = "resample",
    mean_over: Sequence[int] = (0, 1),
    batch_size: int = 8,
) -> Callable[..., Patched]:
    """Returns `run(params, inputs, source=None) -> Patched`, a pure function of one batched program.

    Args:
      apply_fn: `apply_fn(params, x)`.
      metric: of its output, a scalar.
      sites: names of values, as `capture` takes them, each with the axes along which one index at a time is patched:
        of `[b, t, h, k]` (1,) are positions, (2,) heads, (1, 2) both, () all of it at once.
      ablation: what is put in: "resample" the value of a run of `source`; "mean" the mean of such a run, or where
        there is no `source` of the run itself; "zero".
      mean_over: axes of that mean, examples and positions by default.
      batch_size: patched runs at a time, which bounds the memory.

    Raises, when it is called:
      ConfigError: a site that does not exist, an axis that it does not have, a metric that is no scalar or does not
        depend on a site.
      DataError: "resample" without a source, or with one of another shape.
      UnsupportedError: a value that is made more than once outside of a scan, or in a scan within a scan.

    >>> from aijax.taps import tap
    >>> run = sweep(lambda w, x: tap("product", w * x), lambda y: y.sum(), {"product": (0,)})
    >>> run(jnp.array([1.0, 2.0]), jnp.zeros(2), jnp.ones(2)).values["product"].tolist()
    [1.0, 2.0]
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: expected 1 or more, got {batch_size}")

    def run(params: Params, inputs: Any, source: Any = None) -> Patched:
        found = _Sites(apply_fn, metric, sites, ablation, mean_over, params, inputs, source)
        pieces, leaves = Pieces(found.program, set(found.shapes)), jax.tree.leaves((params, inputs))
        (unpatched,), kept = pieces.run(leaves)

        def patched(begin, patches):
            def one(patch):
                site = functools.partial(found.put_in, patch)
                return pieces.run_changed(site, found.feeds, begin, leaves, kept)[0]

            return jax.vmap(one)(patches)

        table = found.table()
        begins = np.array([pieces.first[name] for name in found.shapes])[table[:, 0]]
        results = _in_chunks(patched, begins, table, batch_size)
        return Patched(found.by_site(results), unpatched, found.source_metric)

    return run


def attribution(
    apply_fn: Callable[[Params, Any], PyTree],
    metric: Callable[[PyTree], Array],
    sites: Mapping[str, Sequence[int]],
    *,
    ablation: Ablation = "resample",
    mean_over: Sequence[int] = (0, 1),
) -> Callable[..., Patched]:
    """Returns `run(params, inputs, source=None) -> Patched` with first-order estimates of what `sweep` changes.

    They cost one forward and backward pass for all sites together. Arguments and errors are those of `sweep`.

    >>> from aijax.taps import tap
    >>> run = attribution(lambda w, x: tap("product", w * x), lambda y: y.sum(), {"product": (0,)})
    >>> run(jnp.array([1.0, 2.0]), jnp.zeros(2), jnp.ones(2)).values["product"].tolist()
    [1.0, 2.0]
    """

    def run(params: Params, inputs: Any, source: Any = None) -> Patched:
        found = _Sites(apply_fn, metric, sites, ablation, mean_over, params, inputs, source)

        def shifted(shifts):
            noting = transformed(apply_fn, list(sites), lambda name, value, shift, turn: (value + shift, value))
            output, values = noting(params, inputs, feeds=shifts)
            return metric(output), values

        zeros = {name: jnp.zeros(shape, kind) for name, (shape, kind, _) in found.shapes.items()}
        (unpatched, values), gradients = jax.value_and_grad(shifted, has_aux=True)(zeros)
        estimates = {}
        for name, gradient in gradients.items():
            change = (found.feed_of(name) - values[name]) * gradient
            kept = found.kept_axes(name)
            rest = [axis for axis in range(change.ndim) if axis not in kept]
            estimates[name] = change.sum(rest).transpose(np.argsort(np.argsort(kept)))
        return Patched(estimates, unpatched, found.source_metric)

    return run


class _Sites:
    """The sites of a function at some inputs, checked: their shapes, and what is to be put in."""

    def __init__(self, apply_fn, metric, sites, ablation, mean_over, params, inputs, source):
        choose(ABLATIONS, ablation, "ablation")
        if ablation == "resample" and source is None:
            raise DataError("source: ablation 'resample' takes values of a run of it, got None")
        self.apply_fn, self.metric, self.patterns = apply_fn, metric, list(sites)
        noting = transformed(apply_fn, self.patterns, lambda name, value, feed, turn: (value, (value, jnp.zeros(()))))
        _, noted = jax.eval_shape(noting, params, inputs)
        self.program = self._program(params, inputs)
        made = [name for name in dict.fromkeys(names_in(self.program.jaxpr)) if name in noted]
        self.shapes = {name: _single(name, noted[name]) for name in made}
        self.axes = {name: self._axes_of(name, sites) for name in self.shapes}
        self._check_metric()
        keeping = transformed(apply_fn, self.patterns, lambda name, value, feed, turn: (value, value))
        self.feeds, self.source_metric = {}, None
        if source is not None:
            self._check_source(keeping, params, source)
        if source is not None or ablation == "mean":
            output, values = keeping(params, inputs if source is None else source)
            self.source_metric = None if source is None else metric(output)
            if ablation == "mean":
                values = {name: self._mean(name, value, mean_over) for name, value in values.items()}
            self.feeds = {} if ablation == "zero" else {name: (value,) for name, value in values.items()}

    def _axes_of(self, name, sites):
        shape, _, layers = self.shapes[name]
        pattern = next(p for p in compiled(self.patterns) if p.fullmatch(name))
        rank = len(shape) - layers
        axes = tuple(axis + rank if axis < 0 else axis for axis in sites[pattern.pattern])
        if len(set(axes)) != len(axes) or not all(0 <= axis < rank for axis in axes):
            raise ConfigError(
                f"sites[{pattern.pattern!r}]: expected different axes of a value of rank {rank}, "
                f"got {list(sites[pattern.pattern])}"
            )
        return axes

    def _program(self, params, inputs):
        """The program of the metric."""

        def whole(params, inputs):
            value = self.metric(self.apply_fn(params, inputs))
            if jnp.shape(value) != ():
                raise ConfigError(f"metric: expected a scalar of the output, got the shape {list(jnp.shape(value))}")
            return value

        return trace(whole, compiled(self.patterns), (params, inputs), {})[0]

    def _check_metric(self):
        program = self.program
        walk = Ancestry(
            lambda name, value, feed, turn: (frozenset([name]) | (value or frozenset()), None), set(self.shapes)
        )
        nothing = [frozenset()] * (len(program.jaxpr.invars))
        (seen,), _ = walk.run(program.jaxpr, [frozenset()] * len(program.consts), nothing, {}, None)
        for name in names_in(program.jaxpr):
            if name in self.shapes and name not in (seen if isinstance(seen, frozenset) else ()):
                raise ConfigError(f"metric: it does not depend on {name!r}, which is to be patched")

    def _check_source(self, keeping, params, source):
        _, given = jax.eval_shape(keeping, params, source)
        for name, value in given.items():
            if value.shape != self.shapes[name][0]:
                wanted = list(self.shapes[name][0])
                raise DataError(
                    f"source: {name} is {wanted} in a run of inputs and {list(value.shape)} in that of source"
                )

    def _mean(self, name, value, mean_over):
        layers = self.shapes[name][2]
        axes = [axis + layers for axis in mean_over]
        if not all(layers <= axis < value.ndim for axis in axes):
            raise ConfigError(f"mean_over: {name} has no such axes, got {list(mean_over)}")
        return jnp.broadcast_to(value.mean(axes, keepdims=True), value.shape)

    def feed_of(self, name):
        """What is put in, of a site's whole value."""
        return self.feeds[name][0] if name in self.feeds else 0

    def kept_axes(self, name):
        """The axes of a site's value that patches go over: layers, then those asked for."""
        layers = self.shapes[name][2]
        return [*range(layers), *(axis + layers for axis in self.axes[name])]

    def grid(self, name):
        """How many patches a site has along each of these axes."""
        return tuple(self.shapes[name][0][axis] for axis in self.kept_axes(name))

    def table(self):
        """All patches: the number of the site, the layer, and an index along each axis."""
        rank = max((len(axes) for axes in self.axes.values()), default=0)
        rows = []
        for number, name in enumerate(self.shapes):
            layers, grid = self.shapes[name][2], self.grid(name)
            index = np.indices(grid).reshape(len(grid), -1).T
            row = np.zeros((len(index), 2 + rank), np.int32)
            row[:, 0] = number
            row[:, 1 : 1 + layers] = index[:, :layers]
            row[:, 2 : 2 + len(grid) - layers] = index[:, layers:]
            rows.append(row)
        return np.concatenate(rows)

    def put_in(self, patch, name, value, feed, turn):
        """The value of a site with that of a patch in its place."""
        here = patch[0] == list(self.shapes).index(name)
        if turn is not None:
            here &= patch[1] == turn[0]
        for place, axis in enumerate(self.axes[name]):
            numbers = jnp.arange(value.shape[axis]).reshape(-1, *[1] * (value.ndim - axis - 1))
            here = here & (numbers == patch[2 + place])
        return jnp.where(here, 0 if feed is None else feed, value).astype(value.dtype), None

    def by_site(self, results):
        """The results of the table, by site."""
        grids = {name: self.grid(name) for name in self.shapes}
        ends = np.cumsum([int(np.prod(grid)) for grid in grids.values()])[:-1]
        parts = jnp.split(results, ends)
        return {name: part.reshape(grid) for (name, grid), part in zip(grids.items(), parts, strict=True)}


def _single(name, made):
    """The shape and dtype of a value, and how many scans it is in."""
    value, turns = made if not isinstance(made[0], tuple) else (None, None)
    if value is None:
        raise UnsupportedError(f"{name}: it is made {len(made)} times, and one of them cannot be told from the others")
    if len(turns.shape) > 1:
        raise UnsupportedError(f"{name}: it lies in a scan within a scan, whose turns cannot be told apart")
    return value.shape, value.dtype, len(turns.shape)


def _in_chunks(function, begins, table, batch_size):
    """The function of the rows, in chunks of one size: what is left over would be compiled once more."""
    count = len(table)
    chunks = -(-count // batch_size)
    size = -(-count // chunks)
    rows = np.minimum(np.arange(chunks * size), count - 1).reshape(chunks, size)
    begins, table = begins[rows].min(1), jnp.asarray(table[rows])
    if chunks == 1:
        return function(int(begins[0]), table[0])[:count]
    return jax.lax.map(lambda chunk: function(*chunk), (jnp.asarray(begins), table)).reshape(-1)[:count]
