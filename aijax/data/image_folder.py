"""A folder with one sub-folder a class: `photos/cat/001.jpg` is an image of class "cat".

Images are decoded when a batch asks for them, by threads that read ahead.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aijax.data.files import existing
from aijax.data.images import decode_image, height_and_width
from aijax.data.parts import check_split, named_split
from aijax.data.source import Source, shape_of
from aijax.errors import ConfigError, DataError

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def image_folder(
    split: str,
    field: str = "config.data",
    *,
    path: str,
    size: int | tuple[int, int],
    test_path: str | None = None,
    mode: Literal["RGB", "L"] = "RGB",
    validation_fraction: float = 0.0,
    test_fraction: float = 0.0,
    split_seed: int = 0,
    hint: str = "",
) -> Source:
    """Returns a split of a folder of images, uint8 `[h, w, c]`.

    Args:
      split: "train", "validation" or "test".
      field: the config section, for messages.
      path: the folder to train on, with one sub-folder a class.
      size: height and width in pixels that every image is brought to (scaled to cover, then cut to the centre).
      test_path: the folder to test on, with the same classes; without it `test_fraction` of the first is held out.
      mode: "RGB" or "L" (grey).
      validation_fraction, test_fraction: of the first folder, stratified.
      split_seed: of the shuffle that splits.
      hint: what to say when the folder is missing.

    Raises:
      DataError: a missing folder, no class folders, a class without images, a file that is no image (when it is read).
      ConfigError: a size that is not positive, `test_path` and `test_fraction` together.
    """
    check_split(split, field)
    size = height_and_width(size, f"{field}.size")
    if test_path is not None and test_fraction:
        raise ConfigError(f"{field}.test_fraction: {test_fraction}, but test_path is given; keep one of them")
    folder = existing(path, f"{field}.path", hint, folder=True)
    if split == "test" and test_path is not None:
        classes = class_folders(folder)
        return scan(existing(test_path, f"{field}.test_path", hint, folder=True), size, mode, classes)
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return named_split(scan(folder, size, mode), split, field, seed=split_seed, **fractions)


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files and their labels; an image is decoded when it is asked for."""

    files: tuple[Path, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    size: tuple[int, int]
    mode: str

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        images = np.stack([self._read(self.files[index]) for index in indices])
        return {"image": images, "label": self.labels.take(indices)}

    @property
    def spec(self) -> dict[str, Any]:
        channels = 1 if self.mode == "L" else 3
        return {"image": shape_of((*self.size, channels), np.uint8), "label": shape_of((), np.int32)}

    @property
    def read_threads(self) -> int:
        return min(8, os.cpu_count() or 1)

    def _read(self, file: Path) -> np.ndarray:
        return decode_image(file.read_bytes(), str(file), self.mode, self.size)


def scan(folder: Path, size: tuple[int, int], mode: str, classes: tuple[str, ...] | None = None) -> FolderSource:
    """Returns the images below `folder` as a source, in the order of their names; hidden files are passed over.

    Raises:
      DataError: a class folder that is empty or is none of `classes`, a file whose ending is not that of an image.
    """
    found = class_folders(folder)
    classes = classes or found
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise DataError(f"{folder}: class {unknown[0]!r} is not among the classes to train on: {', '.join(classes)}")
    files, labels = [], []
    for name in found:
        own = sorted(p for p in (folder / name).rglob("*") if p.is_file() and not p.name.startswith("."))
        for file in own:
            if file.suffix.lower() not in ENDINGS:
                raise DataError(f"{file}: expected an image, a file that ends in one of {', '.join(ENDINGS)}")
        if not own:
            raise DataError(f"{folder / name}: class {name!r} has no images")
        files += own
        labels += [classes.index(name)] * len(own)
    return FolderSource(tuple(files), np.array(labels, np.int32), classes, size, mode)


def class_folders(folder: Path) -> tuple[str, ...]:
    """Returns the names of the sub-folders of `folder`, sorted: the classes."""
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not names:
        raise DataError(f"{folder}: has no sub-folders; expected one a class, such as {folder / 'cat' / '001.jpg'}")
    return names
