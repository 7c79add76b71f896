import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import evaluation
from aijax.errors import ConfigError


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(0), (2, 32, 32, 3), minval=0.2, maxval=0.8)


@pytest.mark.parametrize("name", sorted(evaluation.CORRUPTIONS))
def test_severity_takes_images_further_and_never_out_of_range(images, name):
    corrupted = [evaluation.corrupt(jax.random.key(1), images, name, severity) for severity in (1, 5)]
    mild, strong = (float(jnp.abs(x - images).mean()) for x in corrupted)
    assert 0 < mild < strong
    for x in corrupted:
        assert x.shape == images.shape and x.min() >= 0 and x.max() <= 1


def test_a_blur_keeps_the_mean_and_an_even_image(images):
    even = jnp.full((1, 20, 24, 1), 0.3)
    np.testing.assert_allclose(evaluation.corrupt(jax.random.key(0), even, "gaussian_blur", 5), 0.3, rtol=1e-5)
    blurred = evaluation.corrupt(jax.random.key(0), images, "gaussian_blur", 5)
    assert blurred.std() < 0.7 * images.std()


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [("gausian_noise", 1, "did you mean 'gaussian_noise'"), ("contrast", 6, "expected a severity of 1 to 5, got 6")],
)
def test_mistakes_are_told(images, name, severity, message):
    with pytest.raises(ConfigError, match=message):
        evaluation.corrupt(jax.random.key(0), images, name, severity)
