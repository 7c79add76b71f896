"""Accuracies of classifiers of frozen features, against each classifier called by itself."""

import jax
import numpy as np
import pytest

from aijax import evaluation
from aijax.errors import ConfigError


def test_each_classifier_is_measured_on_what_was_held_out():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (np.eye(3)[labels] @ rng.normal(size=(3, 4)) + 0.4 * rng.normal(size=(60, 4))).astype(np.float32)
    train, test = (jax.numpy.asarray(features[:40]), labels[:40]), (jax.numpy.asarray(features[40:]), labels[40:])
    names = ("neighbours", "ridge_probe")
    found = evaluation.feature_accuracies(names, *train, *test, num_classes=3, l2=0.5)
    votes = evaluation.nearest_neighbour_votes(*train, test[0], num_classes=3)
    scores = evaluation.probe_scores(evaluation.ridge_probe(*train, 0.5, num_classes=3), test[0])
    for name, answers in zip(names, (votes, scores), strict=True):
        assert found[f"{name}_accuracy"] == pytest.approx(np.mean(np.argmax(answers, axis=1) == test[1]))


def test_an_unknown_classifier_is_told():
    with pytest.raises(ConfigError, match="'ridge_prob'; did you mean 'ridge_probe'"):
        evaluation.feature_accuracies(("ridge_prob",), *(np.zeros((2, 1)), np.zeros(2, int)) * 2, num_classes=2)
