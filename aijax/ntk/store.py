"""A kernel on disk: a Zarr array bigger than memory, written chunk by chunk, each either there or not.

    DIR/zarr.json, DIR/c/...    the array (Zarr format 3, one chunk a block); for a tree, a group with an array a leaf
    DIR/kernel.json             what it is of: checksums of inputs, arguments and kernel; shapes; chunks
    DIR/chunks.jsonl            a line a chunk that is there, with the checksum of its values (DIR/chunks.1.jsonl and so
                                on: lines of further processes that write to it)

A chunk is written to a temporary file, flushed and renamed; then its line is appended. Whenever the process ends, what
has a line is whole; a line cut short does not count. Of a symmetric kernel both triangles are written, so that any
reader of Zarr sees the whole matrix; a line stands for a chunk and its mirror image. Opened to go on, every chunk that
has a line is read, and one whose values are not those that were written is computed again.
"""

import collections
import contextlib
import fcntl
import functools
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aijax.errors import ConfigError
from aijax.ntk import shares
from aijax.ntk.assembly import Permutation, mirrored
from aijax.ntk.stored import (
    ABOUT,
    LINES,
    StoredKernel,
    count,
    grid,
    leaf_folder,
    line_files,
    lines_file,
    open_array,
    open_kernel,
    read_about,
    read_lines,
    stored_chunk,
    telling,
)

__all__ = ["KernelStore", "StoredKernel", "open_kernel", "open_store", "stored_chunk"]

LOCK = ".lock"
VERSION = 1
WRITES_AHEAD = 4
"""Chunks that may be on their way to the disk."""


def open_store(
    folder: str | Path,
    leaves: Mapping[str, Any],
    chunk: tuple[int, int],
    made_of: Mapping[str, str],
    *,
    report: Callable[[str], None],
    process: int = 0,
    processes: int = 1,
) -> "KernelStore":
    """Returns the store in a folder, to write into or to go on with; a new one where the folder is empty or missing.

    Args:
      folder: the folder.
      leaves: path to shape and dtype of each array.
      chunk: rows of a chunk.
      made_of: from `aijax.ntk.fingerprint.fingerprint`.
      report: told in a sentence of chunks that are damaged.
      process, processes: which of the processes that write to it at once this is, and how many these are.

    Raises:
      ConfigError: the folder holds something else or a kernel of something else, or another process writes to it.
      RunError: another of the `processes` cannot open it.
    """
    if processes > 1:
        turn = functools.partial(_open_one, Path(folder), leaves, chunk, made_of, report, process, processes)
        return shares.in_turn(process == 0, turn, f"store: opening {folder}")
    return _open_one(Path(folder), leaves, chunk, made_of, report, 0, 1)


def _open_one(
    folder: Path,
    leaves: Mapping[str, Any],
    chunk: tuple[int, int],
    made_of: Mapping[str, str],
    report: Callable[[str], None],
    process: int,
    processes: int,
) -> "KernelStore":
    if folder.is_file():
        raise ConfigError(f"store: {folder} is a file; expected a folder")
    about = {
        "version": VERSION,
        "made_of": dict(made_of),
        "chunk": list(chunk),
        "leaves": {name: {"shape": list(leaf.shape), "dtype": _storable(leaf.dtype)} for name, leaf in leaves.items()},
    }
    before = read_about(folder)
    if before is None and folder.exists() and {path.name for path in folder.iterdir()} - {LOCK}:
        raise ConfigError(f"store: {folder} is not empty and holds no kernel (no {ABOUT}); choose another folder")
    if before is not None:
        different = _differences(before, about)
        if different:
            raise ConfigError(
                f"store: {folder} holds a kernel made with other {' and other '.join(different)}; choose another folder"
            )
    with telling(folder, "nothing has been written"):
        return KernelStore(
            folder, before or about, new=before is None, report=report, process=process, processes=processes
        )


class KernelStore:
    """A store open for writing: the `Result` of an assembly, on disk."""

    def __init__(
        self,
        folder: Path,
        about: dict[str, Any],
        *,
        new: bool,
        report: Callable[[str], None],
        process: int = 0,
        processes: int = 1,
    ):
        self.folder, self.about, self._processes = folder, about, processes
        self._lock = contextlib.ExitStack()
        if process == 0:
            self._lock.enter_context(_locked(folder))
        if new:
            _write_whole(folder / ABOUT, json.dumps(about, indent=2) + "\n")
        if process == 0 and list(about["leaves"]) != [""]:
            group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
            _write_whole(folder / "zarr.json", json.dumps(group) + "\n")
        self._arrays = [
            open_array(folder / leaf_folder(name), leaf, about["chunk"]) for name, leaf in about["leaves"].items()
        ]
        self.symmetric = about["made_of"]["x2"] == "x1"
        self._pending: collections.deque[tuple[list[Any], dict[str, Any]]] = collections.deque()
        lines, torn = read_lines(folder)
        if process == 0:
            self._recover(lines, torn, report)
        self.done: set[tuple[int, int]] = set(lines)
        self.mirrors: list[Permutation] | None = next(
            (list(map(tuple, line["mirrors"])) for line in lines.values() if "mirrors" in line), None
        )
        self._written = len(lines)
        self._lines = lines_file(folder, process).open("a")

    @property
    def arrays(self) -> list[StoredKernel]:
        """The arrays, to be read."""
        return [StoredKernel(self.folder, leaf_folder(name)) for name in self.about["leaves"]]

    def __enter__(self) -> "KernelStore":
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            self._settle(0 if kind is None else len(self._pending))
            if kind is None and self._processes > 1:
                shares.wait()
        finally:
            self._lines.close()
            self._lock.close()

    def buffers(self, rows: slice, cols: slice) -> list[np.ndarray]:
        shape = rows.stop - rows.start, cols.stop - cols.start
        return [np.empty((*shape, *array.shape[2:]), array.dtype.numpy_dtype) for array in self._arrays]

    def complete(self, chunk: tuple[int, int], rows: slice, cols: slice, leaves: list[np.ndarray]) -> None:
        line = {"chunk": list(chunk), "crc": [_crc(leaf) for leaf in leaves]}
        futures = [array[rows, cols].write(leaf) for array, leaf in zip(self._arrays, leaves, strict=True)]
        if self.symmetric:
            line["mirrors"] = [list(mirror) for mirror in self.mirrors]
            if chunk[0] != chunk[1]:
                twins = [
                    np.ascontiguousarray(mirrored(leaf, mirror))
                    for leaf, mirror in zip(leaves, self.mirrors, strict=True)
                ]
                line["twin_crc"] = [_crc(twin) for twin in twins]
                futures += [array[cols, rows].write(twin) for array, twin in zip(self._arrays, twins, strict=True)]
        self._pending.append((futures, line))
        self.done.add(chunk)
        self._settle(WRITES_AHEAD)

    def _settle(self, left: int) -> None:
        """Waits until at most `left` chunks are on their way, and appends the lines of those that have arrived."""
        while len(self._pending) > left:
            futures, line = self._pending.popleft()
            total = count(self.about)
            with telling(self.folder, f"{self._written} of {total} chunks are there, and the next call goes on"):
                for future in futures:
                    future.result()
                self._lines.write(json.dumps(line) + "\n")
                self._lines.flush()
            self._written += 1

    def _recover(self, lines: dict[tuple[int, int], Any], torn: bool, report: Callable[[str], None]) -> None:
        """Reads the chunks of the lines, drops the lines of those that are damaged, and leaves one file of lines."""
        verified = dict(self._verified(list(lines.values())))
        damaged = [chunk for chunk, whole in verified.items() if not whole]
        for chunk in damaged:
            del lines[chunk]
        self._remove_the_rest(set(lines))
        others = [path for path in line_files(self.folder) if path.name != LINES]
        if damaged or torn or others:
            _write_whole(self.folder / LINES, "".join(json.dumps(line) + "\n" for line in lines.values()))
        for path in others:
            path.unlink()
        if damaged:
            named = ", ".join(map(str, damaged[:3])) + (", ..." if len(damaged) > 3 else "")
            report(f"{self.folder}: {len(damaged)} of {len(verified)} chunks are damaged ({named}) and computed again")

    def _verified(self, lines: Any) -> Iterator[tuple[tuple[int, int], bool]]:
        """Yields each chunk and whether its values are those that were written, a few being read at a time."""
        waiting: collections.deque[tuple[dict[str, Any], list[Any]]] = collections.deque()

        def first() -> tuple[tuple[int, int], bool]:
            line, reads = waiting.popleft()
            try:
                found = [_crc(np.ascontiguousarray(read.result())) for read in reads]
            except ValueError:  # the chunk's file is missing, cut short or fails its own checksum
                found = []
            return tuple(line["chunk"]), found == line["crc"] + line.get("twin_crc", [])

        for line in lines:
            i, j = line["chunk"]
            places = [self._span(i, j)] + ([self._span(j, i)] if "twin_crc" in line else [])
            waiting.append((line, [array[place].read() for place in places for array in self._arrays]))
            if len(waiting) > WRITES_AHEAD:
                yield first()
        while waiting:
            yield first()

    def _remove_the_rest(self, kept: set[tuple[int, int]]) -> None:
        """Removes the files of chunks that do not count: one at the edge, smaller than its file, would be read."""
        rows, cols = grid(self.about)
        for i, j in itertools.product(range(rows), range(cols)):
            if (tuple(sorted((i, j))) if self.symmetric else (i, j)) not in kept:
                for name, leaf in self.about["leaves"].items():
                    place = [str(k) for k in (i, j, *[0] * (len(leaf["shape"]) - 2))]
                    self.folder.joinpath(leaf_folder(name), "c", *place).unlink(missing_ok=True)

    def _span(self, i: int, j: int) -> tuple[slice, slice]:
        shape, chunk = next(iter(self.about["leaves"].values()))["shape"], self.about["chunk"]
        return tuple(
            slice(k * size, min((k + 1) * size, whole)) for k, size, whole in zip((i, j), chunk, shape, strict=False)
        )


def _locked(folder: Path) -> Any:
    """Returns the open file whose lock says that this process, or those that go with it, write to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / LOCK).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ConfigError(f"store: another process writes to {folder}; wait for it or choose another") from None
    return lock


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns the words for what two kernels do not share."""
    was, found = before.get("made_of", {}), []
    names = {"x1": "inputs x1", "x2": "inputs x2", "kernel_args": "kernel_args"}
    for key, value in now["made_of"].items():
        if key != "jax" and was.get(key) != value:
            found.append(names.get(key, key))
    if "kernel_fn" in found and was.get("jax") != now["made_of"]["jax"]:
        found.append(f"JAX ({was.get('jax')}, this is {now['made_of']['jax']})")
    if before.get("chunk") != now["chunk"]:
        found.append(f"block_size ({before.get('chunk')}, not {now['chunk']})")
    shapes = [
        {name: (tuple(leaf["shape"]), leaf["dtype"]) for name, leaf in about.get("leaves", {}).items()}
        for about in (before, now)
    ]
    if shapes[0] != shapes[1] and not found:
        found.append(f"shapes or types of the result ({shapes[0]}, not {shapes[1]})")
    if before.get("version") != VERSION:
        found.append(f"version of the store ({before.get('version')}, not {VERSION})")
    return found


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _storable(dtype: Any) -> str:
    """Returns the type that values are stored as: float32 for the 16-bit types that other readers may not know."""
    name = np.dtype(dtype).name
    return name if np.dtype(dtype).kind in "biufc" else "float32"


def _crc(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data)
