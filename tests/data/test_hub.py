import io

import numpy as np
import pytest

from aijax.data import hub, load_source
from aijax.errors import ConfigError, DataError

LABELS = [i % 2 for i in range(10)]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


def pixels(count=10, size=(6, 8)):
    return [np.full((*size, 3), 20 * i, np.uint8) for i in range(count)]


@pytest.fixture
def saved(tmp_path):
    """Saves a data set of images as `datasets` does; returns its folder."""
    datasets = pytest.importorskip("datasets")

    def save(images=None, names=("cat", "dog"), splits=("train", "test")):
        kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))}
        images = pixels() if images is None else images
        table = datasets.Dataset.from_dict({"image": images, "label": LABELS}, features=datasets.Features(kinds))
        whole = datasets.DatasetDict(dict.fromkeys(splits, table)) if splits else table
        whole.save_to_disk(str(tmp_path / "saved"))
        return str(tmp_path / "saved")

    return save


def test_huggingface_from_disk(saved):
    section = {"source": "huggingface", "dataset": saved()}
    source = load_source(section, "train")
    assert len(source) == 10 and source.classes == ("cat", "dog") and source.spec["image"].shape == (6, 8, 3)
    batch = source[np.array([3, 0])]
    assert np.array_equal(batch["image"], np.stack(pixels())[[3, 0]]) and batch["label"].tolist() == [1, 0]
    assert len(load_source(section, "test")) == 10
    assert len(load_source({**section, "test_fraction": 0.2}, "test")) == 2
    small = load_source({**section, "size": (4, 3), "mode": "L"}, "train")
    assert small[np.arange(2)]["image"].shape == (2, 4, 3, 1)


def test_huggingface_by_name_reads_a_folder_of_files(tmp_path, encode):
    pytest.importorskip("datasets")
    for name in ("ant", "bee"):
        (tmp_path / "d" / "train" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "d" / "train" / name / f"{i}.png").write_bytes(encode(np.full((4, 4, 3), i)))
    source = hub.huggingface("train", dataset=str(tmp_path / "d"))
    assert len(source) == 6 and source.classes == ("ant", "bee")


def test_huggingface_single_split(saved):
    path = saved(splits=None)
    assert len(hub.huggingface("train", dataset=path)) == 10
    with pytest.raises(DataError, match=r"has the split 'train' only; give config.data.test_fraction"):
        hub.huggingface("test", dataset=path)


def test_huggingface_refusals(saved):
    path = saved()
    with pytest.raises(DataError, match=r"has no column 'labl'; did you mean 'label'"):
        hub.huggingface("train", dataset=path, label="labl")
    with pytest.raises(DataError, match=r"config.data.dataset: cannot open .*, split 'tset'"):
        hub.huggingface("test", dataset=path, test_split="tset")
    with pytest.raises(DataError, match=r"config.data.dataset: cannot open 'no/such-set', split 'train'"):
        hub.huggingface("train", dataset="no/such-set")


def test_images_of_two_sizes_need_a_size(saved):
    path = saved(images=[*pixels(9), *pixels(1, (5, 5))])
    with pytest.raises(DataError, match=r"record 9 has shape \[5, 5, 3\], record 0 \[6, 8, 3\]; give config.data.size"):
        hub.huggingface("train", dataset=path)[np.arange(10)]
    assert hub.huggingface("train", dataset=path, size=4)[np.arange(10)]["image"].shape == (10, 4, 4, 3)


def test_labels_without_names(tmp_path):
    source = hub.hub_source(lambda indices: pixels(len(indices)), np.array([0, 2, 1]), None, None, "RGB", "set")
    assert source.classes == ("0", "1", "2")
    with pytest.raises(DataError, match=r"set: record 1 has label 2, expected 0..1"):
        hub.hub_source(lambda indices: pixels(1), np.array([0, 2, 1]), ["a", "b"], None, "RGB", "set")


@pytest.mark.parametrize(("source", "module"), [("tfds", "tensorflow_datasets"), ("huggingface", "datasets")])
def test_a_missing_package_names_the_extra(monkeypatch, source, module):
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    name = module.replace("_", "-")
    with pytest.raises(ConfigError) as error:
        load_source({"source": source, "dataset": "mnist"}, "train")
    assert str(error.value) == (
        f"config.data.source: needs the package {name}, which is not installed; type: pip install 'aijax[data]'"
    )


def test_tfds_prepared_on_the_spot(tmp_path, encode):
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("importlib_resources")  # tfds uses it to define a data set, though not to read one

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            kinds = {"image": tfds.features.Image(shape=(6, 8, 3)), "label": tfds.features.ClassLabel(names=["a", "b"])}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(kinds))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(10), "test": self._generate_examples(4)}

        def _generate_examples(self, count):
            for i, image in enumerate(pixels(count)):
                yield i, {"image": io.BytesIO(encode(image)), "label": i % 2}

    Tiny(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    section = {"source": "tfds", "dataset": "tiny", "path": str(tmp_path)}
    source = load_source(section, "train")
    batch = source[np.arange(10)]
    assert len(source) == 10 and source.classes == ("a", "b")
    assert sorted(batch["image"][:, 0, 0, 0].tolist()) == [20 * i for i in range(10)]
    assert len(load_source(section, "test")) == 4
    with pytest.raises(DataError, match=r"has no feature 'lable'; did you mean 'label'"):
        load_source({**section, "label": "lable"}, "train")
    with pytest.raises(DataError, match=r"cannot open 'tiny', split 'tset': Unknown split 'tset'"):
        load_source({**section, "test_split": "tset"}, "test")
