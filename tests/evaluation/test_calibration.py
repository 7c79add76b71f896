import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import evaluation
from aijax.errors import ConfigError


def brute_error(probabilities, labels, bins):
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    total = 0.0
    for low, high in zip(np.arange(bins) / bins, (np.arange(bins) + 1) / bins, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_error_is_that_of_its_definition(bins):
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4) / 2, 300), rng.integers(0, 4, 300)
    got = evaluation.expected_calibration_error(jnp.asarray(probabilities), jnp.asarray(labels), bins=bins)
    np.testing.assert_allclose(got, brute_error(probabilities, labels, bins), rtol=1e-4)
    table = evaluation.reliability(jnp.asarray(probabilities), jnp.asarray(labels), bins=bins)
    assert table.count.sum() == 300


def test_the_temperature_of_scaled_logits_is_their_scale():
    logits = 2 * jax.random.normal(jax.random.key(0), (4000, 5))
    labels = jax.random.categorical(jax.random.key(1), logits)
    fit = jax.jit(evaluation.fit_temperature)
    np.testing.assert_allclose(fit(3 * logits, labels), 3 * fit(logits, labels), rtol=1e-2)
    np.testing.assert_allclose(fit(logits, labels), 1, atol=0.1)
    before = evaluation.expected_calibration_error(jax.nn.softmax(3 * logits), labels)
    after = evaluation.expected_calibration_error(jax.nn.softmax(3 * logits / fit(3 * logits, labels)), labels)
    assert after < 0.05 < before


def test_no_bins_are_refused():
    with pytest.raises(ConfigError, match="bins: expected 1 or more, got 0"):
        evaluation.reliability(jnp.ones((1, 1)), jnp.zeros(1, int), bins=0)
