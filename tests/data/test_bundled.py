import numpy as np
import pytest
import sklearn.datasets
from sklearn.model_selection import train_test_split

from aijax.data import bundled
from aijax.errors import ConfigError


def everything(source):
    return source[np.arange(len(source))]


def test_digits_are_scikit_learns_in_its_stratified_split():
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=360, random_state=0, stratify=y)
    for name, images, labels in (("train", train_x, train_y), ("test", test_x, test_y)):
        data = everything(bundled.digits(name))
        assert np.array_equal(data["image"].reshape(-1, 64) * 16, images)
        assert np.array_equal(data["label"], labels)
    assert len(bundled.digits("validation", validation_fraction=0.1)) == 180
    assert len(bundled.digits("train", validation_fraction=0.1)) == 1797 - 360 - 180


def test_digits_without_their_file_ask_scikit_learn(monkeypatch, tmp_path):
    want = bundled._all_digits().arrays["image"]
    monkeypatch.setattr(bundled, "_package_folder", lambda: tmp_path)
    assert np.array_equal(bundled._all_digits.__wrapped__().arrays["image"], want)


@pytest.mark.parametrize(("name", "features", "classes"), [("iris", 4, 3), ("wine", 13, 3), ("breast_cancer", 30, 2)])
def test_tables_are_standardized_over_the_training_split(name, features, classes):
    train, test = bundled.table(name, "train"), bundled.table(name, "test")
    data = everything(train)
    assert data["x"].shape[1] == features and len(train.classes) == classes and data["y"].dtype == np.int32
    np.testing.assert_allclose(data["x"].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(data["x"].std(axis=0), 1, atol=1e-5)
    assert np.abs(everything(test)["x"].mean(axis=0)).max() > 1e-3


def test_diabetes_is_a_regression():
    source = bundled.table("diabetes", "train", standardize=False)
    assert source.spec["y"].dtype == np.float32 and source.classes is None and source.labels is None


def test_refusals():
    with pytest.raises(ConfigError, match=r"config.data: unknown split 'tset'; did you mean 'test'"):
        bundled.digits("tset")
    with pytest.raises(ConfigError, match=r"config.data.validation_fraction: is 0, so there is no validation split"):
        bundled.digits("validation")
    with pytest.raises(ConfigError, match=r"config.data.test_fraction: expected a fraction .* got 1.5"):
        bundled.digits("train", test_fraction=1.5)
    with pytest.raises(ConfigError, match=r"leave nothing to train on"):
        bundled.digits("train", test_fraction=0.5, validation_fraction=0.5)
