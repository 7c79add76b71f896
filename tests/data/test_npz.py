import numpy as np
import pytest

from aijax.data.npz import npz
from aijax.errors import ConfigError, DataError

IMAGES = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def save(tmp_path):
    def write(name="a.npz", **arrays):
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return write


@pytest.fixture
def packed(save, encode):
    """Writes packed images whose first bytes are the common header."""

    def write(images=IMAGES, labels=LABELS, name="p.npz", **changed):
        files = [encode(image) for image in images]
        header, bodies = files[0][:8], [file[8:] for file in files]
        arrays = {
            "header": np.frombuffer(header, np.uint8),
            "data": np.frombuffer(b"".join(bodies), np.uint8),
            "offsets": np.cumsum([0] + [len(body) for body in bodies]),
            "labels": labels,
            "class_names": np.array(["ant", "bee", "cat"]),
        }
        return save(name, **{**arrays, **changed})

    return write


def test_plain_arrays_under_any_name(save):
    source = npz("train", path=save(pictures=IMAGES, targets=LABELS), images="pictures", labels="targets")
    assert np.array_equal(source[np.arange(6)]["image"], IMAGES)
    assert source.labels.tolist() == LABELS.tolist() and source.classes == ("0", "1", "2")


def test_a_test_file_or_a_fraction(save):
    train, test = save(images=IMAGES, labels=LABELS), save("t.npz", images=IMAGES[:2], labels=LABELS[:2])
    assert len(npz("test", path=train, test_path=test)) == 2
    assert len(npz("train", path=train, test_path=test)) == 6
    assert len(npz("train", path=train, test_path=test, validation_fraction=0.5)) == 3
    assert len(npz("test", path=train, test_fraction=0.5)) == 3
    with pytest.raises(ConfigError, match=r"config.data.test_fraction: 0.5, but test_path is given"):
        npz("test", path=train, test_path=test, test_fraction=0.5)


def test_tables(save):
    source = npz("train", path=save(images=np.ones((6, 3)), labels=LABELS / 2))
    assert source.spec["x"].shape == (3,) and source.spec["y"].dtype == np.float32


def test_packed_images_are_decoded(packed):
    source = npz("train", path=packed())
    assert source.classes == ("ant", "bee", "cat") and source.spec["image"].shape == (4, 4, 3)
    for _ in range(2):
        assert np.array_equal(source[np.array([5, 0, 5])]["image"], IMAGES[[5, 0, 5]])
    grey = npz("train", path=packed(images=IMAGES[..., 0]))
    assert np.array_equal(grey[np.arange(6)]["image"], IMAGES[..., :1])


def test_packed_refusals(packed):
    with pytest.raises(DataError, match=r"p.npz: record 5 has label 3, expected 0..2"):
        npz("train", path=packed(labels=np.array([0, 1, 2, 0, 1, 3])))
    with pytest.raises(DataError, match=r"6 labels need 7 offsets, there are 3"):
        npz("train", path=packed(offsets=np.arange(3)))
    with pytest.raises(DataError, match=r"record 0 is bytes 0 to 1000000 of the"):
        npz("train", path=packed(offsets=np.arange(7) * 1000000))
    with pytest.raises(DataError, match=r"p.npz: record 0: not a readable image"):
        npz("train", path=packed(header=np.zeros(8, np.uint8)))
    with pytest.raises(DataError, match=r"array 'data' holds float64"):
        npz("train", path=packed(data=np.zeros(10)))


def test_a_corrupted_packed_image_is_named(packed):
    path = packed()
    arrays = dict(np.load(path))
    arrays["data"] = arrays["data"].copy()
    arrays["data"][arrays["offsets"][3] : arrays["offsets"][4]] = 7
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=r"p.npz: record 3: not a readable image"):
        npz("train", path=path)[np.arange(6)]


def test_packed_images_of_two_sizes(packed):
    images = [*IMAGES[:5], IMAGES[0, :3]]
    with pytest.raises(DataError, match=r"record 5 is 3 x 4 pixels, expected 4 x 4 as record 0"):
        npz("train", path=packed(images=images))[np.arange(6)]


def test_plain_refusals(save, tmp_path):
    with pytest.raises(DataError, match=r"has no array 'labels'; did you mean 'label'"):
        npz("train", path=save(images=IMAGES, label=LABELS))
    with pytest.raises(DataError, match=r"record 2 has a pixel that is nan"):
        bad = np.zeros((6, 2, 2))
        bad[2] = np.nan
        npz("train", path=save(images=bad, labels=LABELS))
    with pytest.raises(DataError, match=r"there are 6 of 'image', 5 of 'label'"):
        npz("train", path=save(images=IMAGES, labels=LABELS[:5]))
    with pytest.raises(DataError, match=r"a.npz: array 'labels' is damaged or holds Python objects; expected numbers"):
        npz("train", path=save(images=IMAGES, labels=np.array([{}] * 6, object)))
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (b"PK\x03\x04 no zip", whole[: len(whole) // 2], b""):
        (tmp_path / "junk.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"junk.npz: not an .npz archive, or one that is cut short"):
            npz("train", path=str(tmp_path / "junk.npz"))
    with pytest.raises(DataError, match=r"config.data.path: there is no file .*b.npz' .*; did you mean 'a.npz'"):
        npz("train", path=str(tmp_path / "b.npz"))
