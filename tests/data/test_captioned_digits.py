import numpy as np
import pytest

from aijax.data.captioned_digits import COMBINATIONS, captioned_digits, captions, draw_held_out
from aijax.errors import ConfigError

SIZES = {"train_size": 400, "test_size": 120}


def test_a_scene_is_what_its_caption_says():
    source = captioned_digits("train", **SIZES)
    record = source[np.arange(50)]
    assert record["image"].shape == (50, 24, 24, 3) and record["image"].dtype == np.uint8
    assert source.classes == captions() and len(set(captions())) == 360
    for image, label in zip(record["image"], record["label"], strict=True):
        number, colour, _, row = COMBINATIONS[label]
        cells = image.reshape(3, 8, 3, 8, 3).any(axis=(1, 3, 4))
        assert cells[row].sum() == number + 1 and cells.sum() == number + 1
        brightest = image.reshape(-1, 3).max(axis=0)
        assert (brightest > 150).tolist() == [colour in (0, 3), colour in (1, 3), colour == 2]


def test_the_test_has_combinations_of_its_own_and_the_validation_those_of_the_training():
    labels = {split: set(captioned_digits(split, **SIZES).labels.tolist()) for split in ("train", "validation", "test")}
    held_out = set(np.flatnonzero(draw_held_out(0.15, 0, "where")).tolist())
    assert len(held_out) == 54
    assert labels["test"] <= held_out and not held_out & (labels["train"] | labels["validation"])
    again = captioned_digits("test", **SIZES)
    np.testing.assert_array_equal(again.labels, captioned_digits("test", **SIZES).labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out_fraction": 0.0}, "config.data.held_out_fraction: 0.0 of 360 combinations leaves none"),
        ({"held_out_fraction": 0.99}, "leaves a word untrained"),
        ({"train_size": 0}, "config.data.train_size: expected 1 or more, got 0"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(ConfigError, match=message):
        captioned_digits("train", **options)
