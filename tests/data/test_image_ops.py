import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from aijax.data import image_ops as ops
from aijax.data.rand_augment import CODE, OPERATIONS, apply_operations, rand_augment


def table(make):
    return jax.jit(lambda images, value: ops.apply_table(images, make(images, value)))


OPS = {
    "autocontrast": table(lambda x, _: ops.autocontrast_table(ops.histogram(x))),
    "equalize": table(lambda x, _: ops.equalize_table(ops.histogram(x))),
    "invert": table(lambda x, _: ops.invert_table()),
    "posterize": table(lambda x, v: ops.posterize_table(v)),
    "solarize": table(lambda x, v: ops.solarize_table(v)),
    "brightness": table(lambda x, v: ops.brightness_table(v)),
    "contrast": table(ops.contrast_table),
    "color": jax.jit(ops.color),
    "sharpness": jax.jit(ops.sharpness),
    "rotate": jax.jit(lambda x, v: ops.affine(x, ops.rotation(v, *x.shape[1:3]))),
    "shear_x": jax.jit(lambda x, v: ops.affine(x, ops.shear_translation(shear_x=v))),
    "shear_y": jax.jit(lambda x, v: ops.affine(x, ops.shear_translation(shear_y=v))),
    "translate_x": jax.jit(lambda x, v: ops.affine(x, ops.shear_translation(shift_x=v))),
}
BLENDS = ("color", "contrast", "brightness", "sharpness")


@pytest.mark.parametrize("case", ["image_ops_uint8/i2", "image_ops_uint8/i3"])
def test_golden(golden, case):
    """Every operation against Pillow: tables and affine maps to the bit, enhancements to 1 of 255."""
    arrays = golden(case)
    for key in arrays.files:
        name, value = (key, "0") if key in OPS else key.rsplit("_", 1) if "_" in key else (None, None)
        if name is None:
            continue
        got = np.asarray(OPS[name](jnp.asarray(arrays["image"])[None], float(value))[0])
        assert got.dtype == np.uint8
        assert np.abs(got.astype(int) - arrays[key]).max() <= (1 if name in BLENDS else 0), key


def noisy(seed, low, high, grey):
    shape = (9, 11) if grey else (9, 11, 3)
    return np.random.default_rng(seed).integers(low, high + 1, shape, dtype=np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.integers(0, 255), st.integers(0, 255), st.booleans())
def test_tables_are_pillows_on_any_range(seed, low, high, grey):
    pixels = noisy(seed, min(low, high), max(low, high), grey)
    batch = jnp.asarray(pixels.reshape(1, 9, 11, -1))
    for name, pillow in (("autocontrast", ImageOps.autocontrast), ("equalize", ImageOps.equalize)):
        want = np.asarray(pillow(Image.fromarray(pixels)))
        assert np.array_equal(np.asarray(OPS[name](batch, 0)).reshape(want.shape), want)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from(BLENDS), st.floats(0, 2))
def test_enhancements_are_pillows(seed, name, factor):
    pixels = noisy(seed, 0, 255, False)
    want = np.asarray(getattr(ImageEnhance, name.capitalize())(Image.fromarray(pixels)).enhance(factor))
    got = np.asarray(OPS[name](jnp.asarray(pixels)[None], factor)[0])
    assert np.abs(got.astype(int) - want).max() <= 1


def test_parameters_may_differ_from_image_to_image():
    images = jnp.asarray(np.stack([noisy(i, 0, 255, False) for i in range(3)]))
    values = jnp.array([0.1, 1.0, 1.9])
    for name in BLENDS:
        together = OPS[name](images, values)
        alone = jnp.concatenate([OPS[name](images[i : i + 1], values[i]) for i in range(3)])
        assert jnp.array_equal(together, alone)


def test_a_layer_does_to_each_image_its_own_operation():
    image = jnp.asarray(noisy(0, 10, 200, False))
    codes = jnp.arange(len(OPERATIONS))
    images = jnp.broadcast_to(image, (len(codes), *image.shape))
    got = apply_operations(images, codes, jnp.ones(len(codes)), 10.0)
    values = {"posterize": 4, "solarize": 0, "rotate": 30, "shear_x": 0.3, "shear_y": 0.3, "translate_x": 5}
    for name, op in OPS.items():
        want = op(image[None], values.get(name, 1.9))[0]
        assert jnp.array_equal(got[CODE[name]], want), name
    assert jnp.array_equal(got[CODE["identity"]], image)


def test_rand_augment_under_jit_and_vmap():
    images = jnp.asarray(np.stack([noisy(i, 0, 255, False) for i in range(4)]))
    keys = jax.random.split(jax.random.key(0))
    jitted = jax.jit(rand_augment, static_argnums=(2, 3))
    eager, compiled = rand_augment(keys[1], images, 2, 5.0), jitted(keys[1], images, 2, 5.0)
    assert jnp.array_equal(eager, compiled) and compiled.dtype == jnp.uint8
    mapped = jax.jit(jax.vmap(lambda k, x: rand_augment(k, x, 2, 5.0)))(keys, jnp.stack([images, images]))
    assert jnp.array_equal(mapped[1], compiled) and not jnp.array_equal(mapped[0], compiled)
    assert jnp.array_equal(rand_augment(keys[0], images, 0), images)
