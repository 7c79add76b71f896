import numpy as np
import pytest

from aijax.data.load import load_source
from aijax.errors import ConfigError

SECTION = {"source": "synthetic", "image_shape": (4, 6, 3), "num_classes": 7, "train_size": 300, "test_size": 20}


def test_images_and_labels_are_the_same_whenever_they_are_read():
    train, test = (load_source(SECTION, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (300, 20) and len(train.classes) == 7
    together, alone = train[np.array([5, 299])], train[np.array([299])]
    np.testing.assert_array_equal(together["image"][1:], alone["image"])
    assert {name: leaf.shape for name, leaf in train.spec.items()} == {"image": (4, 6, 3), "label": ()}
    assert set(train.labels.tolist()) == set(range(7)) and together["label"].dtype == np.int32


@pytest.mark.parametrize("field", ["train_size", "test_size", "num_classes"])
def test_a_size_below_one_is_refused(field):
    with pytest.raises(ConfigError, match=rf"config.data.{field}: expected 1 or more, got 0"):
        load_source(SECTION | {field: 0}, "train")
