"""From blocks that come in any order to a kernel matrix: chunks, mirror images, and the matrix in host memory.

A chunk is a block of the size that was asked for, and the unit that is done or not; when a device has too little memory
for it, it arrives in smaller pieces. Of a symmetric kernel only chunks of the upper triangle arrive, and

    K[j, i, p, o, ...] = K[i, j, o, p, ...]

gives the others: an output axis that is there twice (o of x1, p of x2) changes places with its twin, one that is there
once (`diagonal_axes` of empirical kernels) stays. Which of them a kernel has is seen from the first diagonal block.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from aijax.errors import ConfigError

Permutation = tuple[int, ...]

SYMMETRY_TOLERANCE = 1e-2
"""What a diagonal block may differ from its mirror image, over its largest entry: rounding at half precision."""


class Result(Protocol):
    """Where chunks go."""

    done: set[tuple[int, int]]
    """The chunks that are there; of a symmetric kernel, those of the upper triangle."""
    mirrors: list[Permutation] | None
    """How the axes of each leaf but the first two change places in a mirror image; None until it is known."""

    def buffers(self, rows: slice, cols: slice) -> list[np.ndarray]:
        """Returns arrays, one a leaf, to write a chunk into."""

    def complete(self, chunk: tuple[int, int], rows: slice, cols: slice, leaves: list[np.ndarray]) -> None:
        """Takes a chunk that is whole."""


class InMemory:
    """A kernel in host memory: one array a leaf."""

    def __init__(self, leaves: Sequence[Any], symmetric: bool):
        self.arrays = [np.empty(leaf.shape, leaf.dtype) for leaf in leaves]
        self.done: set[tuple[int, int]] = set()
        self.mirrors: list[Permutation] | None = None
        self._symmetric = symmetric

    def __enter__(self) -> "InMemory":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held but memory."""

    def buffers(self, rows: slice, cols: slice) -> list[np.ndarray]:
        return [array[rows, cols] for array in self.arrays]

    def complete(self, chunk: tuple[int, int], rows: slice, cols: slice, leaves: list[np.ndarray]) -> None:
        if self._symmetric and chunk[0] != chunk[1]:
            for array, leaf, mirror in zip(self.arrays, leaves, self.mirrors, strict=True):
                array[cols, rows] = mirrored(leaf, mirror)
        self.done.add(chunk)


class Assembly:
    """Gathers pieces into the chunks of a result.

    Args:
      result: where chunks go.
      sizes: rows of x1 and of x2.
      chunk: rows of a chunk, of x1 and of x2.
      rows, cols: the pieces, from `aijax.parallel.cut_rows`; each lies in one chunk.
      own: the chunks that are to come.
      symmetric: whether only the upper triangle comes.
    """

    def __init__(
        self,
        result: Result,
        sizes: tuple[int, int],
        chunk: tuple[int, int],
        rows: Sequence[slice],
        cols: Sequence[slice],
        own: set[tuple[int, int]],
        symmetric: bool,
    ):
        self.result, self.sizes, self.chunk, self.own, self.symmetric = result, sizes, chunk, own, symmetric
        self._pieces = [_counts(pieces, size) for pieces, size in zip((rows, cols), chunk, strict=True)]
        self._open: dict[tuple[int, int], list[Any]] = {}

    def wants(self, rows: slice, cols: slice) -> bool:
        """Returns whether a piece is of a chunk that is to come and not there yet."""
        chunk = self._chunk_of(rows, cols)
        if self.symmetric:
            chunk = tuple(sorted(chunk))
        return chunk in self.own and chunk not in self.result.done

    def add(self, rows: slice, cols: slice, leaves: Sequence[np.ndarray]) -> None:
        """Takes the piece of `rows` and `cols`, whose arrays may have more rows than that: the rest is padding."""
        leaves = [leaf[: rows.stop - rows.start, : cols.stop - cols.start] for leaf in leaves]
        if self.symmetric:
            if self.result.mirrors is None:
                self.result.mirrors = [find_mirror(leaf) for leaf in leaves]
            mirrors = self.result.mirrors
            if rows == cols:
                leaves = [_symmetrized(leaf, mirror) for leaf, mirror in zip(leaves, mirrors, strict=True)]
            if rows.start > cols.start:
                rows, cols = cols, rows
                leaves = [mirrored(leaf, mirror) for leaf, mirror in zip(leaves, mirrors, strict=True)]
        chunk = self._chunk_of(rows, cols)
        (i, j), (height, width) = chunk, self.chunk
        spans = [
            slice(k * size, min((k + 1) * size, whole))
            for k, size, whole in zip(chunk, self.chunk, self.sizes, strict=True)
        ]
        if chunk not in self._open:
            count = self._pieces[0][i] * self._pieces[1][j]
            if self.symmetric and i == j:
                count = self._pieces[0][i] * (self._pieces[0][i] + 1) // 2
            self._open[chunk] = [self.result.buffers(*spans), count]
        entry = self._open[chunk]
        inside = _shifted(rows, i * height), _shifted(cols, j * width)
        for k, leaf in enumerate(leaves):
            entry[0][k][inside] = leaf
            if self.symmetric and i == j and rows != cols:
                entry[0][k][inside[::-1]] = mirrored(leaf, mirrors[k])
        entry[1] -= 1
        if entry[1] == 0:
            del self._open[chunk]
            self.result.complete(chunk, *spans, entry[0])

    def _chunk_of(self, rows: slice, cols: slice) -> tuple[int, int]:
        return rows.start // self.chunk[0], cols.start // self.chunk[1]


def mirrored(block: np.ndarray, mirror: Permutation) -> np.ndarray:
    """Returns the block at the other side of the diagonal.

    >>> mirrored(np.zeros((2, 3, 4, 5)), (1, 0)).shape
    (3, 2, 5, 4)
    """
    return block.transpose(1, 0, *(axis + 2 for axis in mirror))


def find_mirror(block: np.ndarray) -> Permutation:
    """Returns the permutation of the axes after the first two that makes a diagonal block its own mirror image.

    Of several that do, the one with the most axes in pairs is returned.

    Raises:
      ConfigError: none does, so that the kernel is not symmetric.
    """
    block = np.nan_to_num(block.astype(np.float64), posinf=0.0, neginf=0.0)
    size = np.abs(block).max(initial=0.0)
    found = [
        (np.abs(block - mirrored(block, permutation)).max(initial=0.0), permutation)
        for permutation in _pairings(block.shape[2:])
    ]
    least = min(error for error, _ in found)
    if least > SYMMETRY_TOLERANCE * size:
        raise ConfigError(
            f"kernel_fn: with x2=None it must be symmetric, but a diagonal block differs from its mirror image by "
            f"{least:.3g} where its largest entry is {size:.3g}; give x2=x1 to compute all of it"
        )
    return next(permutation for error, permutation in found if error <= 10 * least + 1e-6 * size)


def _pairings(shape: Sequence[int], first: int = 0) -> Iterator[Permutation]:
    """Yields the ways to leave axes where they are or to exchange neighbours of one size, most pairs first."""
    if not shape:
        yield ()
        return
    options = []
    if len(shape) > 1 and shape[0] == shape[1]:
        options.append(((first + 1, first), 2))
    options.append(((first,), 1))
    every = [start + rest for start, used in options for rest in _pairings(shape[used:], first + used)]
    yield from sorted(every, key=lambda permutation: -sum(a != b for a, b in enumerate(permutation, first)))


def _symmetrized(block: np.ndarray, mirror: Permutation) -> np.ndarray:
    """Returns a diagonal block whose lower triangle is the exact mirror image of its upper one."""
    block, lower = block.copy(), np.tril_indices(len(block), -1)
    block[lower] = mirrored(block, mirror)[lower]
    return block


def _counts(pieces: Sequence[slice], chunk: int) -> list[int]:
    """Returns how many pieces each chunk has."""
    groups = itertools.groupby(pieces, key=lambda piece: piece.start // chunk)
    return [len(list(group)) for _, group in groups]


def _shifted(rows: slice, start: int) -> slice:
    return slice(rows.start - start, rows.stop - start)
