import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import evaluation
from aijax.errors import ConfigError

CASES = ["linear_probe/q0", "linear_probe/q2"]


@pytest.fixture
def problem(case):
    def read(name):
        about, arrays = case(name)
        return about, arrays, {key: jnp.asarray(array) for key, array in arrays.items()}

    with jax.enable_x64(True):
        yield read


@pytest.mark.parametrize("name", CASES)
def test_ridge_is_the_reference(problem, name):
    about, arrays, data = problem(name)
    fit = jax.jit(evaluation.ridge_probe, static_argnames="num_classes")
    probe = fit(data["train_x"], data["train_y"], about["ridge_alpha"], num_classes=len(arrays["ridge_coef"]))
    np.testing.assert_allclose(probe.kernel.T, arrays["ridge_coef"], atol=1e-10)
    np.testing.assert_allclose(probe.bias, arrays["ridge_intercept"], atol=1e-10)
    scores = evaluation.probe_scores(probe, data["test_x"])
    np.testing.assert_allclose(scores, arrays["ridge_scores"], atol=1e-10)
    assert evaluation.top_k_accuracy(scores, data["test_y"]) == pytest.approx(float(arrays["ridge_acc"]))


@pytest.mark.parametrize("name", CASES)
def test_logistic_regression_is_the_reference(problem, name):
    about, arrays, data = problem(name)
    fit = jax.jit(evaluation.logistic_probe, static_argnames="num_classes")
    probe = fit(data["train_x"], data["train_y"], 1 / about["logreg_C"], num_classes=len(arrays["logreg_coef"]))
    probabilities = jax.nn.softmax(evaluation.probe_scores(probe, data["test_x"]))
    np.testing.assert_allclose(probabilities, arrays["logreg_proba"], atol=1e-5)
    np.testing.assert_allclose(probe.kernel.T, arrays["logreg_coef"], atol=1e-5)
    bias = probe.bias - probe.bias.mean()
    np.testing.assert_allclose(bias, arrays["logreg_intercept"] - arrays["logreg_intercept"].mean(), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_neighbours_are_the_reference(problem, name):
    _, arrays, data = problem(name)
    votes = evaluation.nearest_neighbour_votes(
        data["train_x"], data["train_y"], data["test_x"], num_classes=10, k=5, weights="distance"
    )
    np.testing.assert_array_equal(votes.argmax(axis=1), arrays["knn5_pred"])
    np.testing.assert_allclose(votes.sum(axis=1), 1)


@pytest.mark.parametrize("shape", [(30, 6), (6, 30)])
def test_one_decomposition_serves_every_penalty(shape):
    x, y = jax.random.normal(jax.random.key(0), shape), jnp.arange(shape[0]) % 3
    penalties = jnp.array([0.1, 1.0, 10.0])
    together = evaluation.ridge_probe(x, y, penalties, num_classes=3)
    assert evaluation.probe_scores(together, x).shape == (3, shape[0], 3)
    for i, penalty in enumerate(penalties):
        alone = evaluation.ridge_probe(x, y, penalty, num_classes=3)
        np.testing.assert_allclose(together.kernel[i], alone.kernel, atol=1e-5)
        centred = x - x.mean(axis=0)
        targets = 2 * jax.nn.one_hot(y, 3) - 1
        solved = jnp.linalg.solve(centred.T @ centred + penalty * jnp.eye(shape[1]), centred.T @ targets)
        np.testing.assert_allclose(alone.kernel, solved, atol=1e-4)


def test_a_neighbour_at_distance_zero_outvotes_all_others():
    train, labels = jnp.array([[1.0, 0.0], [1.0, 1e-2], [1.0, 1e-2]]), jnp.array([0, 1, 1])
    votes = evaluation.nearest_neighbour_votes(train, labels, train[:1], num_classes=2, k=3, weights="distance")
    assert votes.tolist() == [[1.0, 0.0]]
    even = evaluation.nearest_neighbour_votes(train, labels, train[:1], num_classes=2, k=3, weights="uniform")
    np.testing.assert_allclose(even, [[1 / 3, 2 / 3]], rtol=1e-6)
    soft = evaluation.nearest_neighbour_votes(train, labels, train[:1], num_classes=2, k=3, temperature=0.01)
    np.testing.assert_allclose(soft.sum(), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: evaluation.ridge_probe(x, y[1:], 1.0, num_classes=2), "labels: expected one for each row"),
        (lambda x, y: evaluation.nearest_neighbour_votes(x, y, x, num_classes=2, k=5), "k: expected 1 to 4"),
        (lambda x, y: evaluation.nearest_neighbour_votes(x, y, x, num_classes=2, k=1, weights="near"), "weights"),
    ],
)
def test_mistakes_are_told(call, message):
    with pytest.raises(ConfigError, match=message):
        call(jnp.ones((4, 2)), jnp.zeros(4, int))


def test_a_label_that_is_none_of_the_classes_is_told():
    x, labels = jnp.ones((3, 2)), jnp.array([0, 1, 2])
    for fit in (lambda: evaluation.ridge_probe(x, labels, 1.0, num_classes=2),
                lambda: evaluation.nearest_neighbour_votes(x, labels, x, num_classes=2)):  # fmt: skip
        with pytest.raises(ConfigError, match="labels: expected numbers from 0 to 1, got 2"):
            fit()
