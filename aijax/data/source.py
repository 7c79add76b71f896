"""A source: records behind an index, read many at a time.

A source is a frozen object with a length, a vectorised gather `source[indices] -> {name: array}`, the shapes of one
record (`spec`) and, where there are classes, their names and the label of each record. Everything that reads data (the
pipeline, evaluation, the sciences) needs only that. Images are `[h, w, c]`, uint8 or float32 in 0..1, under `"image"`
with int32 `"label"`; tables are float32 `"x"` with `"y"`; text windows are int32 `"tokens"`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from aijax.errors import ConfigError, DataError


class Source(Protocol):
    """What the pipeline reads."""

    classes: tuple[str, ...] | None
    """Names of the classes, in the order of the labels."""
    labels: np.ndarray | None
    """int32 `[n]`: the class of each record, known without reading the records."""
    read_threads: int
    """How many threads gain by reading ahead; 0 where records are already in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]: ...

    @property
    def spec(self) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Arrays of one length, in memory or memory-mapped; `checked` makes one after looking at every value.

    >>> source = ArraySource({"x": np.zeros((5, 3), np.float32), "y": np.arange(5)})
    >>> len(source), source[np.array([4, 0])]["y"], source.spec["x"].shape
    (5, array([4, 0]), (3,))
    """

    arrays: Mapping[str, np.ndarray]
    classes: tuple[str, ...] | None = None
    read_threads: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {name: array.take(indices, axis=0) for name, array in self.arrays.items()}

    @property
    def spec(self) -> dict[str, Any]:
        return {name: shape_of(array.shape[1:], array.dtype) for name, array in self.arrays.items()}

    @property
    def labels(self) -> np.ndarray | None:
        labels = self.arrays.get("label", self.arrays.get("y"))
        return labels if labels is not None and np.issubdtype(labels.dtype, np.integer) else None


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """The records `indices` of another source, in that order, without a copy of them."""

    source: Source
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return self.source[self.indices[indices]]

    @property
    def spec(self) -> dict[str, Any]:
        return self.source.spec

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self.source.classes

    @property
    def labels(self) -> np.ndarray | None:
        return None if self.source.labels is None else self.source.labels[self.indices]

    @property
    def read_threads(self) -> int:
        return self.source.read_threads

    @property
    def tokenizer(self) -> Any:
        """That of the source, where it has texts."""
        return getattr(self.source, "tokenizer", None)


def shape_of(shape: Sequence[int], dtype: Any):
    """Returns `jax.ShapeDtypeStruct(shape, dtype)`."""
    import jax

    return jax.ShapeDtypeStruct(tuple(shape), dtype)


def checked(
    arrays: Mapping[str, np.ndarray],
    *,
    where: str | Path,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> ArraySource:
    """Returns an `ArraySource` of `arrays` after looking at every value; labels become int32.

    Args:
      arrays: name to array, first axis the record.
      where: the file, or the data set's name, for messages.
      classes: names of the classes; None names them "0", "1", ... up to the largest label.
      num_classes: number of classes where they have no names.

    Raises:
      DataError: no records, arrays of different lengths, a label that is not a whole number or has no class, a value
        that is NaN or infinite; the sentence names the file and the record.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count} of {name!r}" for name, count in lengths.items())
        raise DataError(f"{where}: every record needs each of its parts, but there are {counts}")
    if 0 in lengths.values():
        raise DataError(f"{where}: holds no records")
    arrays = dict(arrays)
    if "label" in arrays:
        count = len(classes) if classes is not None else num_classes
        arrays["label"] = check_labels(arrays["label"], count, where)
        if classes is None:
            classes = tuple(map(str, range(count or int(arrays["label"].max()) + 1)))
    for name, array in arrays.items():
        check_finite(array, where, name)
    return ArraySource(arrays, None if classes is None else tuple(map(str, classes)))


def check_labels(labels: np.ndarray, num_classes: int | None, where: str | Path) -> np.ndarray:
    """Returns `labels` as int32, each checked to be a whole number in `0..num_classes-1`."""
    if labels.ndim != 1:
        raise DataError(f"{where}: expected one label a record, got an array of shape {list(labels.shape)}")
    if labels.dtype.kind not in "iuf" or (labels.dtype.kind == "f" and not np.array_equal(labels, np.rint(labels))):
        raise DataError(f"{where}: labels are whole numbers, got {labels.dtype} such as {labels[0]!s}")
    top = num_classes if num_classes is not None else 2**31
    bad = np.flatnonzero((labels < 0) | (labels >= top))
    if bad.size:
        span = f"0..{num_classes - 1}" if num_classes is not None else "zero or more"
        raise DataError(f"{where}: record {bad[0]} has label {labels[bad[0]]}, expected {span}")
    return labels.astype(np.int32)


def check_finite(array: np.ndarray, where: str | Path, name: str, rows: int = 4096) -> None:
    """Raises a `DataError` that names the first record of `array` with a NaN or an infinity."""
    if array.dtype.kind not in "fc":
        return
    for start in range(0, len(array), rows):
        block = array[start : start + rows].reshape(min(rows, len(array) - start), -1)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            value = block[row][~np.isfinite(block[row])][0]
            part = "a pixel" if name == "image" else f"{name!r} with a value"
            raise DataError(f"{where}: record {start + row} has {part} that is {value}, expected finite numbers")


def as_images(images: np.ndarray, where: str | Path) -> np.ndarray:
    """Returns images as `[n, h, w, c]`, uint8 or float32; `[n, h, w]` gets one channel."""
    if images.ndim not in (3, 4):
        raise DataError(f"{where}: expected images [n, h, w] or [n, h, w, c], got shape {list(images.shape)}")
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype.kind == "f":
        return images.astype(np.float32, copy=False)
    if images.dtype != np.uint8:
        raise DataError(f"{where}: expected images in uint8 or floating point, got {images.dtype}")
    return images


def select(source: Source, indices: np.ndarray) -> Selection:
    """Returns the records `indices` of `source` as a source.

    >>> source = ArraySource({"y": np.arange(5)})
    >>> select(source, np.array([3, 1]))[np.array([0])]["y"]
    array([3])
    """
    return Selection(source, np.asarray(indices, dtype=np.int64))


def split(source: Source, *held_out: int | float, seed: int = 0, stratify: bool = True) -> tuple[Source, ...]:
    """Returns `(rest, part, ...)`: disjoint parts that together are `source`, the same for the same seed.

    Args:
      source: what to split.
      *held_out: the size of each held-out part, a number of records (int) or a fraction of all (float, rounded up).
      seed: of the shuffle.
      stratify: whether parts keep the proportions of the classes, where records have labels.

    With one part this is scikit-learn's `train_test_split(..., test_size=part, random_state=seed)`, record for record.

    >>> train, test = split(ArraySource({"label": np.arange(100) % 2}), 0.2)
    >>> len(train), len(test), test.labels.sum()
    (80, 20, np.int64(10))
    """
    size = len(source)
    counts = [math.ceil(part * size - 1e-9) if isinstance(part, float) else part for part in held_out]
    if min(counts, default=0) < 0 or sum(counts) >= size:
        raise ConfigError(f"cannot hold {' + '.join(map(str, held_out))} out of {size} records and keep some")
    labels = source.labels if stratify else None
    rest, parts = np.arange(size), []
    for count in reversed(counts):
        random = np.random.RandomState(seed)
        if count == 0:
            kept, held = np.arange(len(rest)), np.arange(0)
        elif labels is None:
            order = random.permutation(len(rest))
            kept, held = order[count:], order[:count]
        else:
            kept, held = _stratified(labels[rest], count, random)
        parts.append(select(source, rest[held]))
        rest = rest[kept]
    return (select(source, rest), *reversed(parts))


def _stratified(labels: np.ndarray, count: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions `(kept, held)` with `count` held: the draws of scikit-learn's StratifiedShuffleSplit."""
    _, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])
    kept_sizes = _share_out(sizes, len(labels) - count, random)
    held_sizes = _share_out(sizes - kept_sizes, count, random)
    kept, held = [], []
    for own, first, second in zip(members, kept_sizes, held_sizes, strict=True):
        own = own[random.permutation(len(own))]
        kept.append(own[:first])
        held.append(own[first : first + second])
    return random.permutation(np.concatenate(kept)), random.permutation(np.concatenate(held))


def _share_out(sizes: np.ndarray, total: int, random: np.random.RandomState) -> np.ndarray:
    """Returns whole numbers near `sizes / sizes.sum() * total` that add up to `total`: largest remainders first, equal
    remainders drawn at random."""
    exact = sizes / sizes.sum() * total
    shares = np.floor(exact)
    missing, remainders = int(total - shares.sum()), exact - shares
    for value in np.unique(remainders)[::-1]:
        if missing == 0:
            break
        tied = np.flatnonzero(remainders == value)
        lucky = random.choice(tied, size=min(len(tied), missing), replace=False)
        shares[lucky] += 1
        missing -= len(lucky)
    return shares.astype(int)
