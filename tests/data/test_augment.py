import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.data.augment import make_augment, make_preprocess, to_bytes, to_unit
from aijax.errors import ConfigError

KEY = jax.random.key(0)
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
BATCH = {"image": jnp.asarray(PIXELS), "label": jnp.arange(8) % 4, "id": jnp.arange(8)}
ALL = {
    "crop_area": (0.5, 1.0), "translate": 1, "flip": True, "rand_augment_layers": 1, "erase": 0.5, "mixup": 0.2,
    "cutmix": 1.0,
}  # fmt: skip


def test_nothing_asked_is_scaling_alone():
    out = make_augment({}, 4)(KEY, BATCH)
    np.testing.assert_allclose(out["image"], PIXELS / 255.0, atol=1e-6)
    assert out["image"].dtype == jnp.float32
    assert jnp.array_equal(out["label"], BATCH["label"]) and jnp.array_equal(out["id"], BATCH["id"])


@pytest.mark.parametrize("field", ALL)
def test_each_field_changes_the_images_and_keeps_the_shape(field):
    out = jax.jit(make_augment({field: ALL[field]}, 4))(KEY, BATCH)
    assert out["image"].shape == PIXELS.shape and out["image"].dtype == jnp.float32
    assert float(out["image"].min()) >= 0 and float(out["image"].max()) <= 1
    assert not jnp.allclose(out["image"], PIXELS / 255.0)
    assert out["label"].shape == ((8, 4) if field in ("mixup", "cutmix") else (8,))


def test_all_together_is_a_function_of_the_key_alone():
    augment = make_augment(ALL, 4)
    jitted = jax.jit(augment)
    first, again, other = jitted(KEY, BATCH), jitted(KEY, BATCH), jitted(jax.random.key(1), BATCH)
    assert jnp.array_equal(first["image"], again["image"])
    assert not jnp.array_equal(first["image"], other["image"])
    assert jnp.allclose(first["label"].sum(-1), 1, atol=1e-5)


def test_floating_images_are_the_same_as_bytes():
    augment = jax.jit(make_augment({"rand_augment_layers": 1, "flip": True}, None))
    unit = {**BATCH, "image": to_unit(BATCH["image"])}
    np.testing.assert_allclose(augment(KEY, unit)["image"], augment(KEY, BATCH)["image"], atol=1e-6)
    assert jnp.array_equal(to_bytes(unit["image"]), BATCH["image"])


def test_sharding_does_not_matter():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(BATCH, jax.NamedSharding(mesh, jax.P("data")))
    augment = jax.jit(make_augment({**ALL, "crop_area": None, "erase": 0.0}, 4))
    np.testing.assert_allclose(augment(KEY, sharded)["image"], augment(KEY, BATCH)["image"], atol=1e-6)


@pytest.mark.parametrize(
    ("section", "num_classes", "sentence"),
    [
        ({"translat": 1}, 4, "config.augment.translat: unknown field; did you mean 'translate'"),
        ({"translate": 1.5}, 4, "config.augment.translate: expected int, got 1.5"),
        ({"translate": -1}, 4, "config.augment.translate: expected 0 or more, got -1"),
        ({"erase": 1.5}, 4, "config.augment.erase: expected 0 to 1, got 1.5"),
        ({"rand_augment_magnitude": 11}, 4, "config.augment.rand_augment_magnitude: expected 0 to 10, got 11"),
        ({"crop_area": (0.5, 0.1)}, 4, "config.augment.crop_area: expected shares 0 < least <= largest <= 1"),
        ({"mixup": 0.2}, None, "config.augment.mixup: mixes the labels of classes, and this data has none"),
        ({"padding": "wrap"}, 4, "config.augment.padding: expected one of 'constant', 'reflect', 'edge', got 'wrap'"),
        ({"num_classes": 3}, 4, "config.augment.num_classes: unknown field"),
    ],
)
def test_refusals(section, num_classes, sentence):
    with pytest.raises(ConfigError) as error:
        make_augment(section, num_classes)
    assert str(error.value).startswith(sentence)


def test_preprocess_normalises_each_channel():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    out = make_preprocess({"mean": mean, "std": std})(BATCH)
    np.testing.assert_allclose(out["image"], (PIXELS / 255.0 - mean) / std, atol=1e-5)
    assert jnp.array_equal(out["label"], BATCH["label"])
    assert make_preprocess({})({"tokens": 1}) == {"tokens": 1}


def test_preprocess_refusals():
    with pytest.raises(ConfigError, match=r"config.preprocess.std: expected one deviation a channel beside the mean"):
        make_preprocess({"mean": (0.5,)})
    with pytest.raises(ConfigError, match=r"config.preprocess.std: expected deviations above 0"):
        make_preprocess({"mean": (0.5,), "std": (0.0,)})
    with pytest.raises(ConfigError, match=r"config.preprocess.men: unknown field; did you mean 'mean'"):
        make_preprocess({"men": (0.5,)})
