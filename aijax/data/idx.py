"""IDX files, the format of MNIST: two zero bytes, a type byte, the number of dimensions, the sizes, then the values.

Sizes and values are big-endian; a file may be gzip-compressed. Source: the format note on the MNIST page of Y. LeCun,
C. Cortes and C. Burges.
"""

import math
import struct
from pathlib import Path

import numpy as np

from aijax.data.files import existing, read_bytes
from aijax.data.parts import check_split, named_split
from aijax.data.source import Source, as_images, checked
from aijax.errors import ConfigError, DataError

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MNIST_HINT = (
    "MNIST is four files, train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz (with or without .gz): download 'MNIST handwritten digits' (Y. LeCun, C. Cortes) or, "
    "under the same names, 'Fashion-MNIST', and put them into that folder"
)


def idx(
    split: str,
    field: str = "config.data",
    *,
    images: str,
    labels: str,
    test_images: str | None = None,
    test_labels: str | None = None,
    num_classes: int | None = None,
    validation_fraction: float = 0.0,
    test_fraction: float = 0.0,
    split_seed: int = 0,
    hint: str = "",
) -> Source:
    """Returns a split of images and labels in IDX files.

    Args:
      split: "train", "validation" or "test".
      field: the config section, for messages.
      images, labels: files to train on.
      test_images, test_labels: files to test on; without them `test_fraction` of the first files is held out.
      num_classes: number of classes; None is one more than the largest label.
      validation_fraction: of the first files.
      test_fraction: of the first files.
      split_seed: of the shuffle that splits.
      hint: what to say when a file is missing.

    Raises:
      DataError: a missing, damaged or truncated file, a label out of range, as many images as labels are not.
      ConfigError: test files and a test fraction together, or one test file without the other.
    """
    check_split(split, field)
    if (test_images is None) != (test_labels is None):
        missing = "test_labels" if test_labels is None else "test_images"
        raise ConfigError(f"{field}.{missing}: missing; test images and test labels come together")
    if test_images is not None and test_fraction:
        raise ConfigError(f"{field}.test_fraction: {test_fraction}, but test_images is given; keep one of them")
    if split == "test" and test_images is not None:
        return _pair(test_images, test_labels, field, "test_", num_classes, hint)
    whole = _pair(images, labels, field, "", num_classes, hint)
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return named_split(whole, split, field, seed=split_seed, **fractions)


def mnist(
    split: str,
    field: str = "config.data",
    *,
    path: str,
    train_half: bool = True,
    validation_fraction: float = 0.0,
    split_seed: int = 0,
) -> Source:
    """Returns a split of MNIST (or Fashion-MNIST) from a folder with its four files.

    Args:
      split: "train", "validation" or "test".
      field: the config section, for messages.
      path: the folder.
      train_half: whether to train on the 60,000 images made for it and test on the other 10,000; False splits those
        10,000 alone into 8,000 and 2,000.
      validation_fraction: of what is not test.
      split_seed: of the shuffle that splits.
    """
    folder = existing(path, f"{field}.path", MNIST_HINT, folder=True)
    halves = {half: [_either(folder, name) for name in names] for half, names in MNIST_FILES.items()}
    options = {"num_classes": 10, "validation_fraction": validation_fraction, "split_seed": split_seed}
    if not train_half:
        images, labels = halves["test"]
        return idx(split, field, images=images, labels=labels, test_fraction=0.2, hint=MNIST_HINT, **options)
    hint = MNIST_HINT
    if not Path(halves["train"][0]).is_file() and Path(halves["test"][0]).is_file():
        hint += f", or set {field}.train_half=False to split the 10,000 test images that are there"
    (images, labels), (test_images, test_labels) = halves["train"], halves["test"]
    files = {"images": images, "labels": labels, "test_images": test_images, "test_labels": test_labels}
    return idx(split, field, hint=hint, **files, **options)


def read_idx(path: str | Path) -> np.ndarray:
    """Returns the array in an IDX file, in the byte order of this machine.

    Raises:
      DataError: a wrong magic number, a file that is shorter or longer than its sizes say, a damaged gzip file.
    """
    path = Path(path)
    content = read_bytes(path)
    magic = f"0x{content[:4].hex()}" if content else "none"
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES or content[3] == 0:
        raise DataError(
            f"{path}: magic number {magic} is not that of an IDX file, expected 0x0000TTNN with "
            "type TT among 08, 09, 0b, 0c, 0d, 0e and NN dimensions"
        )
    dtype, dimensions = np.dtype(TYPES[content[2]]), content[3]
    begin = 4 + 4 * dimensions
    if len(content) < begin:
        raise DataError(f"{path}: ends within its header, after {len(content)} of {begin} bytes")
    shape = struct.unpack(f">{dimensions}I", content[4:begin])
    expected = begin + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        complete = (len(content) - begin) // max(1, math.prod(shape[1:]) * dtype.itemsize)
        raise DataError(
            f"{path}: {len(content)} bytes where sizes {list(shape)} need {expected}"
            + (f"; it is cut short in record {complete}" if len(content) < expected else "; expected no more")
        )
    return np.frombuffer(content, dtype, offset=begin).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _pair(images: str, labels: str, field: str, prefix: str, num_classes: int | None, hint: str) -> Source:
    image_file = existing(images, f"{field}.{prefix}images", hint)
    label_file = existing(labels, f"{field}.{prefix}labels", hint)
    pixels, targets = as_images(read_idx(image_file), image_file), read_idx(label_file)
    if len(pixels) != len(targets):
        raise DataError(f"{label_file}: {len(targets)} labels for the {len(pixels)} images of {image_file}")
    return checked({"image": pixels, "label": targets}, where=label_file, num_classes=num_classes)


def _either(folder: Path, name: str) -> str:
    """Returns the path of `name` in `folder`, with `.gz` unless the file is there without."""
    return str(folder / name if (folder / name).is_file() else folder / f"{name}.gz")
