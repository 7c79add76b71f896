"""Tables of positions: the three conventions, resizing against torch's values, and images of several shapes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax.errors import ConfigError
from aijax.models.positions import (
    METHODS,
    positions_of_patches,
    resize_matrix,
    resize_table,
    rotary2d_angles,
    sincos2d,
)  # fmt: skip

CASES = "sincos2d_mae/m0", "sincos2d_mocov3/v0", "sincos2d_mocov3/v1", "sincos2d_timm/s0", "sincos2d_timm/s2"


@pytest.mark.parametrize("name", CASES)
def test_each_convention_is_that_of_its_library(x64, golden, name):
    folder = golden / "vision_text" / name
    told, table = json.loads((folder / "case.json").read_text()), np.load(folder / "data.npz")["table"]
    family = told["family"].removeprefix("sincos2d_")
    ours = sincos2d(tuple(told["grid"]), told["dim"], base=told.get("temperature", 1e4), convention=family)
    table = table.reshape(-1, told["dim"])[told.get("prefix_tokens", 0) :]
    np.testing.assert_allclose(ours.reshape(-1, told["dim"]), table, atol=1e-6 if family == "timm" else 1e-12)


def test_an_interleaved_table_has_the_same_columns():
    plain, other = (sincos2d((2, 3), 8, convention="timm", interleaved=mixed) for mixed in (False, True))
    np.testing.assert_array_equal(plain[..., [0, 1, 4, 5, 2, 3, 6, 7]], other)


@pytest.mark.parametrize("name", ["r0", "r2", "r4", "r5"])
def test_tables_are_resized_as_torch_does(x64, golden, name):
    folder = golden / "vision_text/posembed_resize" / name
    told, data = json.loads((folder / "case.json").read_text()), np.load(folder / "data.npz")
    prefix, width = told["prefix_tokens"], data["table"].shape[-1]
    method = told["interpolation"] + ("_antialias" if told["antialias"] else "")
    table = jnp.asarray(data["table"][0, prefix:].reshape(*told["old_grid"], width))
    ours = resize_table(table, tuple(told["new_grid"]), method).reshape(-1, width)
    # the reference is computed in 32 bits
    np.testing.assert_allclose(ours, data["resized"][0, prefix:], rtol=1e-6, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(old=st.integers(1, 9), new=st.integers(1, 9), method=st.sampled_from(sorted(METHODS)))
def test_a_resized_constant_is_that_constant(old, new, method):
    matrix = resize_matrix(old, new, method)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)
    if old == new:
        np.testing.assert_allclose(matrix, np.eye(old), atol=1e-12)


def test_zoom_keeps_corners_and_bicubic_is_keys(x64):
    from scipy.ndimage import zoom

    row = np.random.default_rng(0).normal(size=6)
    table = jnp.asarray(row)[:, None, None]
    np.testing.assert_allclose(resize_table(table, (9, 1), "zoom").ravel(), zoom(row, 9 / 6, order=1), atol=1e-12)
    ours = resize_table(table, (15, 1), "bicubic_antialias").ravel()
    np.testing.assert_allclose(ours, jax.image.resize(jnp.asarray(row), (15,), "cubic"), atol=1e-12)


def test_images_of_several_shapes_have_the_positions_of_each(x64):
    table = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4, 3)))
    shapes = jnp.array([[2, 3], [7, 1]])
    found = jax.jit(positions_of_patches, static_argnums=2)(table, shapes, 8)
    for row, (h, w) in zip(found, shapes.tolist(), strict=True):
        own = resize_table(table, (h, w), "bilinear_antialias").reshape(-1, 3)
        np.testing.assert_allclose(row[: h * w], own, atol=1e-12)
        np.testing.assert_allclose(row[h * w :], jnp.broadcast_to(own[0], (8 - h * w, 3)), atol=1e-12)


def test_angles_are_those_of_the_centres():
    angles = rotary2d_angles((2, 4), 8, base=16.0)
    assert angles.shape == (8, 4)
    np.testing.assert_allclose(angles[5], 2 * np.pi * np.array([0.5, 0.5 / 4, -0.25, -0.25 / 4]), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: sincos2d((2, 2), 6), "width: sincos2d positions need a multiple of 4, at least 8, got 6"),
        (lambda: sincos2d((2, 2), 8, convention="mea"), "convention: unknown value 'mea'; did you mean 'mae'"),
        (lambda: resize_table(jnp.ones((2, 2, 1)), (3, 3), "cubic"), "position_resize: unknown value 'cubic'"),
        (lambda: rotary2d_angles((2, 2), 6), "heads of a width of 4 k, got 6"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(ConfigError, match=said):
        call()
