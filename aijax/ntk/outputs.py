"""The axes of a function's outputs in an empirical kernel: full, diagonal or traced.

A kernel of two outputs has for each axis of the output a pair of axes, one for each input, side by side: f(x) of shape
[n, h, w, o] has the kernel [n1, n2, h, h', w, w', o, o']. On a diagonal axis only equal indices are paired and one axis
is left; on a traced axis the mean over equal indices is taken and none is left.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.typing import Array

FULL, DIAGONAL, TRACED = "full", "diagonal", "traced"


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The axes of one output, but for an axis of independent examples.

    Attributes:
      shape: sizes of the axes.
      kinds: FULL, DIAGONAL or TRACED for each.
    """

    shape: tuple[int, ...]
    kinds: tuple[str, ...]

    def axes(self, kind: str) -> list[int]:
        """Returns the axes of a kind, in order."""
        return [axis for axis, k in enumerate(self.kinds) if k == kind]

    def size(self, kind: str) -> int:
        """Returns how many outputs the axes of a kind make."""
        return math.prod(self.shape[axis] for axis in self.axes(kind))

    @property
    def groups(self) -> tuple[int, int, int]:
        """The numbers (f, g, h) of full, diagonal and traced outputs."""
        return self.size(FULL), self.size(DIAGONAL), self.size(TRACED)

    @property
    def number(self) -> int:
        """How many outputs there are."""
        return math.prod(self.shape)

    @property
    def order(self) -> list[int]:
        """The axes: full, diagonal, traced."""
        return self.axes(FULL) + self.axes(DIAGONAL) + self.axes(TRACED)

    def basis(self, dtype) -> Array:
        """Returns the unit vectors of the outputs [f g h, *shape]."""
        unit = jnp.eye(math.prod(self.shape), dtype=dtype).reshape(self.shape * 2)
        rest = range(len(self.shape), 2 * len(self.shape))
        return unit.transpose(*self.order, *rest).reshape(self.number, *self.shape)

    def grouped(self, y: Array) -> Array:
        """Returns values of the output as `(f, g, h)`."""
        return y.transpose(self.order).reshape(self.groups)


def make_outputs(
    shape: Sequence[int], trace_axes: Sequence[int], diagonal_axes: Sequence[int], where: str = "apply_fn"
) -> Outputs:
    """Returns the axes of an output of shape `shape`, refusing axes that it does not have or of two kinds."""
    rank = len(shape)
    kinds = [FULL] * rank
    for name, axes, kind in (("trace_axes", trace_axes, TRACED), ("diagonal_axes", diagonal_axes, DIAGONAL)):
        for axis in axes:
            if not -rank <= axis < rank:
                raise ConfigError(f"{name}: {where} gives outputs of shape {tuple(shape)}, which have no axis {axis}")
            if kinds[axis] not in (FULL, kind):
                raise ConfigError(f"{name}: axis {axis} is in both trace_axes and diagonal_axes")
            kinds[axis] = kind
    return Outputs(tuple(shape), tuple(kinds))


def without_axis(outputs: Outputs, axis: int) -> tuple[Outputs, str]:
    """Returns the outputs without one axis, and that axis's kind."""
    keep = [a for a in range(len(outputs.shape)) if a != axis % len(outputs.shape)]
    return Outputs(tuple(outputs.shape[a] for a in keep), tuple(outputs.kinds[a] for a in keep)), outputs.kinds[axis]


def arrange(kernel: Array, outputs1: Outputs, outputs2: Outputs, examples: tuple[int, str] | None) -> Array:
    """Returns a kernel with its axes in the order of the outputs' axes, pairs side by side.

    Args:
      kernel: [g, i, f, j, F], traced outputs summed; [g, i, f, F] where the examples are a diagonal.
      outputs1: the axes of f(x1).
      outputs2: those of f(x2); they differ at most in the sizes of full axes.
      examples: position and kind of the axis of examples, or None where it is one of `outputs`' axes.
    """
    full, diagonal = outputs1.axes(FULL), outputs1.axes(DIAGONAL)
    first = [outputs1.shape[axis] for axis in full]
    second = [outputs2.shape[axis] for axis in full]
    g = [outputs1.shape[axis] for axis in diagonal]
    paired = kernel.ndim == 5
    n1, n2 = kernel.shape[1], kernel.shape[3] if paired else 1
    kernel = (kernel / max(outputs1.size(TRACED), 1)).reshape(*g, n1, *first, n2, *second)
    start1, start2 = len(g) + 1, len(g) + 2 + len(full)
    order = []
    for axis, kind in enumerate(outputs1.kinds):
        if kind == FULL:
            order.append([start1 + full.index(axis), start2 + full.index(axis)])
        elif kind == DIAGONAL:
            order.append([diagonal.index(axis)])
    ones = []
    if examples is None:
        ones = [len(g), start2 - 1]
    else:
        position, kind = examples
        pair = [len(g), start2 - 1] if kind == FULL else [len(g)] if kind == DIAGONAL else []
        ones = [axis for axis in (len(g), start2 - 1) if axis not in pair]
        before = sum(kind != TRACED for kind in outputs1.kinds[:position])
        order.insert(before, pair)
    flat = [axis for group in order for axis in group]
    return kernel.transpose(*flat, *ones).reshape([kernel.shape[axis] for axis in flat])
