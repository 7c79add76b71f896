import gzip
from pathlib import Path

import numpy as np
import pytest

from aijax.data.idx import idx, mnist, read_idx
from aijax.errors import ConfigError, DataError

PIXELS = np.arange(10 * 3 * 2).reshape(10, 3, 2)
LABELS = np.arange(10) % 5


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_reads_images_and_labels(write_idx, ending):
    images, labels = write_idx(f"i{ending}", PIXELS), write_idx(f"l{ending}", LABELS)
    source = idx("train", images=images, labels=labels)
    data = source[np.arange(10)]
    assert np.array_equal(data["image"][..., 0], PIXELS) and data["image"].dtype == np.uint8
    assert np.array_equal(data["label"], LABELS) and source.classes == tuple("01234")
    assert len(idx("test", images=images, labels=labels, test_fraction=0.5)) == 5


def test_reads_other_types(tmp_path):
    for code, dtype in ((0x0B, ">i2"), (0x0D, ">f4"), (0x0E, ">f8")):
        want = np.array([[1, -2, 3]], dtype)
        (tmp_path / "f").write_bytes(bytes([0, 0, code, 2, 0, 0, 0, 1, 0, 0, 0, 3]) + want.tobytes())
        got = read_idx(tmp_path / "f")
        assert got.dtype.isnative and np.array_equal(got, want)


def test_wrong_magic_number(write_idx):
    with pytest.raises(DataError, match=r"i: magic number 0x89504e47 is not that of an IDX file, expected 0x0000TTNN"):
        read_idx(write_idx("i", PIXELS, magic=b"\x89PNG"))


def test_cut_short(write_idx, tmp_path):
    path = Path(write_idx("i", PIXELS))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match=r"69 bytes where sizes \[10, 3, 2\] need 76; it is cut short in record 8"):
        read_idx(path)
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(DataError, match=r"ends within its header, after 9 of 16 bytes"):
        read_idx(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"magic number none"):
        read_idx(path)


def test_too_long(write_idx):
    path = Path(write_idx("i", PIXELS))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"77 bytes where .* need 76; expected no more"):
        read_idx(path)


def test_damaged_gzip(write_idx):
    path = Path(write_idx("i.gz", PIXELS))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"damaged gzip file after"):
        read_idx(path)


def test_counts_and_labels(write_idx):
    images = write_idx("i", PIXELS)
    with pytest.raises(DataError, match=r"l: 9 labels for the 10 images of .*i$"):
        idx("train", images=images, labels=write_idx("l", LABELS[:9]))
    with pytest.raises(DataError, match=r"l: record 4 has label 4, expected 0..3"):
        idx("train", images=images, labels=write_idx("l", LABELS), num_classes=4)
    with pytest.raises(DataError, match=r"got shape \[10\]"):
        idx("train", images=write_idx("l", LABELS), labels=images)


def test_options_that_exclude_each_other(write_idx):
    with pytest.raises(ConfigError, match=r"config.data.test_labels: missing"):
        idx("train", images="i", labels="l", test_images="t")
    with pytest.raises(ConfigError, match=r"config.data.test_fraction: 0.5, but test_images is given"):
        idx("train", images="i", labels="l", test_images="t", test_labels="u", test_fraction=0.5)


def test_missing_file_says_the_hint(tmp_path):
    with pytest.raises(
        DataError, match=r"config.data.images: there is no file '.*nope' \(looked in .*\); get it from X"
    ):
        idx("train", images=str(tmp_path / "nope"), labels="l", hint="get it from X")


def test_mnist_folder(write_idx, tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*MNIST is four files, train-images-idx3-ubyte.gz"):
        mnist("train", path=str(tmp_path / "none"))
    write_idx("t10k-images-idx3-ubyte.gz", PIXELS)
    write_idx("t10k-labels-idx1-ubyte", LABELS)
    with pytest.raises(DataError, match=r"no file .*train-images-idx3-ubyte.gz'.*or set config.data.train_half=False"):
        mnist("train", path=str(tmp_path))
    parts = [mnist(split, path=str(tmp_path), train_half=False) for split in ("train", "test")]
    assert [len(p) for p in parts] == [8, 2] and len(parts[0].classes) == 10
    write_idx("train-images-idx3-ubyte", PIXELS[:6])
    write_idx("train-labels-idx1-ubyte.gz", LABELS[:6])
    assert [len(mnist(split, path=str(tmp_path))) for split in ("train", "test")] == [6, 10]
    assert len(mnist("validation", path=str(tmp_path), validation_fraction=0.5)) == 3


def test_gzip_is_told_by_content(write_idx, tmp_path):
    path = Path(write_idx("i", PIXELS))
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert read_idx(path).shape == PIXELS.shape
