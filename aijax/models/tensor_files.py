"""Files of published weights: safetensors, one or several with an index, and the `.npz` files of Google.

A safetensors file is 8 bytes of the header's length, a header in JSON that gives each tensor's type, shape and place,
and the numbers. Tensors are mapped from the file and read when they are used, and of a tensor only what is used.
"""

import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from aijax.errors import DataError
from aijax.typing import Any, Array

DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip
PREFERRED = (
    "model", "weights", "diffusion_pytorch_model", "open_clip_model", "open_clip_pytorch_model", "pytorch_model",
)  # fmt: skip
"""Names of files of weights; where a folder has other safetensors beside one of them, that one is meant."""
LISTED = 6
"""Most names that a message lists."""


def read_tensors(path: str | Path) -> Mapping[str, np.ndarray]:
    """Returns the tensors of a `.npz` or safetensors file, of all that an index lists, or of a folder with either.

    They lie in the file until they are used. In a folder, files without a variant in their names ("model.safetensors"
    before "model.fp16.safetensors") are taken.

    Raises:
      DataError: no file, more than one to choose from, or a file that is cut short or is none of this format.
    """
    path = find_file(path)
    if not path.is_file():
        raise DataError(f"{path}: expected a file of weights, an index of several or a folder with one; there is none")
    if path.name.endswith(".index.json"):
        return _read_index(path)
    return ArchiveFile(path) if path.suffix == ".npz" else TensorFile(path)


def find_file(path: str | Path) -> Path:
    """Returns the file of weights or the index that `read_tensors` reads, the one of a folder, or the path itself.

    Raises:
      DataError: a folder with none, or with more than one to choose from.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.safetensors.index.json"))
    if not found:
        files = sorted(path.glob("*.safetensors"))
        plain = [file for file in files if "." not in file.name.removesuffix(".safetensors")]
        found = (plain or files) + sorted(path.glob("*.npz"))
    if len(found) > 1:
        found = [file for file in found if file.name.split(".")[0] in PREFERRED] or found
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise DataError(f"{path}: expected one safetensors file or one index of several, got {names}")
    return found[0]


def write_tensors(path: str | Path, tensors: Mapping[str, Array]) -> None:
    """Writes tensors to a `.npz` file, or to a safetensors file in the order of their names."""
    path, arrays = Path(path), {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    new = path.with_name(f".{path.name}.new")
    if path.suffix == ".npz":
        with open(new, "wb") as file:
            np.savez(file, **arrays)
    else:
        safetensors.numpy.save_file(arrays, str(new), metadata={"format": "pt"})
    os.replace(new, path)


def read_object(path: Path, what: str) -> dict[str, Any]:
    """Returns the JSON object in a file of what is published, such as "the config of a model".

    Raises:
      DataError: no such file, or one that holds no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected {what}, got {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected {what}, got {type(content).__name__}")
    return content


def listed(names: list[str]) -> str:
    """Returns the first names as text, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


class TensorFile(Mapping[str, np.ndarray]):
    """The tensors of one safetensors file, mapped into memory."""

    def __init__(self, path: Path):
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if size < 8 or length > size - 8:
                raise DataError(f"{path}: expected a safetensors file, got one that is cut short or of another format")
            try:
                header = json.loads(file.read(length))
                self.entries = {
                    name: (DTYPES[entry["dtype"]], tuple(entry["shape"]), *entry["data_offsets"])
                    for name, entry in header.items()
                    if name != "__metadata__"
                }
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{path}: expected the header of a safetensors file, got {error!r}") from None
        for name, (dtype, shape, start, end) in self.entries.items():
            if end - start != math.prod(shape) * np.dtype(dtype).itemsize or end > size - 8 - length:
                raise DataError(f"{path}: the file is cut short or damaged at the tensor {name!r}")
        self.path, self.first = path, 8 + length

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, start, end = self.entries[name]
        if start == end:
            return np.zeros(shape, dtype)
        return np.memmap(self.path, dtype, "r", self.first + start, (math.prod(shape),)).reshape(shape)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class ArchiveFile(Mapping[str, np.ndarray]):
    """The arrays of a `.npz` file; the one read last is kept."""

    def __init__(self, path: Path):
        self.path, self.last = path, (None, None)
        try:
            with np.load(path, allow_pickle=False) as archive:
                self.names = list(archive.files)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
            raise DataError(f"{path}: expected a .npz file, got one that is cut short or damaged: {error}") from None

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        if self.last[0] != name:
            try:
                with np.load(self.path, allow_pickle=False) as archive:
                    self.last = name, archive[name]
            except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.zlib.error) as error:
                raise DataError(f"{self.path}: the file is damaged at the array {name!r}: {error}") from None
        return self.last[1]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class Tensors(Mapping[str, np.ndarray]):
    """Tensors of other mappings under names of their own: `{name: (mapping, its name)}`."""

    def __init__(self, sources: Mapping[str, tuple[Mapping[str, Any], str]]):
        self.sources = sources

    def __getitem__(self, name: str) -> Any:
        tensors, own = self.sources[name]
        return tensors[own]

    def __contains__(self, name: object) -> bool:
        return name in self.sources

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)


def _read_index(path):
    places = read_object(path, "an index of safetensors files").get("weight_map")
    if not (isinstance(places, dict) and all(isinstance(name, str) for name in places.values())):
        raise DataError(f"{path}: weight_map: expected the file of each tensor, got {type(places).__name__}")
    names = sorted(set(places.values()))
    absent = [name for name in names if not (path.parent / name).is_file()]
    if absent:
        raise DataError(f"{path}: expected the files that it lists beside it; missing: {listed(absent)}")
    files = {name: TensorFile(path.parent / name) for name in names}
    missing = [name for name, file in places.items() if name not in files[file]]
    if missing:
        raise DataError(f"{path}: expected the tensors that it lists; missing: {listed(missing)}")
    return Tensors({name: (files[file], name) for name, file in places.items()})
