import io
import tarfile

import numpy as np
import pytest

from aijax.data.cifar import CLASSES, FILES, FOLDER, cifar10
from aijax.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(12) % 10


def content(rows, labels=LABELS):
    pixels = IMAGES[rows].transpose(0, 3, 1, 2).reshape(len(rows), -1)
    return np.concatenate([labels[rows][:, None].astype(np.uint8), pixels], axis=1).tobytes()


def files():
    names = [*FILES["train"], *FILES["test"]]
    return {name: content(np.arange(2 * i, 2 * i + 2)) for i, name in enumerate(names)}


def check(folder):
    train, test = cifar10("train", path=str(folder)), cifar10("test", path=str(folder))
    assert np.array_equal(train[np.arange(10)]["image"], IMAGES[:10])
    assert np.array_equal(test[np.arange(2)]["image"], IMAGES[10:]) and test.labels.tolist() == [0, 1]
    assert train.classes == CLASSES
    assert len(cifar10("validation", path=str(folder), validation_fraction=0.2)) == 2


def test_unpacked(tmp_path):
    (tmp_path / FOLDER).mkdir()
    for name, data in files().items():
        (tmp_path / FOLDER / name).write_bytes(data)
    check(tmp_path)
    check(tmp_path / FOLDER)


def test_archive(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, data in files().items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    check(tmp_path)
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz: damaged archive"):
        cifar10("train", path=str(tmp_path))


def test_packed_archives(tmp_path):
    for half in ("train", "test"):
        np.savez(tmp_path / f"{half}.npz", images=IMAGES, labels=LABELS)
    assert len(cifar10("train", path=str(tmp_path))) == 12


def test_refusals(tmp_path):
    with pytest.raises(
        DataError, match=r"config.data.path: there is no folder .*download the 'CIFAR-10 binary version'"
    ):
        cifar10("train", path=str(tmp_path / "nope"))
    with pytest.raises(DataError, match=r"no file '.*cifar-10-binary.tar.gz' .*put it into that folder"):
        cifar10("train", path=str(tmp_path))
    (tmp_path / "test_batch.bin").write_bytes(content(np.arange(2))[:-5])
    with pytest.raises(DataError, match=r"6141 bytes are not a whole number of records .* cut short in record 1"):
        cifar10("test", path=str(tmp_path))
    (tmp_path / "test_batch.bin").write_bytes(content(np.arange(2), LABELS + 10))
    with pytest.raises(DataError, match=r"test_batch.bin in .*: record 0 has label 10, expected 0..9"):
        cifar10("test", path=str(tmp_path))
