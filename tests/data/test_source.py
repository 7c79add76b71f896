import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from aijax.data.source import ArraySource, as_images, checked, select, split
from aijax.errors import ConfigError, DataError


def images(n=4):
    return np.zeros((n, 2, 2, 1), np.float32)


def test_checked_makes_int32_labels_and_names_classes():
    source = checked({"image": images(), "label": np.array([0, 2, 1, 2], np.uint8)}, where="f")
    assert source.labels.dtype == np.int32
    assert source.classes == ("0", "1", "2")
    assert source.spec["image"].shape == (2, 2, 1)
    assert source[np.array([1, 1])]["label"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("arrays", "kwargs", "sentence"),
    [
        ({"image": images(), "label": np.zeros(3, int)}, {}, "f.npz: every record needs each of its parts, but there "),
        ({"image": images(0), "label": np.zeros(0, int)}, {}, "f.npz: holds no records"),
        (
            {"image": images(), "label": np.array([0, 1, 7, 1])},
            {"num_classes": 3},
            "record 2 has label 7, expected 0..2",
        ),
        ({"image": images(), "label": np.array([0, -1, 1, 1])}, {}, "record 1 has label -1, expected zero or more"),
        ({"image": images(), "label": np.array([0, 1, 1, 0.5])}, {}, "labels are whole numbers"),
        (
            {"image": images(), "label": np.zeros((4, 2), int)},
            {},
            r"one label a record, got an array of shape \[4, 2\]",
        ),
    ],
)
def test_checked_refuses(arrays, kwargs, sentence):
    with pytest.raises(DataError, match=sentence):
        checked(arrays, where="f.npz", **kwargs)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_checked_names_the_record_that_is_not_finite(value):
    x = np.zeros((9000, 2, 2, 1), np.float32)
    x[8500, 1, 0, 0] = value
    with pytest.raises(DataError, match=f"f: record 8500 has a pixel that is {value}, expected finite numbers"):
        checked({"image": x, "label": np.zeros(9000, int)}, where="f")


def test_as_images():
    assert as_images(np.zeros((3, 5, 4), np.uint8), "f").shape == (3, 5, 4, 1)
    assert as_images(np.zeros((3, 5, 4, 3)), "f").dtype == np.float32
    with pytest.raises(DataError, match=r"expected images in uint8 or floating point, got int16"):
        as_images(np.zeros((3, 5, 4), np.int16), "f")
    with pytest.raises(DataError, match=r"got shape \[3, 5\]"):
        as_images(np.zeros((3, 5), np.uint8), "f")


def test_select_is_a_source():
    source = select(ArraySource({"label": np.array([5, 6, 7])}, ("a",)), np.array([2, 0]))
    assert len(source) == 2 and source.classes == ("a",) and source.read_threads == 0
    assert source.labels.tolist() == [7, 5]
    assert source[np.array([1])]["label"].tolist() == [5]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=20, max_size=60), st.integers(0, 5))
def test_split_is_that_of_scikit_learn(labels, seed):
    labels = np.array(labels)
    counts = np.unique(labels, return_counts=True)[1]
    stratify = counts.min() >= 2
    source = ArraySource({"label": labels})
    rest, part = split(source, 7, seed=seed, stratify=stratify)
    want = train_test_split(
        np.arange(len(labels)), test_size=7, random_state=seed, stratify=labels if stratify else None
    )
    assert np.array_equal(rest.indices, want[0]) and np.array_equal(part.indices, want[1])


@settings(max_examples=20, deadline=None)
@given(st.integers(10, 50), st.floats(0, 0.4), st.integers(0, 4), st.booleans())
def test_split_parts_are_disjoint_and_whole(size, fraction, count, stratify):
    source = ArraySource({"label": np.arange(size) % 3})
    parts = split(source, fraction, count, seed=1, stratify=stratify)
    assert sorted(np.concatenate([p.indices for p in parts])) == list(range(size))
    assert len(parts[1]) == int(np.ceil(fraction * size - 1e-9)) and len(parts[2]) == count


def test_split_refuses_to_leave_nothing():
    with pytest.raises(ConfigError, match=r"cannot hold 10 out of 10 records"):
        split(ArraySource({"label": np.zeros(10, int)}), 10)
