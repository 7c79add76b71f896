"""Pictures on grey levels: what lies in which bin, samples of classes in blocks, measures, bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import EDM, bits_of_images, compare_images, dequantise, nearest_distance, sample_images
from aijax.diffusion.figures import draw_pictures, tile
from aijax.diffusion.images import as_levels, as_pictures, on_levels

KEY = jax.random.key(0)


def told(scale, labels, x, t):
    """An x_0 that is a class's own grey, and that of no class 0."""
    grey = jnp.where(labels == 2, 0.0, scale * (2.0 * labels - 1))
    return jnp.broadcast_to(grey[:, None, None, None], x.shape)


def test_levels_come_back_from_their_bins():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    for levels in (256, 17, 2):
        x = dequantise(KEY, as_levels(images, levels), levels=levels)
        np.testing.assert_allclose(as_pictures(x, levels), on_levels(images, levels), atol=1e-7)


def test_samples_are_of_all_classes_in_turn_whatever_the_block():
    denoise = jax.tree_util.Partial(told, 0.5)
    given = {"count": 5, "levels": 9, "classes": 2, "steps": 2, "grid": "karras"}
    x = sample_images(KEY, denoise, EDM(), (2, 2, 1), block=2, **given)
    assert x.shape == (5, 2, 2, 1)
    np.testing.assert_allclose(x[:, 0, 0, 0], np.array([2, 6, 2, 6, 2]) / 8)
    guided = sample_images(KEY, denoise, EDM(), (2, 2, 1), block=5, guidance=1.5, **given)
    np.testing.assert_allclose(guided[:, 0, 0, 0], np.array([1, 7, 1, 7, 1]) / 8)


def test_measures_of_pictures():
    rng = np.random.default_rng(0)
    data = {name: rng.uniform(size=(n, 2, 2, 1)) for name, n in (("train", 30), ("test", 30))}
    bright = np.arange(30)[:, None, None, None] % 2 * np.ones((1, 2, 2, 1))
    classifier = lambda x: jnp.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], 1), lambda x: x[:, :, 0, 0]
    found = compare_images({"copy": data["train"], "made": bright}, data, classes=2, classifier=classifier)
    assert found["copy_nearest_training_image"] == pytest.approx(0, abs=1e-3)
    assert found["test_nearest_training_image"] > 0.1
    assert found["copy_pixel_frechet_distance"] == pytest.approx(float(found["test_pixel_frechet_distance"]), rel=1e-3)
    assert found["made_class_accuracy"] == 1 and found["made_frechet_distance"] > found["test_frechet_distance"]
    assert not any("accuracy" in name for name in compare_images({"made": bright}, data, classes=2))


def test_neighbours_are_found_in_blocks():
    x, y = jax.random.normal(KEY, (1500, 3)), jax.random.normal(jax.random.key(1), (7, 3))
    brute = np.linalg.norm(np.asarray(x)[:, None] - np.asarray(y), axis=2).min(1).mean()
    assert float(nearest_distance(x, y)) == pytest.approx(brute, rel=1e-4)


@pytest.mark.slow
def test_bits_of_what_is_known(float64):
    # data of the process's own prior at t = 0: a Gaussian of variance 1/4, one label for each
    denoise = lambda labels, x, t: 0.25 * x / (0.25 + t**2) + 0.0 * labels[:, None, None, None]  # noqa: E731
    images, labels = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 1)).astype(np.uint8), np.arange(3)
    process = EDM(1e-3, 20.0)
    bits = bits_of_images(KEY, denoise, process, images, labels, block=2)
    assert bits.shape == (3,)
    x = 2 * (images + 0.5) / 256 - 1
    density = -0.5 * (x**2 / 0.25 + np.log(2 * np.pi * 0.25))
    np.testing.assert_allclose(bits, -density.mean((1, 2, 3)) / np.log(2) + 7, atol=0.02)


def test_pictures_are_tiled_and_drawn(tmp_path):
    grid = np.arange(6.0).reshape(2, 3, 1, 1, 1) + 1
    np.testing.assert_array_equal(tile(grid)[1::2, 1::2], grid.reshape(2, 3))
    draw_pictures(tmp_path / "figures" / "a.png", {"one": grid[0], "two": grid[1]}, columns=3)
    assert (tmp_path / "figures" / "a.png").read_bytes().startswith(b"\x89PNG")
