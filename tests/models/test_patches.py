"""Patches of images: as a convolution, cut beforehand, and with kernels of another size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.models.patches import PatchEmbedding, resize_kernel, to_patches
from aijax.models.positions import resize_matrix


@pytest.mark.parametrize("name", ["p0", "p1"])
def test_kernels_are_resized_as_flexivit_does(x64, golden, name):
    data = np.load(golden / "vision_text/flexi_patch_resize" / name / "data.npz")
    old, new = (data[key].transpose(2, 3, 1, 0).astype(float) for key in ("kernel_oihw", "resized_oihw"))
    # the reference is computed in 32 bits: it is right to a part of its largest entry
    np.testing.assert_allclose(
        resize_kernel(jnp.asarray(old), new.shape[:2]), new, rtol=0, atol=9e-7 * np.abs(new).max()
    )


def test_larger_patches_give_the_same_tokens_of_resized_images(x64):
    rng = np.random.default_rng(0)
    kernel, images = rng.normal(size=(4, 3, 2, 5)), rng.normal(size=(2, 8, 6, 2))
    rows, columns = resize_matrix(4, 8, "bicubic_antialias"), resize_matrix(3, 6, "bicubic_antialias")
    patches = images.reshape(2, 2, 4, 2, 3, 2)
    larger = np.einsum("pi,qj,bhiwjc->bhpwqc", rows, columns, patches).reshape(2, 16, 12, 2)
    small = PatchEmbedding((4, 3), 5, use_bias=False)
    large = PatchEmbedding((8, 6), 5, use_bias=False, kernel_size=(4, 3))
    variables = {"params": {"kernel": jnp.asarray(kernel)}}
    np.testing.assert_allclose(large.apply(variables, larger), small.apply(variables, images), atol=1e-10)


def test_it_is_a_convolution_and_takes_patches(x64):
    rng = np.random.default_rng(0)
    kernel, images = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 5, 7, 4))
    layer, variables = PatchEmbedding((2, 3), 5, use_bias=False, drop_rest=True), {"params": {"kernel": kernel}}
    dims = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(images, kernel, (2, 3), "VALID", dimension_numbers=dims)
    np.testing.assert_allclose(layer.apply(variables, images), expected, atol=1e-12)
    patches = to_patches(images[:, :4, :6], (2, 3)).reshape(2, 4, -1)
    np.testing.assert_allclose(layer.apply(variables, patches), expected.reshape(2, 4, 5), atol=1e-12)
    with pytest.raises(ConfigError, match="patches of 2 x 3 pixels do not divide an image of 5 x 7"):
        layer.clone(drop_rest=False).apply(variables, images)
