"""A kernel computed by several processes: which of its chunks are whose, and what the processes agree on.

The chunks are grouped into superblocks, as many chunks high and wide as a process has devices, so that all of these
work at once. Superblocks are numbered row by row (of a symmetric kernel, those of the upper triangle) and the numbers
are cut into one run a process, all as long: a process meets few rows, and each of them once. Nothing of the kernel
passes between processes; each writes its own chunks to the one store, which all of them reach.
"""

import jax
import numpy as np
from jax.sharding import Mesh

from aijax import parallel
from aijax.errors import ConfigError, RunError
from aijax.typing import Any, Callable, PyTree

Chunk = tuple[int, int]


def process_mesh(mesh: Mesh) -> tuple[Mesh, int, int]:
    """Returns the part of a mesh that is of this process, this process's number among those of the mesh, and theirs.

    Raises:
      ConfigError: the mesh has devices of some of the run's processes but not of all.
    """
    processes = {device.process_index for device in mesh.devices.flat}
    if processes == {jax.process_index()}:
        return mesh, 0, 1
    if processes != set(range(jax.process_count())):
        raise ConfigError(
            f"mesh: expected the devices of all {jax.process_count()} processes or of this one alone, got those of "
            f"{sorted(processes)}"
        )
    own = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    return parallel.make_mesh(devices=own), jax.process_index(), jax.process_count()


def own_chunks(counts: tuple[int, int], symmetric: bool, devices: int, index: int, processes: int) -> set[Chunk]:
    """Returns the chunks that process `index` of several computes.

    Args:
      counts: chunks of rows and of columns.
      symmetric: whether only those of the upper triangle are computed.
      devices: devices of a process.
      index, processes: which process, and how many there are.

    >>> sorted(own_chunks((2, 2), True, 1, 1, 2))
    [(0, 1), (1, 1)]
    """
    rows, cols = (-(-count // devices) for count in counts)
    supers = [(i, j) for i in range(rows) for j in range(i if symmetric else 0, cols)]
    mine = supers[len(supers) * index // processes : len(supers) * (index + 1) // processes]
    return {
        (i, j)
        for row, col in mine
        for i in range(row * devices, min((row + 1) * devices, counts[0]))
        for j in range(col * devices, min((col + 1) * devices, counts[1]))
        if not symmetric or i <= j
    }


def addressable(tree: PyTree) -> PyTree:
    """Returns a tree with this process's copy in place of each array that is held whole on all devices of a mesh."""

    def local(path, leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if not leaf.is_fully_replicated:
            name = jax.tree_util.keystr(path)
            raise ConfigError(f"kernel_args: {name} is cut over processes; expected an array that each has whole")
        return leaf.addressable_data(0)

    return jax.tree_util.tree_map_with_path(local, tree)


def of_first(pair: tuple[int, int]) -> tuple[int, int]:
    """Returns the first process's pair of numbers, in every process."""
    from jax.experimental import multihost_utils

    first, second = multihost_utils.broadcast_one_to_all(np.asarray(pair, np.int32))
    return int(first), int(second)


def in_turn(first: bool, function: Callable[[], Any], what: str) -> Any:
    """Returns `function()` of each process, that of the first process before those of the others.

    Raises:
      RunError: it has failed in another process, which says why; in this one, whatever it raises.
    """
    result, error = None, None
    for turn in (True, False):
        if first == turn:
            try:
                result = function()
            except Exception as raised:
                error = raised
        if not _all_well(error is None):
            raise error or RunError(f"{what} has failed in another process, which says why")
    return result


def wait() -> None:
    """Returns when every process has come here."""
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("kernel_blocks")


def _all_well(well: bool) -> bool:
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.asarray(well)).all())
