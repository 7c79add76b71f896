import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.data import mixing


def test_mix_golden(golden):
    arrays = golden("mixup_cutmix/x1")
    images, labels = mixing.mix(arrays["images"], jnp.asarray(arrays["onehot"], jnp.float32), 0.31)
    np.testing.assert_allclose(images, arrays["mixup_images"], atol=1e-6)
    np.testing.assert_allclose(labels, arrays["mixup_labels"], atol=1e-6)


def test_paste_golden(golden):
    arrays = golden("mixup_cutmix/x1")
    boxes = jnp.tile(jnp.array([[0, 6, 5, 16]]), (6, 1))
    images, labels = mixing.paste(arrays["images"], jnp.asarray(arrays["onehot"], jnp.float32), boxes)
    assert np.array_equal(images, arrays["cutmix_images"])
    np.testing.assert_allclose(labels, arrays["cutmix_labels"], atol=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0])
def test_symmetric_beta_has_the_quantiles_of_beta(alpha):
    from scipy.stats import beta

    draws = np.asarray(mixing.symmetric_beta(jax.random.key(1), alpha, (4000,)), np.float64)
    assert np.isfinite(draws).all() and draws.min() >= 0 and draws.max() <= 1
    for place in (0.01, 0.1, 0.3, 0.5, 0.9, 0.99):
        np.testing.assert_allclose((draws <= place).mean(), beta(alpha, alpha).cdf(place), atol=0.03)
    np.testing.assert_allclose(draws.var(), 1 / (4 * (2 * alpha + 1)), rtol=0.08)


@pytest.mark.parametrize("mixer", [mixing.mixup, mixing.cutmix])
def test_labels_stay_distributions_that_follow_the_pixels(mixer):
    labels = jax.nn.one_hot(jnp.arange(8) % 4, 4)
    images = jnp.broadcast_to(jnp.argmax(labels, -1)[:, None, None, None], (8, 16, 16, 1)).astype(jnp.float32)
    mixed, soft = jax.jit(mixer, static_argnums=3)(jax.random.key(0), images, labels, 1.0)
    np.testing.assert_allclose(soft.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), soft @ jnp.arange(4.0), atol=1e-5)
    assert float(jnp.abs(soft - labels).max()) > 0.1
