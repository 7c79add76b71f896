"""The data sets that come with scikit-learn: digits (images) and the tables iris, wine, breast cancer and diabetes.

Digits are `[8, 8, 1]` float32 images, the counts 0..16 scaled to 0..1. Their file is read where scikit-learn keeps it,
since importing scikit-learn takes longer than all else that a small run does before its first step; where the file has
moved, scikit-learn is asked.
"""

import functools
import gzip
import importlib.util
from pathlib import Path

import numpy as np

from aijax.data.parts import check_split, named_split
from aijax.data.source import ArraySource, Source, checked

TABLES = ("iris", "wine", "breast_cancer", "diabetes")


def digits(
    split: str,
    field: str = "config.data",
    *,
    validation_fraction: float = 0.0,
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Source:
    """Returns a split of the 1,797 handwritten digits: 1,437 to train on and 360 to test on, stratified.

    Args:
      split: "train", "validation" or "test".
      field: the config section, for messages.
      validation_fraction: of all digits, taken from those to train on.
      test_fraction: of all digits.
      split_seed: of the shuffle that splits; 0 is the split of scikit-learn's `random_state=0`.

    Source: E. Alpaydin, C. Kaynak, Optical recognition of handwritten digits, UCI (1998), as scikit-learn carries it.
    """
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return named_split(_all_digits(), split, field, seed=split_seed, **fractions)


def table(
    table: str,
    split: str,
    field: str = "config.data",
    *,
    standardize: bool = True,
    validation_fraction: float = 0.0,
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Source:
    """Returns a split of a table: float32 features `"x"` and `"y"`, int32 classes or (diabetes) float32 targets.

    Args:
      table: "iris", "wine", "breast_cancer" or "diabetes".
      split: "train", "validation" or "test".
      field: the config section, for messages.
      standardize: whether each feature is shifted and scaled to mean 0 and deviation 1 over the training split.
      validation_fraction, test_fraction: of all records.
      split_seed: of the shuffle that splits.
    """
    check_split(split, field)
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    whole = _whole_table(table)
    if standardize:
        train = named_split(whole, "train", field, seed=split_seed, **fractions)
        x = train[np.arange(len(train))]["x"].astype(np.float64)
        scaled = (whole.arrays["x"] - x.mean(axis=0)) / x.std(axis=0)
        whole = ArraySource({**whole.arrays, "x": scaled.astype(np.float32)}, whole.classes)
    return named_split(whole, split, field, seed=split_seed, **fractions)


@functools.cache
def _all_digits() -> ArraySource:
    path = _package_folder() / "datasets" / "data" / "digits.csv.gz"
    if path.is_file():
        with gzip.open(path, "rt") as lines:
            rows = np.loadtxt(lines, delimiter=",", dtype=np.float32)
        images, labels = rows[:, :-1], rows[:, -1]
    else:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    return checked({"image": images, "label": labels}, where="digits of scikit-learn", num_classes=10)


def _package_folder() -> Path:
    return Path(importlib.util.find_spec("sklearn").submodule_search_locations[0])


@functools.cache
def _whole_table(name: str) -> ArraySource:
    import sklearn.datasets

    bunch = getattr(sklearn.datasets, f"load_{name}")()
    classes = tuple(bunch.target_names) if "target_names" in bunch else None
    y = bunch.target.astype(np.float32 if classes is None else np.int32)
    return checked({"x": bunch.data.astype(np.float32), "y": y}, where=f"{name} of scikit-learn", classes=classes)
