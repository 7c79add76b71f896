"""Reads a kernel that is on disk, slice by slice, and the files that say what it is of and how much of it is there."""

import contextlib
import errno
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aijax.errors import ConfigError, DataError, RunError

ABOUT, LINES = "kernel.json", "chunks.jsonl"


class StoredKernel:
    """A kernel matrix on disk, or one array of a tree of them: slices of it are read when they are asked for.

    Attributes:
      shape, dtype, ndim: as of a NumPy array.
    """

    def __init__(self, folder: Path, name: str = ""):
        self._folder, self._array = folder / name, open_array(folder / name)
        self.shape = tuple(self._array.shape)
        self.dtype = self._array.dtype.numpy_dtype
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Returns the part that NumPy gives for integers, slices with a positive step and `...`."""
        with telling(self._folder, "open it with kernel_blocks and the arguments it was made with to mend it"):
            return self._array[_plain_index(index, self.shape)].read().result()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[...]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"StoredKernel({str(self._folder)!r}, shape={self.shape}, dtype={self.dtype})"


def open_kernel(folder: str | Path) -> StoredKernel | dict[str, StoredKernel]:
    """Returns the kernel that `kernel_blocks(..., store=folder)` has written, to be read slice by slice.

    A kernel that is a tree of arrays is given as `{path: StoredKernel}`.

    Raises:
      ConfigError: no kernel in the folder, or one that is not finished.
    """
    folder = Path(folder)
    about = read_about(folder)
    if about is None:
        raise ConfigError(f"{folder}: holds no kernel (no {ABOUT})")
    done, total = len(read_lines(folder)[0]), count(about)
    if done < total:
        raise ConfigError(
            f"{folder}: not finished, {done} of {total} chunks are there; call kernel_blocks again with the arguments "
            "it was made with to go on"
        )
    if list(about["leaves"]) == [""]:
        return StoredKernel(folder)
    return {name: StoredKernel(folder, leaf_folder(name)) for name in about["leaves"]}


def stored_chunk(folder: str | Path) -> tuple[int, int] | None:
    """Returns the rows of a chunk of the kernel in a folder, or None where there is none."""
    about = read_about(Path(folder))
    return None if about is None else tuple(about["chunk"])


def open_array(folder: Path, leaf: Mapping[str, Any] | None = None, chunk: Sequence[int] = ()) -> Any:
    """Returns the tensorstore of an array, created where `leaf` says of which shape and dtype and it is not there."""
    import tensorstore

    spec: dict[str, Any] = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(folder.resolve()) + os.sep},
        "fill_missing_data_reads": False,
    }
    if leaf is None:
        return tensorstore.open(spec, read=True).result()
    spec["metadata"] = {
        "shape": leaf["shape"],
        "data_type": leaf["dtype"],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*chunk, *leaf["shape"][2:]]}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
    }
    return tensorstore.open(spec, open=True, create=True).result()


@contextlib.contextmanager
def telling(folder: Path, then: str) -> Iterator[None]:
    """Tells what the file system refuses in a sentence that ends in `then`."""
    try:
        yield
    except (ConfigError, RunError, DataError):
        raise
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        if getattr(error, "errno", None) == errno.ENOSPC or "os_error_code='28'" in text or "No space left" in text:
            raise RunError(f"{folder}: the disk is full; {then}") from None
        if isinstance(error, OSError):
            raise RunError(f"{folder}: cannot be written ({error.strerror or text}); {then}") from None
        if re.match("[A-Z_]+: ", text):  # of tensorstore
            raise DataError(f"{folder}: {text[:200]}; {then}") from None
        raise


def read_about(folder: Path) -> dict[str, Any] | None:
    """Returns what a folder's kernel is of, or None where there is no kernel."""
    try:
        about = json.loads((folder / ABOUT).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / ABOUT}: cannot be read: {error}") from None
    if not isinstance(about, dict) or "made_of" not in about:
        raise ConfigError(f"{folder / ABOUT}: is not of a kernel")
    return about


def lines_file(folder: Path, process: int) -> Path:
    """Returns the file that a process appends its lines to."""
    return folder / (f"chunks.{process}.jsonl" if process else LINES)


def read_lines(folder: Path) -> tuple[dict[tuple[int, int], dict[str, Any]], bool]:
    """Returns the line of each chunk, and whether there was one that is cut short or no line of a chunk."""
    lines, torn = {}, False
    texts = [path.read_text(errors="replace") for path in line_files(folder)]
    for part in itertools.chain.from_iterable(text.splitlines(keepends=True) for text in texts):
        try:
            line = json.loads(part) if part.endswith("\n") else None
            lines[tuple(line["chunk"])] = line
        except (ValueError, TypeError, KeyError):
            torn = True
    return lines, torn


def line_files(folder: Path) -> list[Path]:
    """Returns the files of lines that there are, one a process that has written."""
    return sorted(folder.glob("chunks*.jsonl"))


def count(about: Mapping[str, Any]) -> int:
    """Returns how many chunks have a line when the kernel is finished."""
    rows, cols = grid(about)
    return rows * (rows + 1) // 2 if about["made_of"]["x2"] == "x1" else rows * cols


def grid(about: Mapping[str, Any]) -> tuple[int, int]:
    """Returns how many chunks there are of rows and of columns."""
    shape = next(iter(about["leaves"].values()))["shape"]
    return tuple(-(-size // chunk) for size, chunk in zip(shape, about["chunk"], strict=False))


def leaf_folder(name: str) -> str:
    """Returns the folder of an array of a tree, below the store's: paths joined by dots are one Zarr group deep."""
    return name.replace("/", ".")


def _plain_index(index: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Returns an index in numbers that count from the front, one an axis; out of bounds is an `IndexError`."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [part for part in parts if part is Ellipsis]:
        place = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[place : place + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    parts += [slice(None)] * (len(shape) - len(parts))
    if len(parts) != len(shape):
        raise IndexError(f"{len(parts)} indices for an array of {len(shape)} axes")
    plain: list[Any] = []
    for part, size in zip(parts, shape, strict=True):
        if isinstance(part, slice):
            start, stop, step = part.indices(size)
            if step < 1:
                raise IndexError(f"expected a step above 0, got {part}")
            plain.append(slice(start, max(start, stop), step))
        else:
            number = int(part)
            if not -size <= number < size:
                raise IndexError(f"index {number} is out of bounds for an axis of {size}")
            plain.append(number % size)
    return tuple(plain)
