import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.data import geometry

IMAGES = jnp.arange(6 * 5 * 4 * 2.0).reshape(6, 5, 4, 2) + 1
KEY = jax.random.key(0)


def test_flip_mirrors_some():
    flipped = geometry.random_flip(KEY, jnp.tile(IMAGES, (10, 1, 1, 1)))
    base = jnp.tile(IMAGES, (10, 1, 1, 1))
    same, mirrored = (jnp.all(flipped == x, axis=(1, 2, 3)) for x in (base, base[:, :, ::-1]))
    assert jnp.all(same ^ mirrored) and 15 < mirrored.sum() < 45
    assert jnp.array_equal(geometry.random_flip(KEY, IMAGES, 1.0), IMAGES[:, :, ::-1])


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_crop_is_a_window_of_the_padded_image(mode):
    got = geometry.random_crop(KEY, IMAGES, 1, mode=mode)
    padded = np.pad(np.asarray(IMAGES), ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
    windows = [padded[:, y : y + 5, x : x + 4] for y in range(3) for x in range(3)]
    assert all(any(np.array_equal(got[i], window[i]) for window in windows) for i in range(6))


def test_translations_are_uniform():
    images = jnp.zeros((900, 3, 3, 1), jnp.uint8).at[:, 1, 1].set(1)
    places = geometry.random_translate(KEY, images, 1).mean(axis=0)[..., 0]
    np.testing.assert_allclose(places, 1 / 9, atol=0.035)


def test_crop_to_a_size_and_refusal():
    assert geometry.random_crop(KEY, IMAGES, 0, size=(2, 3)).shape == (6, 2, 3, 2)
    with pytest.raises(ValueError, match=r"a window of 9 x 3 does not fit images of 5 x 4 padded by 1"):
        geometry.random_crop(KEY, IMAGES, 1, size=(9, 3))


def test_resized_crop():
    jitted_crop = jax.jit(geometry.random_resized_crop, static_argnames=("size", "area", "ratio"))
    whole = jitted_crop(KEY, IMAGES, area=(1.0, 1.0), ratio=(0.8, 0.8))
    np.testing.assert_allclose(whole, IMAGES, rtol=1e-5)
    ramp = jnp.broadcast_to(jnp.arange(16.0)[:, None, None], (8, 16, 16, 1))
    crops = jitted_crop(KEY, ramp, size=(8, 8), area=(0.25, 0.25), ratio=(1.0, 1.0))
    assert crops.shape == (8, 8, 8, 1)
    np.testing.assert_allclose(jnp.diff(crops[:, 1:-1, 0, 0], axis=1), 1.0, atol=1e-4)
    assert crops.min() >= 0 and crops.max() <= 15


def test_erase_makes_one_box_of_the_asked_area():
    images = jnp.ones((200, 20, 20, 1))
    erase = jax.jit(geometry.random_erase, static_argnames="area")
    erased = erase(KEY, images, 1.0, area=(0.1, 0.1))
    share = 1 - erased.mean(axis=(1, 2, 3))
    assert jnp.all(share > 0.05) and abs(float(share.mean()) - 0.1) < 0.01
    rows = (erased[..., 0] == 0).any(axis=2).sum(axis=1) * (erased[..., 0] == 0).any(axis=1).sum(axis=1)
    np.testing.assert_allclose(rows / 400, share, rtol=1e-5)
    assert jnp.array_equal(erase(KEY, images, 0.0, area=(0.1, 0.1)), images)


def test_an_affine_map_turns_about_the_centre_and_does_nothing_at_zero():
    images = jax.random.uniform(jax.random.key(0), (3, 9, 9, 2))
    np.testing.assert_allclose(geometry.random_affine(jax.random.key(1), images), images, atol=1e-6)
    disc = jnp.broadcast_to((jnp.hypot(*jnp.mgrid[-4:5, -4:5]) < 3)[None, :, :, None], (3, 9, 9, 1)).astype(jnp.float32)
    turned = geometry.random_affine(jax.random.key(1), disc, degrees=90)
    assert jnp.abs(turned.sum((1, 2, 3)) - disc.sum((1, 2, 3))).max() < 4
    assert jnp.abs(turned - disc)[:, 3:6, 3:6].max() < 1e-5
    bent = geometry.random_affine(jax.random.key(1), images, degrees=15, shear=0.2, scale=0.1)
    assert bent.shape == images.shape and jnp.abs(bent - images).max() > 0.1
    assert jnp.abs(bent[:, 4, 4] - images[:, 4, 4]).max() < 1e-5
