import jax
import jax.numpy as jnp
import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aijax.data.resize import resize, resize_bytes
from aijax.errors import ConfigError


@pytest.mark.parametrize("case", ["image_resize/z0", "image_resize/z1"])
def test_golden(golden, case):
    """Floating point as torch, which goes through float32; bytes to the bit as Pillow."""
    arrays = golden(case)
    size = arrays["pil_bilinear"].shape[:2]
    with jax.enable_x64(True):
        images = jnp.asarray(arrays["image_nchw"]).transpose(0, 2, 3, 1)
        for key in ("bilinear_aa0", "bilinear_aa1", "bicubic_aa0", "bicubic_aa1", "nearest-exact"):
            method, _, kind = key.replace("-exact", "").partition("_aa")
            got = resize(images, size, method=method, antialias=kind != "0")
            np.testing.assert_allclose(got.transpose(0, 3, 1, 2), arrays[key], rtol=0, atol=1e-6, err_msg=key)
    for method in ("bilinear", "bicubic", "lanczos"):
        got = jax.jit(lambda x, method=method: resize_bytes(x, size, method=method))(arrays["uint8_hwc"])
        np.testing.assert_array_equal(got, arrays[f"pil_{method}"])


@settings(max_examples=6, deadline=None)
@given(*[st.integers(1, 40)] * 4, st.sampled_from(["bilinear", "bicubic", "lanczos"]))
def test_bytes_are_pillows_at_any_size(h, w, height, width, method):
    pixels = np.random.default_rng(h * 41 + w).integers(0, 256, (h, w, 3), dtype=np.uint8)
    want = Image.fromarray(pixels).resize((width, height), Image.Resampling[method.upper()])
    got = resize_bytes(jnp.asarray(pixels), (height, width), method=method)
    if int(PIL.__version__.split(".")[0]) == 13:
        np.testing.assert_array_equal(got, want)
    assert np.abs(np.asarray(got, int) - want).max() <= 2  # others have rows first


def test_a_constant_stays_and_gradients_are_the_weights():
    images = jnp.full((2, 5, 7, 1), 3.0)
    for method in ("nearest", "bilinear", "bicubic"):
        for antialias in (False, True):
            np.testing.assert_allclose(resize(images, (3, 9), method=method, antialias=antialias), 3.0, rtol=1e-6)
    grad = jax.grad(lambda x: resize(x, (3, 4)).sum())(images)
    np.testing.assert_allclose(grad.sum(), 2 * 3 * 4, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resize(jnp.ones((2, 2, 1)), (2, 2), method="bilinaer"), "did you mean 'bilinear'"),
        (lambda: resize(jnp.ones((2, 2, 1)), (0, 2)), r"size: expected a height and a width above 0, got \(0, 2\)"),
        (lambda: resize_bytes(jnp.ones((2, 2, 1)), (2, 2)), "images: expected uint8, got float32"),
    ],
)
def test_what_cannot_be_resampled_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
