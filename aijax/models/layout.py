"""Published weights: reading and writing safetensors, and the one rule that maps their tensors to parameters.

A Linen module whose submodules carry the published names has parameters with the published paths:

    encoder.down_blocks.0.resnets.1.conv1.weight   <->   encoder/down_blocks_0/resnets_1/conv1/kernel

An index of a list is joined to the list's name by an underscore; `kernel`, `scale` and `embedding` are called `weight`.
A published matrix is [outputs, inputs] and a published convolution [outputs, inputs, height, width], where a kernel is
[inputs, outputs] and [height, width, inputs, outputs]. Other tensors are as they are.

A safetensors file is 8 bytes of the header's length, a header in JSON that gives each tensor's type, shape and place,
and the numbers. Tensors are mapped from the file and read when they are used.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from aijax.errors import DataError
from aijax.trees import named_leaves, path_name
from aijax.typing import Any, Array, Params, PyTree

WEIGHTS = ("kernel", "scale", "embedding")
"""Parameters that are published as "weight"."""
NUMBERED = re.compile(r"(?!linear_|proj_out_)(.+)_(\d+)")
"""A name that ends with the index of a list; published names such as "linear_1" do not."""
DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip
LISTED = 6
"""Most names that a message lists."""


def from_published(
    tensors: Mapping[str, Any], abstract_params: PyTree, *, dtype: Any = None, where: str = "tensors"
) -> Params:
    """Returns parameters of the structure of `abstract_params` with the values of published tensors.

    Args:
      tensors: by published name; each is read when its turn comes.
      abstract_params: the parameters' shapes, as of `jax.eval_shape(model.init, ...)["params"]`.
      dtype: of the parameters; None keeps that of the tensors.
      where: what the tensors are, for messages.

    Raises:
      DataError: tensors that are missing, that the model does not have or whose shapes differ; all are listed.

    >>> tensors = {"linear.weight": np.ones((3, 2)), "linear.bias": np.zeros(3)}
    >>> shapes = {"linear": {"kernel": jax.ShapeDtypeStruct((2, 3), float), "bias": jax.ShapeDtypeStruct((3,), float)}}
    >>> jax.tree.map(jnp.shape, from_published(tensors, shapes))
    {'linear': {'bias': (3,), 'kernel': (2, 3)}}
    """
    wanted = {name: published_name(name) for name in named_leaves(abstract_params)}
    shapes = {wanted[name]: _published_shape(name, leaf.shape) for name, leaf in named_leaves(abstract_params).items()}
    faults = {
        "missing": [name for name in shapes if name not in tensors],
        "unknown": [name for name in tensors if name not in shapes],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} in place of {shape}"
            for name, shape in shapes.items()
            if name in tensors and tuple(tensors[name].shape) != shape
        ],
    }
    if any(faults.values()):
        told = "; ".join(f"{kind}: {_listed(names)}" for kind, names in faults.items() if names)
        raise DataError(f"{where}: expected the {len(shapes)} tensors of the model, got {len(tensors)}; {told}")

    def read(path, _):
        name = path_name(path)
        tensor = _transposed(name, np.asarray(tensors[wanted[name]]), from_file=True)
        # on the host, where a cast compiles nothing
        return jnp.asarray(tensor if dtype is None else tensor.astype(jnp.dtype(dtype)))

    return jax.tree_util.tree_map_with_path(read, abstract_params)


def to_published(params: Params) -> dict[str, np.ndarray]:
    """Returns the tensors by published name of a model's parameters: the inverse of `from_published`.

    >>> {name: t.shape for name, t in to_published({"conv1": {"kernel": jnp.ones((3, 3, 4, 8))}}).items()}
    {'conv1.weight': (8, 4, 3, 3)}
    """
    return {
        published_name(name): np.asarray(_transposed(name, np.asarray(leaf), from_file=False), order="C")
        for name, leaf in named_leaves(params).items()
    }


def published_name(name: str) -> str:
    """Returns the published name of the parameter at a path.

    >>> published_name("down_blocks_0/time_emb/linear_1/kernel")
    'down_blocks.0.time_emb.linear_1.weight'
    """
    *modules, leaf = name.split("/")
    parts = [NUMBERED.sub(r"\1.\2", part) if NUMBERED.fullmatch(part) else part for part in modules]
    return ".".join([*parts, "weight" if leaf in WEIGHTS else leaf])


def read_safetensors(path: str | Path) -> Mapping[str, np.ndarray]:
    """Returns the tensors of a file, of all files that an index lists, or of a folder that has one of either.

    They lie in the file until they are used. In a folder, files without a variant in their names ("model.safetensors"
    before "model.fp16.safetensors") are taken.

    Raises:
      DataError: no file, more than one to choose from, or a file that is cut short or is none of this format.
    """
    path = Path(path)
    path = _choose_file(path) if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"{path}: expected a safetensors file, an index of several or a folder with one; there is none")
    if path.name.endswith(".index.json"):
        return _read_index(path)
    return TensorFile(path)


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


def write_safetensors(path: str | Path, tensors: Mapping[str, Array]) -> None:
    """Writes tensors to a safetensors file, in the order of their names."""
    arrays = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    safetensors.numpy.save_file(arrays, str(path), metadata={"format": "pt"})


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
        raise DataError(f"{path}: expected the files that it lists beside it; missing: {_listed(absent)}")
    files = {name: TensorFile(path.parent / name) for name in names}
    missing = [name for name, file in places.items() if name not in files[file]]
    if missing:
        raise DataError(f"{path}: expected the tensors that it lists; missing: {_listed(missing)}")
    return Tensors({name: (files[file], name) for name, file in places.items()})


def _choose_file(folder):
    found = sorted(folder.glob("*.safetensors.index.json"))
    if not found:
        files = sorted(folder.glob("*.safetensors"))
        plain = [file for file in files if "." not in file.name.removesuffix(".safetensors")]
        found = plain or files
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise DataError(f"{folder}: expected one safetensors file or one index of several, got {names}")
    return found[0]


def _published_shape(name, shape):
    return _transposed(name, np.broadcast_to(0, shape), from_file=False).shape


def _transposed(name, tensor, *, from_file):
    """Kernels with inputs and outputs last in place of outputs and inputs first, or the other way round."""
    if name.rsplit("/", 1)[-1] != "kernel" or tensor.ndim < 2:
        return tensor
    space = tuple(range(tensor.ndim - 2))
    return tensor.transpose(*(axis + 2 for axis in space), 1, 0) if from_file else tensor.transpose(-1, -2, *space)


def _listed(names):
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
