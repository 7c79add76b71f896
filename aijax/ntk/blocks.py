"""Kernel matrices of any size, block by block: over all devices, resumable, in host memory or on disk.

Blocks of rows go round a ring. Of D devices each holds the features of its own columns (for a plain kernel, the rows
of x2 themselves); D blocks of rows of x1 are brought in, one a device, and after each product every device passes its
rows to its neighbour, so that after D products each has met all:

    step s:  device d computes  K[row block I D + (d + s) mod D,  column block J D + d]

All devices work at all times and the features of a row are computed once for all columns held. With x2=None only the
upper triangle is computed: superblocks I <= J, and of those on the diagonal half of the ring, which meets each pair
once; the other triangle is the exact mirror image. Ragged edges are filled with rows that are there already and cut
off, so that every block has one shape and one compiled program.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from aijax import parallel
from aijax.errors import ConfigError, RunError
from aijax.ntk import shares
from aijax.ntk.assembly import Assembly, InMemory, find_mirror
from aijax.ntk.block_programs import (
    NO_ROOM,
    FactoredKernel,
    Programs,
    as_kernel,
    budget_of,
    choose_sizes,
    out_of_memory,
    probe,
    rows_of,
)
from aijax.ntk.checks import check_alike, check_rows
from aijax.ntk.fingerprint import fingerprint
from aijax.progress import bar
from aijax.trees import count_bytes, named_leaves
from aijax.typing import PyTree

__all__ = ["FactoredKernel", "kernel_blocks"]


def kernel_blocks(
    kernel_fn: Callable[..., PyTree],
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    kernel_args: Sequence[Any] = (),
    block_size: int | tuple[int, int] | str = "auto",
    mesh: Mesh | None = None,
    store: str | Path | None = None,
    memory_budget: int | None = None,
    progress: bool | Callable[[int, int], None] | None = None,
    report: Callable[[str], None] | None = None,
) -> PyTree:
    """Returns `kernel_fn(x1, x2, *kernel_args)`, worked out block by block: `[n1, n2, ...]`.

    Args:
      kernel_fn: `kernel_fn(x1, x2, *kernel_args)` of blocks of rows gives an array, or a tree of arrays, whose first
        two axes are the rows of the blocks; entry (i, j) must depend on rows i and j only. It is compiled here. Where
        it takes x2=None, diagonal blocks are computed so. A `FactoredKernel` says what is done once a row.
      x1: `[n1, ...]`, or a tree of such arrays: NumPy, memory-mapped, or anything with `shape` and `dtype` that can be
        sliced (HDF5, Zarr). Only blocks of it are put on devices.
      x2: the same of `[n2, ...]`; None means x1, and that the kernel is symmetric: half is computed.
      kernel_args: further arguments, such as parameters: arrays in any tree are arguments of the compiled program,
        anything else is fixed in it.
      block_size: rows of a block, or a pair for x1 and x2; "auto" takes what fits into `memory_budget`, or what `store`
        already has.
      mesh: the devices, all of them alike; None takes all of this process. A mesh of all processes of a
        `jax.distributed` run shares the work: each process calls this with the same arguments and a `store` that all
        of them reach, and computes and writes its own part.
      store: a folder for the result, a Zarr array bigger than memory (a Zarr group for a tree), written chunk by chunk.
        Killed and called again with the same arguments it goes on, and ends as it would have. See
        `aijax.ntk.open_kernel`.
      memory_budget: bytes of a device that blocks may take; None takes half of what is free, 1 GiB where the device
        does not tell (CPU).
      progress: whether to draw a bar with the time left; None draws one on a terminal when it takes longer than a
        second; a function is called with (chunks done, chunks in all).
      report: told in a sentence of a block that was halved for want of memory and of a damaged chunk; None warns.

    Returns:
      A NumPy array, or the tree of them; with `store` the same of `StoredKernel`, which are read as they are sliced.

    Raises:
      ConfigError: inputs or blocks of wrong shapes, a mesh of other axes, or of several processes without a store, a
        kernel that is not symmetric, a store that was made with other inputs, arguments, kernel or blocks, or a folder
        that holds something else.
      RunError: the disk is full, or one row by one row is more than a device's memory.

    >>> x = np.arange(10.0, dtype=np.float32)[:, None]
    >>> kernel = kernel_blocks(lambda x1, x2: x1 @ x2.T, x, block_size=4)
    >>> bool((kernel == x @ x.T).all())
    True
    """
    mesh, process, processes = check_mesh(mesh, store)
    x1 = host_inputs("x1", x1)
    x2 = None if x2 is None else host_inputs("x2", x2)
    check_alike(x1, x2, [0] * len(jax.tree.leaves(x1)))
    chunk = check_block_size(block_size, x2 is None)
    tell = report or _warn
    kernel = as_kernel(kernel_fn, shares.addressable(kernel_args))
    lengths = rows_of(x1), rows_of(x1 if x2 is None else x2)
    budget = check_budget(memory_budget) or budget_of(mesh)
    output, program = probe(kernel, x1, x2)
    leaves = [jax.ShapeDtypeStruct((*lengths, *leaf.shape[2:]), leaf.dtype) for leaf in jax.tree.leaves(output)]
    programs = None
    if store is not None:
        from aijax.ntk.store import open_store, stored_chunk

        chunk = chunk or stored_chunk(store)
    if chunk is None:
        chunk, programs = choose_sizes(kernel, x1, x2, mesh, budget, processes)
    if processes > 1:
        own_choice, chunk = chunk, shares.of_first(chunk)
        programs = programs if chunk == own_choice else None
    block = chunk = tuple(min(size, length) for size, length in zip(chunk, lengths, strict=True))
    if store is None:
        result: Any = InMemory(leaves, x2 is None)
    else:
        named = dict(zip(named_leaves(output), leaves, strict=True))
        result = open_store(
            store,
            named,
            chunk,
            fingerprint(program, kernel.arrays, x1, x2),
            report=tell,
            process=process,
            processes=processes,
        )
    counts = [-(-length // size) for length, size in zip(lengths, chunk, strict=True)]
    own = shares.own_chunks(counts, x2 is None, mesh.size, process, processes)
    with result, _progress(progress, len(own)) as advance:
        while True:
            programs = programs or Programs(kernel, x1, x2, block, mesh)
            try:
                _compute(programs, result, x1, x2, chunk, own, budget, lambda: advance(len(own & result.done)))
                break
            except jax.errors.JaxRuntimeError as error:
                if not out_of_memory(error):
                    raise
            if max(block) == 1:
                raise RunError(NO_ROOM)
            programs, smaller = None, tuple(-(-size // 2) for size in block)
            tell(
                f"kernel_blocks: a block of {_times(block)} rows is more than the memory of a device; going on with "
                f"{_times(smaller)}"
            )
            block = smaller
    return jax.tree.unflatten(jax.tree.structure(output), result.arrays)


def _compute(
    programs: Programs,
    result: Any,
    x1: PyTree,
    x2: PyTree | None,
    chunk: tuple[int, int],
    own: set[tuple[int, int]],
    budget: int,
    advance: Callable[[], None],
) -> None:
    """Computes those of this process's `own` chunks that `result` does not have yet, in pieces of the size of the
    programs' blocks."""
    lengths = rows_of(x1), rows_of(x1 if x2 is None else x2)
    pieces = [
        parallel.cut_rows(length, size, piece=piece)
        for length, size, piece in zip(lengths, chunk, programs.sizes, strict=True)
    ]
    if x2 is None and result.mirrors is None and (0, 0) not in own:
        result.mirrors = _mirrors(programs, x1, pieces[0], budget)
    assembly = Assembly(result, lengths, chunk, *pieces, own, x2 is None)
    advance()
    for places, block in parallel.fetch(ring(programs, x1, x2, *pieces, assembly.wants, budget)):
        leaves = jax.tree.leaves(block)
        for device, place in enumerate(places):
            if place is not None:
                assembly.add(*place, [leaf[device] for leaf in leaves])
        advance()


def _mirrors(programs: Programs, x1: PyTree, rows: Sequence[slice], budget: int) -> list[tuple[int, ...]]:
    """Returns how axes change places in a mirror image, from a diagonal block: other processes compute those first."""
    (first, *_), block = next(parallel.fetch(ring(programs, x1, None, rows, rows, lambda r, c: r == c, budget)))
    size = first[0].stop - first[0].start
    return [find_mirror(leaf[0][:size, :size]) for leaf in jax.tree.leaves(block)]


def ring(
    programs: Programs,
    x1: PyTree,
    x2: PyTree | None,
    rows: Sequence[slice],
    cols: Sequence[slice],
    wants: Callable[[slice, slice], bool],
    budget: int,
) -> Iterator[tuple[list[tuple[slice, slice] | None], PyTree]]:
    """Yields `(places, block)`: blocks stacked over the devices, still being computed, and the place of each.

    Args:
      programs: what is computed.
      x1, x2: the inputs; x2=None for a symmetric kernel, of which each pair of blocks is met once.
      rows, cols: the pieces of x1 and of x2.
      wants: whether a piece is to be computed; the place of one that is not is None.
      budget: bytes of a device; a quarter may hold features.
    """
    mesh, symmetric = programs.mesh, x2 is None
    devices = mesh.size
    panel = max(1, budget // (4 * max(1, count_bytes(programs.held[1]))))
    supers = [-(-len(pieces) // devices) for pieces in (rows, cols)]
    rotate = parallel.pass_on(mesh)

    def features(side: int, index: int):
        tree, pieces = ((x1, rows), (x1 if symmetric else x2, cols))[side]
        here = pieces[index * devices : (index + 1) * devices]
        stacked = parallel.stack_rows(mesh, tree, here, programs.sizes[side])
        return stacked if programs.features is None else programs.features[side].run(stacked)

    for start in range(0, supers[1], panel):
        held: dict[int, Any] = {}
        for i in range(min(start + panel, supers[0]) if symmetric else supers[0]):
            moving, passed = None, 0
            for step in range(devices):
                for j in range(start, min(start + panel, supers[1])):
                    places = _places(rows, cols, i, j, step, devices, symmetric)
                    places = [place if place is not None and wants(*place) else None for place in places]
                    if not any(places):
                        continue
                    if j not in held:
                        held[j] = features(1, j)
                    if moving is None:
                        moving = held[i] if symmetric and i in held else features(0, i)
                    while passed < step:
                        moving, passed = rotate(moving), passed + 1
                    wanted = [place is not None for place in places]
                    if symmetric and i == j and step == 0:
                        yield places, programs.diagonal.run(held[j], wanted)
                    else:
                        yield places, programs.pair.run(moving, held[j], wanted)


def _places(
    rows: Sequence[slice], cols: Sequence[slice], i: int, j: int, step: int, devices: int, symmetric: bool
) -> list[tuple[slice, slice] | None]:
    """Returns the pieces that meet on each device at a step of the ring; None where there is none, or its mirror image
    is met elsewhere."""
    places: list[tuple[slice, slice] | None] = []
    for device in range(devices):
        row, col = i * devices + (device + step) % devices, j * devices + device
        there = row < len(rows) and col < len(cols)
        if symmetric:
            twice = i == j and (2 * step > devices or (2 * step == devices and device >= step))
            there = there and i <= j and not twice
        places.append((rows[row], cols[col]) if there else None)
    return places


def check_mesh(mesh: Mesh | None, store: str | Path | None) -> tuple[Mesh, int, int]:
    """Returns this process's part of the mesh (None: all of its devices), its number, and how many processes share."""
    if mesh is None:
        return parallel.make_mesh(devices=jax.local_devices()), 0, 1
    if not isinstance(mesh, Mesh) or not set(mesh.axis_names) <= set(parallel.AXES):
        axes = mesh.axis_names if isinstance(mesh, Mesh) else mesh
        raise ConfigError(f"mesh: expected a mesh of aijax.parallel.make_mesh ({', '.join(parallel.AXES)}), got {axes}")
    own, process, processes = shares.process_mesh(mesh)
    if processes > 1 and store is None:
        raise ConfigError(f"store: missing; a mesh of {processes} processes needs a folder that all of them write to")
    return own, process, processes


def host_inputs(name: str, x: PyTree) -> PyTree:
    """Returns a tree of inputs with arrays on devices brought to the host, checked to have rows, one number of them."""
    check_rows(name, x)
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, x)


def check_block_size(block_size: Any, symmetric: bool) -> tuple[int, int] | None:
    """Returns the rows of a block as a pair, or None for "auto"."""
    if isinstance(block_size, str) and block_size == "auto":
        return None
    pair = block_size if isinstance(block_size, (tuple, list)) else (block_size, block_size)
    whole = [isinstance(size, (int, np.integer)) and not isinstance(size, bool) for size in pair]
    if len(pair) != 2 or not all(whole) or min(pair) < 1:
        raise ConfigError(f"block_size: expected rows (1 or more), a pair of them or 'auto', got {block_size!r}")
    if symmetric and pair[0] != pair[1]:
        raise ConfigError(f"block_size: with x2=None blocks are square, got {tuple(pair)}")
    return int(pair[0]), int(pair[1])


def check_budget(memory_budget: int | None) -> int | None:
    """Returns the memory budget, checked."""
    if memory_budget is not None and not memory_budget > 0:
        raise ConfigError(f"memory_budget: expected a number of bytes above 0 or None, got {memory_budget!r}")
    return None if memory_budget is None else int(memory_budget)


def _progress(progress: bool | Callable[[int, int], None] | None, total: int):
    if callable(progress):
        return contextlib.nullcontext(lambda done: progress(done, total))
    return bar("kernel", total, show=progress)


def _times(sizes: tuple[int, int]) -> str:
    return " x ".join(map(str, sizes))


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=3)
