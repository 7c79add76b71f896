"""How the tensors of a published file are made of the parameters of a module, and the parameters of the tensors.

A `Layout` is a table whose lines say, for published names, which parameters they hold:

    Entry("vit.encoder.layer.{i}.attention.attention.query.*", "encoder/block_{i}/attention/query/*")
    Entry("blocks.{i}.attn.qkv.*", tuple(f"encoder/block_{{i}}/attention/{p}/*" for p in ("query", "key", "value")))

`{i}` is a number, `{name}` in braces the same word on both sides, and `*` the parameter: `kernel`, `scale` and
`embedding` are published as "weight", a bias as "bias". A published tensor may join several parameters along an axis.
Its `form` says how a parameter is laid out there. Without one a published matrix is [outputs, inputs] and a published
convolution [outputs, inputs, height, width], where a kernel is [inputs, outputs] and [height, width, inputs, outputs];
other tensors are as they are.

A module without a table has submodules with the published names, and one rule serves:

    encoder.down_blocks.0.resnets.1.conv1.weight   <->   encoder/down_blocks_0/resnets_1/conv1/kernel

Parameters of a scanned stack, `blocks` [depth, ...], stand for those of `block_0`, `block_1` and so on.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import DataError, UnsupportedError
from aijax.models.tensor_files import Tensors, listed
from aijax.trees import map_named, named_leaves
from aijax.typing import Any, Params, PyTree

WEIGHTS = ("kernel", "scale", "embedding")
"""Parameters that are published as "weight"."""
NUMBERED = re.compile(r"(?!linear_|proj_out_)(.+)_(\d+)")
"""A name that ends with the index of a list; published names such as "linear_1" do not."""


@dataclasses.dataclass(frozen=True)
class Form:
    """A parameter as it is published: its axes in another order, then in another shape.

    Attributes:
      axes: the order; None as they are.
      shape: the parameter's shape in that order -> the published shape; None as it is.
    """

    axes: tuple[int, ...] | None = None
    shape: Callable[[tuple[int, ...]], tuple[int, ...]] | None = None

    def publish(self, array: np.ndarray) -> np.ndarray:
        """Returns the published array of a parameter."""
        array = array if self.axes is None else array.transpose(self.axes)
        return array if self.shape is None else array.reshape(self.shape(array.shape))

    def read(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the parameter of a shape from its published array."""
        if self.axes is None:
            return array.reshape(shape)
        ordered = array.reshape([shape[axis] for axis in self.axes])
        return ordered.transpose(tuple(np.argsort(self.axes)))


SAME = Form()
"""As it is: matrices [inputs, outputs] among others."""
ROWS = Form(shape=lambda shape: (math.prod(shape[:-1]), shape[-1]))
"""A table over a grid, its rows one after the other."""
VECTOR = Form(shape=lambda shape: (math.prod(shape),))
"""One axis."""


def with_ones(count: int) -> Form:
    """Returns the form with `count` axes of size one before the others."""
    return Form(shape=lambda shape: (1,) * count + shape)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a table: a published name, and the parameters that its tensor holds.

    Attributes:
      published: the name, a template.
      own: the path of the parameter, a template; or of several, whose published arrays are joined. Those that the
        module does not have are passed over.
      form: how each parameter is laid out; None by the rule for kernels.
      axis: along which they are joined.
      joined: the form of what is joined.
      stacked: the parameters of all `{i}` lie in one tensor, along a first axis of their own.
    """

    published: str
    own: str | tuple[str, ...]
    form: Form | None = None
    axis: int = 0
    joined: Form = SAME
    stacked: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
    """A table of names.

    Attributes:
      entries: its lines; the first that fits a parameter counts.
      ignored: patterns of published names that are no parameters; they match whole names.
      tied: published names of copies, each with the name of what it is a copy of; files may have either or both.
      weight: what `kernel`, `scale` and `embedding` are called; None keeps their names.
    """

    entries: tuple[Entry, ...] = ()
    ignored: tuple[str, ...] = ()
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weight: str | None = "weight"


def prefixed(entries: tuple[Entry, ...], published: str, own: str) -> tuple[Entry, ...]:
    """Returns the lines of a part of a module, with what comes before the names of the part.

    >>> prefixed((Entry("norm.*", "norm/*"),), "vision_model.", "vision/")[0].own
    ('vision/norm/*',)
    """

    def paths(entry):
        return tuple(own + path for path in ([entry.own] if isinstance(entry.own, str) else entry.own))

    return tuple(dataclasses.replace(e, published=published + e.published, own=paths(e)) for e in entries)


def from_published(
    tensors: Mapping[str, Any],
    abstract_params: PyTree,
    layout: Layout | None = None,
    *,
    dtype: Any = None,
    shardings: PyTree | None = None,
    where: str = "tensors",
) -> Params:
    """Returns parameters of the structure of `abstract_params` with the values of published tensors.

    Args:
      tensors: by published name; each is read when its turn comes.
      abstract_params: the parameters' shapes, as of `jax.eval_shape(model.init, ...)["params"]`.
      layout: the table of names; None for modules whose submodules have the published names.
      dtype: of the parameters; None keeps that of the tensors.
      shardings: of the parameters, a tree like `abstract_params`; each device reads its own part. None puts all on the
        default device.
      where: what the tensors are, for messages.

    Raises:
      DataError: tensors that are missing, that the model does not have (an empty one is passed over) or whose shapes
        differ; all are listed.
      UnsupportedError: a parameter that the layout has no name for.

    >>> tensors = {"linear.weight": np.ones((3, 2)), "linear.bias": np.zeros(3)}
    >>> shapes = {"linear": {"kernel": jax.ShapeDtypeStruct((2, 3), float), "bias": jax.ShapeDtypeStruct((3,), float)}}
    >>> jax.tree.map(jnp.shape, from_published(tensors, shapes))
    {'linear': {'bias': (3,), 'kernel': (2, 3)}}
    """
    layout = layout or Layout()
    joins = _plan({name: leaf.shape for name, leaf in named_leaves(abstract_params).items()}, layout, where)
    stand_ins = {name: copy for copy, name in layout.tied.items() if name not in tensors and copy in tensors}
    if stand_ins:
        sources = {name: name for name in tensors if name not in stand_ins.values()} | stand_ins
        tensors = Tensors({name: (tensors, source) for name, source in sources.items()})
    _check(tensors, joins, layout, where)
    pieces: dict[str, dict[int, Callable[[], np.ndarray]]] = {}
    for name, join in joins.items():
        for number, part in enumerate(join.parts):
            pieces.setdefault(part.leaf, {})[part.layer or 0] = functools.partial(join.read, number, tensors, name)

    def read(name, leaf, sharding=None):
        layers = [piece() for _, piece in sorted(pieces[name].items())]
        stacked = _is_stacked(name)
        kind = None if dtype is None else jnp.dtype(dtype)

        def take(index):
            # on the host, where a cast compiles nothing
            part = np.stack([layer[index[1:]] for layer in layers[index[0]]]) if stacked else layers[0][index]
            return np.asarray(part if kind is None else part.astype(kind))

        whole = (slice(None),) * len(leaf.shape)
        if sharding is None:
            return jnp.asarray(take(whole))
        return jax.make_array_from_callback(leaf.shape, sharding, take)

    return map_named(read, abstract_params, *(() if shardings is None else (shardings,)))


def to_published(params: Params, layout: Layout | None = None, *, where: str = "params") -> dict[str, np.ndarray]:
    """Returns the tensors by published name of a model's parameters: the inverse of `from_published`.

    >>> {name: t.shape for name, t in to_published({"conv1": {"kernel": jnp.ones((3, 3, 4, 8))}}).items()}
    {'conv1.weight': (8, 4, 3, 3)}
    """
    leaves = named_leaves(params)
    joins = _plan({name: leaf.shape for name, leaf in leaves.items()}, layout or Layout(), where)

    def value(part):
        leaf = leaves[part.leaf]
        return np.asarray(leaf if part.layer is None else leaf[part.layer])

    return {name: np.asarray(join.write([value(p) for p in join.parts]), order="C") for name, join in joins.items()}


def published_name(name: str) -> str:
    """Returns the published name of the parameter at a path, by the rule.

    >>> published_name("down_blocks_0/time_emb/linear_1/kernel")
    'down_blocks.0.time_emb.linear_1.weight'
    """
    *modules, leaf = name.split("/")
    parts = [NUMBERED.sub(r"\1.\2", part) if NUMBERED.fullmatch(part) else part for part in modules]
    return ".".join([*parts, "weight" if leaf in WEIGHTS else leaf])


def looped_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, int | None, tuple[int, ...]]]:
    """Returns for each path of a looped module (path as it is, layer of a scanned stack or None, shape).

    >>> looped_shapes({"blocks/bias": (1, 4), "scale": (3,)})
    {'block_0/bias': ('blocks/bias', 0, (4,)), 'scale': ('scale', None, (3,))}
    """
    found = {}
    for leaf, shape in shapes.items():
        for layer in range(shape[0]) if _is_stacked(leaf) else [None]:
            path, own = (leaf, shape) if layer is None else (_looped(leaf, layer), shape[1:])
            found[path] = (leaf, layer, own)
    return found


@dataclasses.dataclass(frozen=True)
class _Part:
    """A parameter, or a layer of one that is stacked, as it lies in a published tensor."""

    leaf: str
    layer: int | None
    shape: tuple[int, ...]
    form: Form

    @property
    def published(self):
        return self.form.publish(np.broadcast_to(0, self.shape)).shape


@dataclasses.dataclass(frozen=True)
class _Join:
    """A published tensor: its parts, joined along an axis."""

    parts: tuple[_Part, ...]
    axis: int
    joined: Form

    @property
    def inner(self):
        first = list(self.parts[0].published)
        if len(self.parts) > 1:
            first[self.axis] = sum(part.published[self.axis] for part in self.parts)
        return tuple(first)

    @property
    def shape(self):
        return self.joined.publish(np.broadcast_to(0, self.inner)).shape

    def read(self, number, tensors, name):
        tensor, part = self.joined.read(tensors[name], self.inner), self.parts[number]
        if len(self.parts) > 1:
            ends = np.cumsum([0, *(other.published[self.axis] for other in self.parts)])
            axes = [slice(None)] * tensor.ndim
            axes[self.axis] = slice(ends[number], ends[number + 1])
            tensor = tensor[tuple(axes)]
        return part.form.read(tensor, part.shape)

    def write(self, values):
        arrays = [part.form.publish(value) for part, value in zip(self.parts, values, strict=True)]
        return self.joined.publish(arrays[0] if len(arrays) == 1 else np.concatenate(arrays, self.axis))


def _plan(shapes, layout, where):
    """Returns `{published name: _Join}` of parameters of given shapes."""
    lines = [
        (_pattern(path), entry, number)
        for entry in layout.entries
        for number, path in enumerate([entry.own] if isinstance(entry.own, str) else entry.own)
    ]
    found, unnamed = {}, []
    for path, (leaf, layer, own) in looped_shapes(shapes).items():
        if not layout.entries:
            found[published_name(path)] = [((0, 0), Entry("", ""), _Part(leaf, layer, own, _form_of(path, own)))]
            continue
        for pattern, entry, number in lines:
            match = pattern.fullmatch(path)
            if match:
                form, words = entry.form or _form_of(path, own), match.groupdict()
                part = _Part(leaf, layer, own, _after_one(form) if entry.stacked else form)
                order = number, int(words.get("i", 0)) if entry.stacked else 0
                found.setdefault(_publish(entry.published, words, layout.weight), []).append((order, entry, part))
                break
        else:
            unnamed.append(path)
    if unnamed:
        raise UnsupportedError(f"{where}: this layout has no name for {listed(unnamed)}")
    ordered = {name: sorted(parts, key=lambda part: part[0]) for name, parts in found.items()}
    return {
        name: _Join(tuple(part for *_, part in parts), parts[0][1].axis, parts[0][1].joined)
        for name, parts in ordered.items()
    }


def _check(tensors, joins, layout, where):
    shapes = {name: join.shape for name, join in joins.items()}
    ignored = [re.compile(pattern) for pattern in layout.ignored]
    copies = {copy: name for copy, name in layout.tied.items() if copy in tensors and copy not in shapes}
    faults = {
        "missing": [name for name in shapes if name not in tensors],
        "unknown": [
            name
            for name in tensors
            if name not in shapes and name not in copies and not any(p.fullmatch(name) for p in ignored)
            if 0 not in tensors[name].shape
        ],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} in place of {shape}"
            for name, shape in shapes.items()
            if name in tensors and tuple(tensors[name].shape) != shape
        ],
        "unlike what they copy": [
            copy
            for copy, name in copies.items()
            if name in tensors and not np.array_equal(tensors[copy], tensors[name])
        ],
    }
    if any(faults.values()):
        told = "; ".join(f"{kind}: {listed(names)}" for kind, names in faults.items() if names)
        raise DataError(f"{where}: expected the {len(shapes)} tensors of the model, got {len(tensors)}; {told}")


@functools.cache
def _pattern(template):
    parts = re.split(r"(\{\w+\}|\*)", template)
    fields = {"{i}": r"(?P<i>\d+)", "{j}": r"(?P<j>\d+)", "*": r"(?P<leaf>kernel|scale|embedding|bias)"}
    words = [fields.get(p) or (rf"(?P<{p[1:-1]}>\w+)" if p.startswith("{") else re.escape(p)) for p in parts]
    return re.compile("".join(words))


def _publish(template, fields, weight):
    leaf = fields.pop("leaf", "")
    name = template.format(**fields)
    return name.replace("*", weight if weight and leaf in WEIGHTS else leaf)


def _is_stacked(path):
    return "blocks" in path.split("/")


def _after_one(form):
    """The form with an axis of size one before it."""
    shape = form.shape or (lambda shape: shape)
    return Form(form.axes, lambda ordered: (1, *shape(ordered)))


def _looped(leaf, layer):
    return "/".join(f"block_{layer}" if part == "blocks" else part for part in leaf.split("/"))


def _form_of(path, shape):
    """Kernels have inputs and outputs last, published ones outputs and inputs first."""
    if path.rsplit("/", 1)[-1] != "kernel" or len(shape) < 2:
        return SAME
    last = len(shape) - 1
    return Form((last, last - 1, *range(last - 1)))
