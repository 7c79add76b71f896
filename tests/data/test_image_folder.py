import numpy as np
import pytest

from aijax.data.image_folder import image_folder
from aijax.errors import ConfigError, DataError


@pytest.fixture
def photos(tmp_path, encode):
    for level, (name, count) in enumerate({"bee": 2, "ant": 3}.items()):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((8, 12, 3), 100 * level + i, np.uint8)
            (tmp_path / "photos" / name / f"{i}.png").write_bytes(encode(pixels))
    (tmp_path / "photos" / "ant" / ".hidden").write_text("")
    return tmp_path / "photos"


def test_classes_are_sub_folders(photos):
    source = image_folder("train", path=str(photos), size=4)
    assert len(source) == 5 and source.classes == ("ant", "bee")
    assert source.labels.tolist() == [0, 0, 0, 1, 1] and source.read_threads >= 1
    batch = source[np.array([4, 0])]
    assert batch["image"].shape == (2, 4, 4, 3) and batch["image"].dtype == np.uint8
    assert batch["image"][:, 0, 0, 0].tolist() == [1, 100] and batch["label"].tolist() == [1, 0]
    assert source.spec["image"].shape == (4, 4, 3)


def test_grey_and_oblong(photos):
    source = image_folder("train", path=str(photos), size=(3, 5), mode="L")
    assert source[np.array([0])]["image"].shape == (1, 3, 5, 1)


def test_test_folder_keeps_the_classes_of_training(photos, tmp_path, encode):
    (tmp_path / "test" / "bee").mkdir(parents=True)
    (tmp_path / "test" / "bee" / "x.jpg").write_bytes(encode(np.zeros((4, 4, 3)), "jpeg"))
    test = image_folder("test", path=str(photos), test_path=str(tmp_path / "test"), size=4)
    assert test.labels.tolist() == [1] and test.classes == ("ant", "bee")
    (tmp_path / "test" / "cow").mkdir()
    with pytest.raises(DataError, match=r"class 'cow' is not among the classes to train on: ant, bee"):
        image_folder("test", path=str(photos), test_path=str(tmp_path / "test"), size=4)


def test_a_corrupted_image_is_named(photos):
    file = photos / "bee" / "1.png"
    file.write_bytes(file.read_bytes()[:40])
    source = image_folder("train", path=str(photos), size=4)
    with pytest.raises(DataError, match=r"bee.1\.png: not a readable image"):
        source[np.arange(5)]


def test_refusals(photos, tmp_path):
    with pytest.raises(DataError, match=r"config.data.path: there is no folder .*; photos of ants"):
        image_folder("train", path=str(tmp_path / "none"), size=4, hint="photos of ants")
    with pytest.raises(DataError, match=r"config.data.path: .* is a file, expected a folder"):
        image_folder("train", path=str(photos / "bee" / "1.png"), size=4)
    with pytest.raises(DataError, match=r"has no sub-folders; expected one a class"):
        image_folder("train", path=str(photos / "bee"), size=4)
    with pytest.raises(ConfigError, match=r"config.data.size: expected pixels, 1 or more"):
        image_folder("train", path=str(photos), size=0)
    with pytest.raises(ConfigError, match=r"config.data.test_fraction: 0.2, but test_path is given"):
        image_folder("train", path=str(photos), size=4, test_path="x", test_fraction=0.2)
    (photos / "ant" / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"notes.txt: expected an image, a file that ends in one of .bmp"):
        image_folder("train", path=str(photos), size=4)
    (photos / "ant" / "notes.txt").unlink()
    (photos / "cat").mkdir()
    with pytest.raises(DataError, match=r"class 'cat' has no images"):
        image_folder("train", path=str(photos), size=4)
