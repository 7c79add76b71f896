"""A classifier trained in one go."""

import numpy as np
import pytest

from aijax.data import ArraySource
from aijax.errors import ConfigError
from aijax.train import fit_classifier

MODEL = {"name": "cnn", "widths": (8,)}


def source(classes=("upright", "level")):
    labels = np.arange(40) % 2
    stripes = np.tile([[0], [255]], (2, 4)).astype(np.uint8)
    images = np.where(labels[:, None, None] == 1, stripes, stripes.T)[..., None]
    return ArraySource({"image": images, "label": labels.astype(np.int32)}, classes)


def test_it_learns_and_its_logits_are_linear_in_its_features():
    logits_fn, features_fn = fit_classifier(source(), model=MODEL, epochs=30, batch_size=500, learning_rate=3e-2)
    images = source()[np.arange(40)]["image"]
    logits, features = np.asarray(logits_fn(images)), np.asarray(features_fn(images)).reshape(40, -1)
    assert (logits.argmax(1) == np.arange(40) % 2).all()
    with_ones = np.concatenate([features, np.ones((40, 1))], 1)
    fitted = with_ones @ np.linalg.lstsq(with_ones, logits, rcond=None)[0]
    np.testing.assert_allclose(fitted, logits, atol=1e-3)
    np.testing.assert_allclose(logits_fn(images / np.float32(255)), logits, atol=1e-5)


def test_data_without_classes_are_refused():
    with pytest.raises(ConfigError, match=r"config\.judge: a classifier needs classes"):
        fit_classifier(source(None), model=MODEL, epochs=1, where="config.judge")
