"""CIFAR-10 in its binary version: records of one label byte and 3,072 bytes of pixels, plane by plane.

Source: A. Krizhevsky, Learning multiple layers of features from tiny images (2009), and the data set's page.
"""

import tarfile
import zlib
from pathlib import Path

import numpy as np

from aijax.data.files import existing
from aijax.data.npz import read_npz
from aijax.data.parts import check_split, named_split
from aijax.data.source import Source, checked
from aijax.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHIVE, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
HINT = (
    f"download the 'CIFAR-10 binary version', {ARCHIVE} (A. Krizhevsky's CIFAR page), and put it into that folder as "
    "it is or unpacked; train.npz and test.npz with packed images serve too"
)
RECORD = 1 + 3 * 32 * 32


def cifar10(
    split: str,
    field: str = "config.data",
    *,
    path: str,
    validation_fraction: float = 0.0,
    split_seed: int = 0,
) -> Source:
    """Returns a split of CIFAR-10: uint8 images `[32, 32, 3]`, 50,000 to train on and 10,000 to test on.

    Args:
      split: "train", "validation" or "test".
      field: the config section, for messages.
      path: the folder that holds cifar-10-binary.tar.gz, or the unpacked .bin files, or train.npz and test.npz.
      validation_fraction: of the training images.
      split_seed: of the shuffle that splits.

    Raises:
      DataError: no folder, or none of these files in it; a damaged one.
    """
    check_split(split, field)
    half = "test" if split == "test" else "train"
    source = _half(existing(path, f"{field}.path", HINT, folder=True), half, f"{field}.path")
    if split == "test":
        return source
    return named_split(source, split, field, validation_fraction=validation_fraction, seed=split_seed)


def read_records(content: bytes, where: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8 images `[n, 32, 32, 3]` and labels `[n]` of one binary file."""
    if not content or len(content) % RECORD:
        raise DataError(
            f"{where}: {len(content)} bytes are not a whole number of records of {RECORD} bytes; "
            f"it is cut short in record {len(content) // RECORD}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0]


def _half(folder: Path, half: str, field: str) -> Source:
    if (folder / f"{half}.npz").is_file():
        return read_npz(folder / f"{half}.npz")
    for place in (folder, folder / FOLDER):
        if (place / FILES[half][0]).is_file():
            files = [existing(str(place / name), field, HINT) for name in FILES[half]]
            contents = {str(file): file.read_bytes() for file in files}
            break
    else:
        contents = _unpacked(existing(str(folder / ARCHIVE), field, HINT), half)
    parts = [read_records(content, name) for name, content in contents.items()]
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    where = f"{', '.join(Path(name).name for name in contents)} in {folder}"
    return checked({"image": images, "label": labels}, where=where, classes=CLASSES)


def _unpacked(archive: Path, half: str) -> dict[str, bytes]:
    contents = {}
    try:
        with tarfile.open(archive) as members:
            for member in members:
                if Path(member.name).name in FILES[half]:
                    contents[f"{archive}: {member.name}"] = members.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive}: damaged archive: {error}") from error
    if len(contents) != len(FILES[half]):
        raise DataError(f"{archive}: holds {len(contents)} of the files {', '.join(FILES[half])}; {HINT}")
    return dict(sorted(contents.items()))
