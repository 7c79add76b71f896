"""Kernel functions that work in blocks: `batch` turns `kernel_fn(x1, x2, ...)` into the same function in less memory.

Any sizes will do. What a kernel function gives may be an array, a `Kernel` of `aijax.ntk.stax` or any tree of them. How
a result of the whole is put together from those of blocks is seen from shapes: of each array, the axis that shrinks
when x1 has a row less, and the axis that shrinks when x2 has.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aijax import parallel
from aijax.errors import ConfigError
from aijax.ntk.arguments import check_flag, check_function, whole
from aijax.ntk.assembly import find_mirror, mirrored
from aijax.ntk.block_programs import KernelParts, Programs, budget_of, split_arrays
from aijax.ntk.blocks import host_inputs, ring
from aijax.ntk.checks import check_alike
from aijax.ntk.stax.kernel import Kernel
from aijax.trees import named_leaves
from aijax.typing import PyTree

Axes = tuple[int | None, int | None]
"""The axes of an array of the result that run over the rows of x1 and of x2, where it has them."""
Blocks = dict[tuple[int, int], dict[str, Any]]
"""The arrays of each block, by its place in the grid of blocks."""

_ARRAY = "an array"


def batch(
    kernel_fn: Callable[..., PyTree], batch_size: int = 0, device_count: int = -1, store_on_device: bool = True
) -> Callable[..., PyTree]:
    """Returns `batched_kernel_fn(x1, x2=None, *args, **kwargs)`, equal to `kernel_fn`, worked out in blocks.

    Args:
      kernel_fn: infinite or empirical: `kernel_fn(x1, x2, *args, **kwargs)`; x1 may be a `Kernel` (or a tree of them)
        where it takes one. Arrays among the further arguments, such as parameters, may change from call to call
        without compiling again. A pair of arrays `pattern` is cut with the rows of x1 and x2.
      batch_size: rows of a block; 0 shares the rows among the devices.
      device_count: devices that work at the same time, -1 for all, 0 for one. Inside `jax.jit`, and for a `Kernel`,
        one block is computed after the other.
      store_on_device: whether the result is on a device or in host memory (NumPy).

    Raises:
      ConfigError: a batch size or a number of devices that cannot be used; rows of x1 and x2 that differ in shape; a
        kernel that is not symmetric with x2=None; covariances of x1 with itself among the results, which blocks of x1
        and x2 do not hold.

    >>> kernel_fn = batch(lambda x1, x2: x1 @ x2.T, batch_size=2)
    >>> kernel_fn(jnp.ones((5, 3)), jnp.ones((4, 3))).shape
    (5, 4)
    """
    check_function("kernel_fn", kernel_fn)
    check_flag("store_on_device", store_on_device)
    batch_size = whole("batch_size", batch_size, 0, "the rows of a block, or 0")
    devices = jax.local_devices()
    if isinstance(device_count, bool) or not isinstance(device_count, int) or not -1 <= device_count <= len(devices):
        raise ConfigError(f"device_count: expected -1 (all) to {len(devices)}, got {device_count!r}")
    mesh = parallel.make_mesh(devices=devices if device_count == -1 else devices[: max(1, device_count)])
    jitted: dict[Any, Callable] = {}

    @functools.wraps(kernel_fn, updated=())
    def batched_kernel_fn(x1, x2=None, *args, **kwargs):
        arrays = all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in jax.tree.leaves((x1, x2)))
        if batch_size == 0 and mesh.size == 1 and arrays:
            found = _compiled(kernel_fn, False, (x1, x2, args, kwargs), jitted)
            return found if store_on_device or _is_traced((x1, x2, args, kwargs)) else jax.device_get(found)
        problem = _Problem(kernel_fn, x1, x2, args, kwargs)
        here = [-(-n // mesh.size) if batch_size == 0 else min(int(batch_size), n) for n in problem.sizes]
        pieces = [parallel.cut_rows(n, b) for n, b in zip(problem.sizes, here, strict=True)]
        traced = _is_traced((x1, x2, args, kwargs))
        if max(map(len, pieces)) == 1:
            found = _block(problem, *(slice(n) for n in problem.sizes), jitted)
            return found if store_on_device or traced else jax.device_get(found)
        problem.measure()
        if traced or problem.of_kernels:
            blocks = _one_after_the_other(problem, pieces, jitted)
            return problem.join(blocks, pieces, jnp if store_on_device or traced else np)
        blocks = _over_devices(problem, pieces, tuple(here), mesh)
        joined = problem.join(blocks, pieces, np)
        return jax.tree.map(jnp.asarray, joined) if store_on_device else joined

    return batched_kernel_fn


class _Problem:
    """A call of a kernel function: its inputs, how to cut them, and how its result is put together."""

    def __init__(self, kernel_fn: Callable, x1: PyTree, x2: PyTree | None, args: tuple, kwargs: dict):
        self.kernel_fn, self.args, self.kwargs = kernel_fn, args, dict(kwargs)
        x2 = x2 if jax.tree.leaves(x2) else None
        self.of_kernels = any(map(_is_kernel, jax.tree.leaves(x1, is_leaf=_is_kernel)))
        pattern = self.kwargs.get("pattern")
        self.cut_pattern = isinstance(pattern, (tuple, list)) and len(pattern) == 2
        if self.cut_pattern:
            del self.kwargs["pattern"]
            x1, x2 = (x1, pattern[0]), None if x2 is None and not self.of_kernels else (x2, pattern[1])
        self.x1, self.x2 = x1, x2
        self.symmetric = x2 is None and not self.of_kernels
        if self.of_kernels:
            kernel = next(leaf for leaf in jax.tree.leaves(x1, is_leaf=_is_kernel) if _is_kernel(leaf))
            self.sizes = tuple(kernel.nngp.shape[:2])
        else:
            self.x1 = x1 = host_inputs("x1", x1) if not _is_traced(x1) else x1
            self.x2 = x2 = host_inputs("x2", x2) if x2 is not None and not _is_traced(x2) else x2
            check_alike(x1, x2, [0] * len(jax.tree.leaves(x1)))
            self.sizes = tuple(jax.tree.leaves(x)[0].shape[0] for x in (x1, x1 if x2 is None else x2))
        self.arrays, self._arguments = split_arrays((self.args, self.kwargs))

    def call(self, arrays: Sequence[Any], x1: PyTree, x2: PyTree | None) -> PyTree:
        """Returns the kernel of two blocks, given the arrays among the further arguments."""
        return _call(self.kernel_fn, self.cut_pattern, x1, x2, *self._arguments(arrays))

    def cut(self, rows: slice, cols: slice) -> tuple[PyTree, PyTree | None]:
        """Returns the inputs of one block."""
        if not self.of_kernels:
            same = self.symmetric and rows == cols
            second = self.x1 if self.symmetric else self.x2
            return _rows(self.x1, rows), None if same else _rows(second, cols)

        def part(leaf, side):
            return leaf.slice(rows, cols) if _is_kernel(leaf) else leaf[side]

        x1 = jax.tree.map(lambda leaf: part(leaf, rows), self.x1, is_leaf=_is_kernel)
        return x1, jax.tree.map(lambda leaf: part(leaf, cols), self.x2, is_leaf=_is_kernel)

    def measure(self) -> None:
        """Finds the shapes of the whole result, `output`, and the `axes` of each of its arrays, by leaving rows out.

        Raises:
          ConfigError: a result that cannot be put together from blocks.
        """
        (n1, n2), arrays = self.sizes, self.arrays

        def shapes(rows, cols):
            # blocks as arguments: a kernel function that looks at its inputs must see that they have no values
            return jax.eval_shape(self.call, arrays, *self.cut(slice(rows), slice(cols)))

        output = shapes(n1, n2)
        whole = {name: leaf.shape for name, leaf in named_leaves(output).items()}
        fewer = [
            named_leaves(shapes(*sizes)) if min(sizes) > 0 else None
            for sizes in ((n1 - 1, n2 - self.symmetric), (n1 - self.symmetric, n2 - 1))
        ]
        axes = {}
        for name, shape in whole.items():
            found = [
                [axis for axis, size in enumerate(shape) if less is not None and less[name].shape[axis] != size]
                for less in fewer
            ]
            if self.symmetric:
                found = [found[0][:1], found[0][1:]]
            if any(len(each) > 1 for each in found):
                raise ConfigError(
                    f"kernel_fn: '{name}' of shape {shape} is a covariance of one batch with itself, which blocks of "
                    "both do not hold; ask for it with diagonal_batch=True, or with x2=None"
                )
            axes[name] = tuple(each[0] if each else None for each in found)
            if any(
                shape[axis] - less[name].shape[axis] != 1
                for less, each in zip(fewer, found, strict=True)
                for axis in each
            ):
                raise ConfigError(
                    f"kernel_fn: {name or 'a result'} of shape {shape} has not one row for each row of x1 and of x2, "
                    "and cannot be put together from blocks; leave batch_size and device_count at 0"
                )
        if all(each == (None, None) for each in axes.values()):
            raise ConfigError("kernel_fn: expected a kernel with an axis for the rows of x1 or of x2, got none")
        self.output, self.axes = output, axes

    def wanted(self, block: PyTree, *, diagonal: bool) -> dict[str, Any]:
        """Returns the arrays of a block that the result is made of: beside the diagonal of a symmetric kernel, those
        alone that depend on both batches."""
        leaves = named_leaves(block)
        return {name: leaves[name] for name, axes in self.axes.items() if diagonal or None not in axes}

    def join(self, blocks: Blocks, pieces: Sequence[Sequence[slice]], xp: Any) -> PyTree:
        """Returns the whole result, put together by `xp` (NumPy or jax.numpy)."""
        rows, cols = (range(len(side)) for side in pieces)

        def whole(name, row, col):
            if row is None and col is None:
                if not jnp.issubdtype(jnp.result_type(blocks[0, 0][name]), jnp.bool_):
                    return blocks[0, 0][name]
                # whether x1 is x2: where all blocks that lie on the diagonal say so
                told = [blocks[i, i][name] for i in range(min(len(rows), len(cols)))]
                return xp.asarray(functools.reduce(xp.logical_and, told) & (self.sizes[0] == self.sizes[1]))
            if row is None:
                return xp.concatenate([blocks[0, j][name] for j in cols], col)
            if col is None:
                return xp.concatenate([blocks[i, i if self.symmetric else 0][name] for i in rows], row)
            return xp.concatenate([xp.concatenate([blocks[i, j][name] for j in cols], col) for i in rows], row)

        leaves = [whole(name, *axes) for name, axes in self.axes.items()]
        return jax.tree.unflatten(jax.tree.structure(self.output), leaves)


def _over_devices(problem: _Problem, pieces: Sequence[Sequence[slice]], sizes: tuple[int, int], mesh: Any) -> Blocks:
    """Returns the blocks, computed on all devices; of a symmetric kernel, half of them."""
    symmetric = problem.symmetric
    kernel = KernelParts(
        problem.arrays,
        None,
        lambda arrays, x1, x2: problem.wanted(problem.call(arrays, x1, x2), diagonal=not symmetric),
        lambda arrays, x: problem.wanted(problem.call(arrays, x, None), diagonal=True),
    )
    programs = Programs(kernel, problem.x1, problem.x2, sizes, mesh, check=False)
    results = ring(programs, problem.x1, problem.x2, *pieces, lambda *_: True, budget_of(mesh))
    numbers = [{piece.start: k for k, piece in enumerate(side)} for side in pieces]
    both = [name for name, axes in problem.axes.items() if None not in axes]
    blocks: Blocks = {}
    mirrors: dict[str, tuple[int, ...]] | None = None
    for places, stacked in parallel.fetch(results):
        for device, place in enumerate(places):
            if place is None:
                continue
            i, j = (number[side.start] for number, side in zip(numbers, place, strict=True))
            block = {name: _unpadded(leaf[device], problem.axes[name], place) for name, leaf in stacked.items()}
            blocks[i, j] = block
            if symmetric and mirrors is None:
                mirrors = {name: find_mirror(block[name]) for name in both}
            if symmetric and i != j:
                blocks[j, i] = {name: mirrored(block[name], mirrors[name]) for name in both}
    return blocks


def _one_after_the_other(problem: _Problem, pieces: Sequence[Sequence[slice]], jitted: dict[Any, Callable]) -> Blocks:
    """Returns the blocks, each computed by a compiled function of its own shape."""
    return {
        (i, j): problem.wanted(_block(problem, rows, cols, jitted), diagonal=not problem.symmetric or i == j)
        for (i, rows), (j, cols) in itertools.product(*map(enumerate, pieces))
    }


def _block(problem: _Problem, rows: slice, cols: slice, jitted: dict[Any, Callable]) -> PyTree:
    """Returns the kernel of one block."""
    arguments = (*problem.cut(rows, cols), problem.args, problem.kwargs)
    return _compiled(problem.kernel_fn, problem.cut_pattern, arguments, jitted)


def _compiled(kernel_fn: Callable, cut_pattern: bool, arguments: tuple, jitted: dict[Any, Callable]) -> PyTree:
    """Returns the kernel of `(x1, x2, args, kwargs)`, by a function that is compiled once for all that look alike."""
    arrays, with_arrays = split_arrays(arguments)
    leaves, structure = jax.tree.flatten(with_arrays([_ARRAY] * len(arrays)))
    key = cut_pattern, structure, tuple(leaves)
    if key not in jitted:
        jitted[key] = jax.jit(lambda arrays: _call(kernel_fn, cut_pattern, *with_arrays(arrays)))
    return jitted[key](arrays)


def _call(kernel_fn: Callable, cut_pattern: bool, x1: PyTree, x2: PyTree | None, args: tuple, kwargs: dict) -> PyTree:
    """Returns the kernel of two blocks; with `cut_pattern` each comes with its part of the pattern."""
    if cut_pattern:
        kwargs = {**kwargs, "pattern": (x1[1], (x1 if x2 is None else x2)[1])}
        x1, x2 = x1[0], None if x2 is None else x2[0]
    return kernel_fn(x1, x2, *args, **kwargs)


def _rows(x: PyTree, rows: slice) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[rows], x)


def _unpadded(leaf: np.ndarray, axes: Axes, place: tuple[slice, slice]) -> np.ndarray:
    """Returns an array of a block without what was added to make its rows as many as those of any other."""
    leaf = np.asarray(leaf)
    for axis, side in zip(axes, place, strict=True):
        if axis is not None:
            leaf = leaf[(slice(None),) * axis + (slice(side.stop - side.start),)]
    return leaf


def _is_kernel(leaf: Any) -> bool:
    return isinstance(leaf, Kernel)


def _is_traced(tree: PyTree) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))
