"""Probes against scikit-learn, and that selectivity tells a probe that memorises from one that reads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError, DataError
from aijax.interp import (
    control_labels,
    fit_logistic,
    fit_mlp,
    fit_ridge,
    lda_direction,
    mean_difference,
    probe_accuracy,
    probe_logits,
    selectivity,
)


@pytest.mark.parametrize("name", ["probe_0", "probe_1"])
def test_probes_are_those_of_scikit_learn(golden, name):
    with np.load(golden / "science" / "interp" / f"{name}.npz") as stored:
        case = dict(stored)
    x, y, train, control = (case[key] for key in ("X", "y", "train", "control_y"))
    k, C = int(y.max()) + 1, float(case["C"])
    with jax.enable_x64(True):
        fit = jax.jit(functools.partial(fit_logistic, num_classes=k, C=C, max_steps=300))
        probe = fit(x[train], y[train])
        logits = np.asarray(probe_logits(probe, x))
        logprob = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        found = selectivity(fit, x, y, control, train)
        ridge, direction, lda = jax.jit(
            lambda x, y: (
                fit_ridge(x, y, num_classes=k, l2=2.0),
                mean_difference(x, y),
                lda_direction(x, y, num_classes=k),
            )
        )(x[train], y[train])
        ridge_accuracy = float(probe_accuracy(ridge, x[~train], y[~train]))
        accuracy = float(probe_accuracy(probe, x[train], y[train]))
    np.testing.assert_allclose(logprob, case["logreg_logprob"], atol=1e-4)
    nll = -logprob[train][np.arange(train.sum()), y[train]].mean()
    np.testing.assert_allclose(nll, case["logreg_train_nll"], rtol=1e-4)
    np.testing.assert_allclose(accuracy, case["logreg_acc_train"], atol=1e-5)
    np.testing.assert_allclose(found.accuracy, case["logreg_acc_test"], atol=1e-5)
    np.testing.assert_allclose(found.control_accuracy, case["control_acc_test"], atol=1e-5)
    np.testing.assert_allclose(found.selectivity, case["selectivity"], atol=1e-5)
    np.testing.assert_allclose(ridge.kernel.T, case["ridge_W"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ridge.bias, case["ridge_b"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ridge_accuracy, case["ridge_acc_test"], atol=1e-5)
    np.testing.assert_allclose(direction, case["mean_diff_direction"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(lda, case["lda_direction"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_hidden_layer_reads_what_no_line_does_and_is_less_selective():
    x = jax.random.normal(jax.random.key(0), (180, 4))
    labels = (x[:, 0] * x[:, 1] > 0).astype(jnp.int32)
    control = control_labels(jax.random.key(1), jnp.arange(180), num_types=180, num_classes=2)
    train = np.arange(180) < 120
    linear = functools.partial(fit_logistic, num_classes=2, max_steps=30)
    deep = functools.partial(fit_mlp, jax.random.key(2), num_classes=2, width=16, max_steps=40)
    plain, hidden = (selectivity(jax.jit(fit), x, labels, control, train) for fit in (linear, deep))
    assert plain.accuracy < 0.65 and hidden.accuracy > 0.85
    assert hidden.selectivity > 0.25


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fit_logistic(np.ones((3, 2)), np.array([0, 1, 3]), num_classes=3), ConfigError, "to 2, got 3"),
        (lambda: fit_ridge(np.ones((3, 2)), np.array([0, -1, 1]), num_classes=2), ConfigError, "got -1"),
        (lambda: fit_ridge(np.ones((3, 2)), np.array([0, 1]), num_classes=2), ConfigError, "one for each row"),
        (lambda: fit_logistic(np.ones((2, 2)), np.array([0, 1]), num_classes=2, C=0.0), ConfigError, "C: expected"),
        (lambda: fit_logistic(np.ones((2, 2)), np.array([0, 0]), num_classes=1), ConfigError, "num_classes: expected"),
        (lambda: selectivity(None, np.ones((2, 2)), None, None, np.ones(2)), DataError, "train: expected some"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call()
