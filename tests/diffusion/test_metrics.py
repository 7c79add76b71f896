"""Distances of samples against reference values and their own properties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from aijax.diffusion.metrics import (
    features,
    frechet_distance,
    gaussian_of,
    inception_score,
    kernel_distance,
    precision_recall,
    sliced_wasserstein,
)
from aijax.errors import ConfigError, DataError
from aijax.kernels import RBF

KEY = jax.random.key(0)


@pytest.mark.golden("metric")
def test_the_golden_metrics(case, arrays):
    metric = case.params["metric"]
    if metric == "fid":
        parts = [jax.jit(gaussian_of)(arrays[part]) for part in "ab"]
        for number, part in enumerate(parts, 1):
            case.close(part.mean, f"mu{number}")
            case.close(part.covariance, f"sigma{number}")
        case.close(jax.jit(frechet_distance)(*parts), case["fid"][0])
    elif metric == "kid":
        case.close(jax.jit(kernel_distance)(arrays["a"], arrays["b"]), case["kid"][0])
    elif metric == "mmd":
        kernel = RBF(lengthscale=case.params["bandwidth"])
        for name in ("biased", "unbiased"):
            distance = functools.partial(kernel_distance, kernel=kernel, unbiased=name == "unbiased")
            found = jax.jit(distance)(arrays["a"], arrays["b"])
            case.close(found, case[name][0])
    elif metric == "inception_score":
        case.close(jax.jit(inception_score)(arrays["logits"]), case["value"][0])
    else:
        shares = jax.jit(functools.partial(precision_recall, k=case.params["k"]))
        precision, recall = shares(arrays["a"], arrays["b"])
        case.close(precision, case["precision"][0])
        case.close(recall, case["recall"][0])


def test_the_frechet_distance_of_few_samples_is_that_of_their_gaussians(float64):
    x, y = (jax.random.normal(jax.random.key(seed), (n, 16)) for seed, n in ((0, 5), (1, 40)))
    distance = jax.jit(frechet_distance)
    np.testing.assert_allclose(distance(x, x), 0.0, atol=1e-7)
    np.testing.assert_allclose(distance(x, y), distance(gaussian_of(x), y), rtol=1e-7)


@pytest.mark.parametrize("sizes", [(200, 200), (200, 130)])
def test_sliced_wasserstein_is_that_of_each_line(sizes, float64):
    keys = jax.random.split(KEY)
    x, y = jax.random.normal(keys[0], (sizes[0], 2)), 1.0 + jax.random.normal(keys[1], (sizes[1], 2))
    found, second = jax.jit(
        lambda x, y: [sliced_wasserstein(KEY, x, y, projections=jnp.eye(2), order=order) for order in (1, 2)]
    )(x, y)
    wanted = np.mean([stats.wasserstein_distance(x[:, j], y[:, j]) for j in range(2)])
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    assert second >= found


def test_features_are_made_in_blocks():
    x = np.arange(10.0).reshape(5, 2)
    np.testing.assert_allclose(features(lambda x: x[..., None] * 2, x, batch_size=2), 2 * x)


def test_mistakes_are_named():
    with pytest.raises(DataError, match="features: expected equal dimensions, got 2 and 3"):
        frechet_distance(jnp.zeros((4, 2)), jnp.zeros((4, 3)))
    with pytest.raises(DataError, match="generated: expected more than k = 3 samples, got 2"):
        precision_recall(jnp.zeros((4, 2)), jnp.zeros((2, 2)))
    with pytest.raises(DataError, match="features: expected finite numbers"):
        frechet_distance(jnp.full((4, 2), jnp.nan), jnp.zeros((4, 2)))
    with pytest.raises(DataError, match=r"features: expected .n, d. with n of at least 2, got shape .1, 2."):
        kernel_distance(jnp.zeros((1, 2)), jnp.zeros((4, 2)))
    with pytest.raises(ConfigError, match="order: expected a number of at least 1, got 0"):
        sliced_wasserstein(jax.random.key(0), jnp.zeros((4, 2)), jnp.zeros((4, 2)), order=0)


def test_features_that_a_compiled_function_knows_are_no_obstacle():
    a = jnp.array([[0.0, 1.0], [2.0, 3.0]])
    distance = jax.jit(lambda key: sliced_wasserstein(key, a, a + 1, num_projections=8))(jax.random.key(0))
    assert 0 < distance < 2
