"""Work that is too big for the devices at once, cut into blocks of rows.

`cut_rows` says which, `stack_rows` puts one on each device, `each_device` runs a function of blocks there, `pass_on`
sends blocks round the ring of devices, and `fetch` brings results to the host while the next are computed.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aijax.typing import PyTree


def cut_rows(size: int, block: int, *, piece: int | None = None) -> list[slice]:
    """Returns the slices that cut `size` rows into blocks, and each block into pieces of at most `piece` rows.

    >>> cut_rows(10, 4)
    [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    >>> cut_rows(5, 4, piece=3)
    [slice(0, 3, None), slice(3, 4, None), slice(4, 5, None)]
    """
    ends = [min(start + block, size) for start in range(0, size, block)]
    piece = block if piece is None else piece
    return [
        slice(first, min(first + piece, end))
        for start, end in zip(range(0, size, block), ends, strict=True)
        for first in range(start, end, piece)
    ]


def stack_rows(mesh: Mesh, tree: PyTree, rows: Sequence[slice], block: int) -> PyTree:
    """Returns blocks of rows of host arrays on the mesh, one a device: `[devices, block, ...]`.

    Args:
      mesh: any mesh.
      tree: array-likes with `shape` that can be sliced: NumPy, memory-mapped, HDF5, Zarr.
      rows: which rows each device gets, at most `block`; its last row is repeated up to `block`, and devices without
        rows get those of the last.
      block: rows of a block.
    """
    rows = [*rows, *[rows[-1]] * (mesh.size - len(rows))]
    placed = stack_sharding(mesh)

    def stack(leaf):
        blocks = [np.asarray(leaf[part]) for part in rows]
        blocks = [x[np.minimum(np.arange(block), len(x) - 1)] if len(x) < block else x for x in blocks]
        return jax.device_put(blocks[0][None] if len(blocks) == 1 else np.stack(blocks), placed)

    return jax.tree.map(stack, tree)


def stack_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that gives each device of the mesh one entry of an array's first axis."""
    return NamedSharding(mesh, P(mesh.axis_names))


def each_device(function: Callable, mesh: Mesh | None, *, whole: int = 0) -> Callable:
    """Returns `function`, to be compiled, run once on each device of the mesh, each on a block of its own.

    Blocks are stacked: the first axis of each array, and of each result, has one entry a device (`stack_rows`). The
    devices do not talk, and a gradient that is taken inside is of the device's own block.

    Args:
      function: any function of trees of arrays.
      mesh: any mesh; all of its axes are used alike. None is one device.
      whole: how many of the first arguments are no blocks: each device has them whole.

    >>> from aijax.parallel import make_mesh
    >>> mesh = make_mesh()
    >>> x = stack_rows(mesh, np.arange(16.0), cut_rows(16, 16 // mesh.size), 16 // mesh.size)
    >>> float(jax.jit(each_device(lambda x: x.sum(), mesh))(x).sum())
    120.0
    """

    def one(*arguments):
        blocks = jax.tree.map(lambda x: x[0], arguments[whole:])
        return jax.tree.map(lambda x: jnp.expand_dims(x, 0), function(*arguments[:whole], *blocks))

    if mesh is None or mesh.size == 1:
        return one

    def all_devices(*arguments):
        specs = (P(),) * whole + (P(mesh.axis_names),) * (len(arguments) - whole)
        # unchecked: a function that was written for one device need not say which of its values differ between devices
        return jax.shard_map(one, mesh=mesh, in_specs=specs, out_specs=P(mesh.axis_names), check_vma=False)(*arguments)

    return all_devices


def pass_on(mesh: Mesh) -> Callable[[PyTree], PyTree]:
    """Returns the compiled function that gives each device the block of the next, and the last that of the first."""

    def rotate(tree):
        return jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), tree)

    return jax.jit(rotate, out_shardings=stack_sharding(mesh))


def fetch(results: Iterable[tuple[Any, PyTree]], *, ahead: int = 2) -> Iterator[tuple[Any, PyTree]]:
    """Yields each `(label, tree)` with the tree's arrays in host memory, `ahead` more being computed meanwhile."""
    waiting: collections.deque[tuple[Any, PyTree]] = collections.deque()
    for label, tree in results:
        for leaf in jax.tree.leaves(tree):
            leaf.copy_to_host_async()
        waiting.append((label, tree))
        if len(waiting) > ahead:
            label, tree = waiting.popleft()
            yield label, jax.device_get(tree)
    while waiting:
        label, tree = waiting.popleft()
        yield label, jax.device_get(tree)
