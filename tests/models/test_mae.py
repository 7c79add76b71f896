"""The masked autoencoder: what is hidden, its loss, and its refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import models
from aijax.errors import ConfigError
from aijax.models.mae import MAE, Reconstruction, complete, masked_error
from aijax.models.patches import from_patches, to_patches


@pytest.fixture(scope="module")
def model():
    encoder = models.ViT(2, 16, 1, 2, pool="none", positions="sincos2d_mae", class_token=True)
    return MAE(encoder, 8, 1, 2, mask_ratio=0.75, normalize_targets=False)


@pytest.fixture(scope="module")
def params(model, random_params):
    return random_params(model, np.zeros((1, 8, 8, 1)), noise=np.zeros((1, 16)))


def test_hidden_patches_do_not_reach_the_encoder(quick_jit, model, params):
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    noise = jnp.stack([jnp.arange(16.0), jnp.arange(16.0)[::-1]])
    apply = quick_jit(lambda images: model.apply({"params": params}, images, noise=noise))
    found = apply(images)
    np.testing.assert_array_equal(found.hidden.sum(axis=1), 12)
    np.testing.assert_array_equal(found.hidden[0], np.arange(16) >= 4)
    np.testing.assert_array_equal(found.hidden[1], np.arange(16) < 12)
    # patches 4 and later of the first image: the lower rows of pixels
    other = apply(images.at[0, 2:].add(1.0))
    np.testing.assert_array_equal(other.patches, found.patches)
    assert other.loss != found.loss


def test_noise_is_drawn_where_it_is_not_given(quick_jit, model, params):
    images = jnp.ones((3, 8, 8, 1))
    draw = quick_jit(lambda key: model.apply({"params": params}, images, rngs={"mask": key}).hidden)
    drawn = [draw(jax.random.key(seed)) for seed in (0, 1)]
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(drawn[0].sum(axis=1), 12)


def test_targets_are_normalised_by_patch():
    rng = np.random.default_rng(0)
    predicted, target, hidden = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 4, 6)), rng.random((2, 4)) < 0.5
    unit = (target - target.mean(-1, keepdims=True)) / np.sqrt(target.var(-1, ddof=1, keepdims=True) + 1e-6)
    for normalize, wanted in ((False, target), (True, unit)):
        expected = ((predicted - wanted) ** 2).mean(-1)[hidden].mean()
        found = masked_error(*map(jnp.asarray, (predicted, target, hidden)), normalize=normalize)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_perfect_reconstruction_completes_the_images(normalize):
    rng = np.random.default_rng(0)
    images, hidden = rng.normal(size=(2, 4, 6, 3)).astype(np.float32), rng.random((2, 6)) < 0.5
    patches = np.asarray(to_patches(images, (2, 2))).reshape(2, 6, 12)
    np.testing.assert_array_equal(from_patches(patches, (2, 3), 2), images)
    mean, deviation = patches.mean(-1, keepdims=True), np.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
    predicted = np.where(hidden[..., None], (patches - mean) / deviation if normalize else patches, 9.0)
    found = Reconstruction(jnp.zeros(()), jnp.asarray(predicted), jnp.asarray(hidden))
    seen, completed = complete(jnp.asarray(images), found, 2, normalize=normalize, fill=7.0)
    np.testing.assert_allclose(completed, images, atol=1e-5)
    np.testing.assert_array_equal(seen == 7.0, from_patches(np.repeat(hidden[..., None], 12, -1), (2, 3), 2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask_ratio": 0.0}, "mask_ratio: 0.0 of 16 patches leaves 16"),
        ({"mask_ratio": 0.99}, "mask_ratio: 0.99 of 16 patches leaves 0"),
        ({"encoder": models.ViT(2, 16, 1, 2)}, "encoder: expected a ViT with a class token, pool 'none'"),
    ],
)
def test_what_cannot_be_is_refused(model, change, said):
    images, noise = jnp.ones((1, 8, 8, 1)), jnp.ones((1, 16))
    with pytest.raises(ConfigError, match=said):
        jax.eval_shape(lambda: model.clone(**change).init(jax.random.key(0), images, noise=noise))
