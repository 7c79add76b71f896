"""`.npz` archives: plain arrays, or encoded images packed one after another.

Plain: an array of images `[n, h, w]` or `[n, h, w, c]` (or a table `[n, d]`) and one of labels, under names that the
config may give. Packed: arrays `data` (bytes), `offsets` (n + 1), `labels`, and as they like `header` (bytes common to
all images) and `class_names`; image i is the file `header + data[offsets[i]:offsets[i + 1]]`, as JPEG or PNG.

A packed image is decoded when it is first asked for and kept as uint8: a run begins at once, and from the second epoch
on pays nothing (decoding costs 0.15 ms an image of 32 x 32, a gather of a decoded one under 1 us).
"""

import dataclasses
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from aijax.data.files import existing
from aijax.data.images import decode_image
from aijax.data.parts import check_split, named_split
from aijax.data.source import Source, as_images, check_labels, checked, shape_of
from aijax.errors import ConfigError, DataError, did_you_mean


def npz(
    split: str,
    field: str = "config.data",
    *,
    path: str,
    test_path: str | None = None,
    images: str = "images",
    labels: str = "labels",
    num_classes: int | None = None,
    validation_fraction: float = 0.0,
    test_fraction: float = 0.0,
    split_seed: int = 0,
    hint: str = "",
) -> Source:
    """Returns a split of the images (or table) in an `.npz` file.

    Args:
      split: "train", "validation" or "test".
      field: the config section, for messages.
      path: the file to train on.
      test_path: the file to test on; without it `test_fraction` of the first file is held out.
      images, labels: names of the arrays in the file.
      num_classes: number of classes; None takes the class names in the file, or one more than the largest label.
      validation_fraction, test_fraction: of the first file.
      split_seed: of the shuffle that splits.
      hint: what to say when the file is missing.

    Raises:
      DataError: a missing or damaged file, a missing array, a label out of range, a pixel that is NaN or infinite.
      ConfigError: `test_path` and `test_fraction` together.
    """
    check_split(split, field)
    if test_path is not None and test_fraction:
        raise ConfigError(f"{field}.test_fraction: {test_fraction}, but test_path is given; keep one of them")
    if split == "test" and test_path is not None:
        return read_npz(existing(test_path, f"{field}.test_path", hint), images, labels, num_classes)
    whole = read_npz(existing(path, f"{field}.path", hint), images, labels, num_classes)
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return named_split(whole, split, field, seed=split_seed, **fractions)


def read_npz(path: Path, images: str = "images", labels: str = "labels", num_classes: int | None = None) -> Source:
    """Returns the records of one `.npz` file, plain or packed, as a source."""
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not an .npz archive, or one that is cut short")
    arrays = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            try:
                arrays[name] = archive[name]
            except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
                raise DataError(
                    f"{path}: array {name!r} is damaged or holds Python objects; expected numbers"
                ) from error
    classes = arrays.get("class_names")
    classes = None if classes is None else tuple(map(str, classes))
    if images not in arrays and {"data", "offsets"} <= set(arrays):
        return _packed(arrays, path, labels, classes, num_classes)
    for name in (images, labels):
        if name not in arrays:
            raise DataError(f"{path}: has no array {name!r}{did_you_mean(name, arrays)}")
    if arrays[images].ndim == 2:
        values = {"x": arrays[images].astype(np.float32), "y": check_table_targets(arrays[labels])}
    else:
        values = {"image": as_images(arrays[images], path), "label": arrays[labels]}
    return checked(values, where=path, classes=classes, num_classes=num_classes)


def check_table_targets(targets: np.ndarray) -> np.ndarray:
    """Returns targets as int32 classes where they are whole numbers, else float32."""
    return targets.astype(np.float32 if targets.dtype.kind == "f" else np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class PackedImages:
    """Encoded images, decoded once each: `decoded[i]` is image i from the moment that `known[i]`."""

    path: Path
    header: bytes
    data: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    decoded: np.ndarray
    known: np.ndarray
    read_threads: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        for index in indices[~self.known[indices]]:
            self.decoded[index] = self._decode(index)
            self.known[index] = True
        return {"image": self.decoded.take(indices, axis=0), "label": self.labels.take(indices)}

    @property
    def spec(self) -> dict[str, Any]:
        return {"image": shape_of(self.decoded.shape[1:], np.uint8), "label": shape_of((), np.int32)}

    def _decode(self, index: int) -> np.ndarray:
        encoded = self.header + self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()
        image = decode_image(encoded, f"{self.path}: record {index}", "L" if self.decoded.shape[-1] == 1 else "RGB")
        if image.shape != self.decoded.shape[1:]:
            height, width, _ = self.decoded.shape[1:]
            raise DataError(
                f"{self.path}: record {index} is {image.shape[0]} x {image.shape[1]} pixels, expected {height} x "
                f"{width} as record 0"
            )
        return image


def _packed(
    arrays: dict[str, np.ndarray], path: Path, labels: str, classes: tuple[str, ...] | None, num_classes: int | None
) -> PackedImages:
    if labels not in arrays:
        raise DataError(f"{path}: has no array {labels!r}{did_you_mean(labels, arrays)}")
    data, offsets, targets = arrays["data"], arrays["offsets"].astype(np.int64), arrays[labels]
    if data.dtype != np.uint8:
        raise DataError(f"{path}: array 'data' holds {data.dtype}, expected bytes (uint8)")
    if len(offsets) != len(targets) + 1:
        raise DataError(f"{path}: {len(targets)} labels need {len(targets) + 1} offsets, there are {len(offsets)}")
    if len(targets) == 0:
        raise DataError(f"{path}: holds no records")
    bad = np.flatnonzero((np.diff(offsets) < 0) | (offsets[1:] > len(data)) | (offsets[:-1] < 0))
    if bad.size:
        begin, end = offsets[bad[0]], offsets[bad[0] + 1]
        raise DataError(f"{path}: record {bad[0]} is bytes {begin} to {end} of the {len(data)} in 'data'")
    count = num_classes if classes is None else len(classes)
    targets = check_labels(targets, count, path)
    header = arrays.get("header", np.zeros(0, np.uint8)).tobytes()
    first = decode_image(header + data[offsets[0] : offsets[1]].tobytes(), f"{path}: record 0")
    return PackedImages(
        path=path,
        header=header,
        data=data,
        offsets=offsets,
        labels=targets,
        classes=classes or tuple(map(str, range(count or int(targets.max()) + 1))),
        decoded=np.empty((len(targets), *first.shape), np.uint8),
        known=np.zeros(len(targets), bool),
    )
