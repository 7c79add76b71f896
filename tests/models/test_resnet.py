"""Residual blocks of image networks: sizes, the ways of the time, and what cannot be used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D, mean_pool, repeat_pixels


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(size=(2, 4, 6, 4)).astype(np.float32)


def normal(x, groups, layer):
    parts = x.reshape(*x.shape[:-1], groups, -1)
    mean, variance = (f(parts, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
    return ((parts - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape) * layer["scale"] + layer["bias"]


def convolve(x, layer):
    """A 3 x 3 convolution as a sum over its nine places."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    h, w = x.shape[1:3]
    parts = (padded[:, i : i + h, j : j + w] @ layer["kernel"][i, j] for i in range(3) for j in range(3))
    return sum(parts) + layer["bias"]


def silu(x):
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("way", ["default", "scale_shift"])
def test_the_time_is_added_or_scales_and_shifts(image, random_params, way):
    block = ResnetBlock2D(6, 2, groups_out=3, time_embedding=way, output_scale=2.0)
    embedding = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    p = random_params(block, image, embedding)
    got = jax.jit(block.apply)({"params": p}, image, embedding)
    h = convolve(silu(normal(image, 2, p["norm1"])), p["conv1"])
    told = (silu(embedding) @ p["time_emb_proj"]["kernel"] + p["time_emb_proj"]["bias"])[:, None, None]
    if way == "default":
        h = normal(h + told, 3, p["norm2"])
    else:
        scale, shift = np.split(told, 2, -1)
        h = normal(h, 3, p["norm2"]) * (1 + scale) + shift
    shortcut = image @ p["conv_shortcut"]["kernel"][0, 0] + p["conv_shortcut"]["bias"]
    np.testing.assert_allclose(got, (shortcut + convolve(silu(h), p["conv2"])) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (ResnetBlock2D(4, 2, resample="down"), (2, 2, 3, 4)),
        (ResnetBlock2D(4, 2, resample="up"), (2, 8, 12, 4)),
        (Downsample2D(5), (2, 2, 3, 5)),
        (Downsample2D(5, padding=0), (2, 2, 3, 5)),
        (Upsample2D(5), (2, 8, 12, 5)),
    ],
)
def test_sizes(image, module, shape):
    assert jax.eval_shape(module.init_with_output, jax.random.key(0), image)[0].shape == shape


def test_pixels_are_repeated_and_averaged(image):
    twice = repeat_pixels(image)
    np.testing.assert_array_equal(mean_pool(twice), image)
    odd = np.asarray(repeat_pixels(image, (7, 11)))
    np.testing.assert_array_equal(odd[:, 3, 4], image[:, 3 * 4 // 7, 4 * 6 // 11])
    assert odd.shape == (2, 7, 11, 4)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"groups": 3}, "norm_num_groups: expected a divisor of 4 channels, got 3"),
        ({"time_embedding": "ada"}, "resnet_time_scale_shift"),
        ({"resample": "half"}, "resample"),
        ({"activation": "sine"}, "act_fn"),
    ],
)
def test_what_cannot_be_used_is_named(image, fields, told):
    block = ResnetBlock2D(4, **{"groups": 2} | fields)
    with pytest.raises(ConfigError, match=told):
        jax.eval_shape(block.init, jax.random.key(0), jnp.asarray(image))
