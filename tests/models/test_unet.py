"""UNets against published networks, and what one may do with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import models
from aijax.errors import ConfigError
from aijax.models import layout
from aijax.models.unet import UNet, unet

PUBLISHED = (
    "unet2d-adm-b",
    "unet2d-ncsnpp-a",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("unet2d-ddpm-b", "unet2dcond-sd-b", "unet2dcond-sdxl-a")),
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_matches_the_published_network_and_writes_it_back(x64, published_network, quick_jit, name):
    network = published_network(name)
    inputs = {key.removeprefix("in_"): jnp.asarray(network[key]) for key in network.arrays if key.startswith("in_")}
    x, t = inputs.pop("sample"), inputs.pop("timestep")
    if "encoder_hidden_states" in inputs:
        inputs["context"] = inputs.pop("encoder_hidden_states")
    got = quick_jit(network.module.apply)({"params": network.params}, x, t, **inputs)
    # the reference tells integer times in float32
    atol = 1e-6 if name != "unet2d-ncsnpp-a" else 1e-10
    np.testing.assert_allclose(got, network["out_out"], rtol=1e-8, atol=atol)
    tensors = layout.to_published(network.params)
    assert tensors.keys() == network.tensors.keys()
    assert all(np.array_equal(tensors[key], network.tensors[key]) for key in tensors)


@pytest.fixture(scope="module")
def small(random_params):
    """A UNet of two levels with classes and a context, its parameters and inputs."""
    model = unet((4, 8), out_channels=1, layers=1, head_width=4, context_levels=(1,), num_classes=3, dropout_rate=0.5)
    rng = np.random.default_rng(0)
    x, context = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4, 4, 4, 1), (4, 2, 6)))
    inputs = (x, jnp.array([1.0, 9.0, 99.0, 999.0]), jnp.array([0, 1, 2, 0]), context)
    return model, {"params": random_params(model, *inputs)}, inputs


@pytest.mark.slow
def test_one_image_as_many_and_forward_derivatives(small, quick_jit):
    model, variables, inputs = small

    def all_of(variables, x, t, labels, context):
        def one(x, t, label, context):
            return model.apply(variables, x[None], t[None], label[None], context[None])[0]

        at_once = jax.jvp(lambda x: model.apply(variables, x, t, labels, context), (x,), (x,))
        return at_once, jax.vmap(one)(x, t, labels, context)

    (y, slope), mapped = quick_jit(all_of)(variables, *inputs)
    np.testing.assert_allclose(mapped, y, atol=1e-4)
    step = 1e-2
    ends = [quick_jit(model.apply)(variables, (1 + way * step) * inputs[0], *inputs[1:]) for way in (-1, 1)]
    np.testing.assert_allclose(slope, (ends[1] - ends[0]) / (2 * step), atol=2e-3 * np.abs(slope).max())


@pytest.mark.slow
def test_gradients_with_and_without_computing_again_and_dropout(small, quick_jit):
    model, variables, inputs = small

    def gradient(model, variables, *inputs, **options):
        return jax.grad(lambda v: jnp.mean(model.apply(v, *inputs, **options) ** 2))(variables)

    plain, again, dropped = (
        quick_jit(lambda *args, kind=kind, options=options: gradient(kind, *args, **options))(variables, *inputs)
        for kind, options in (
            (model, {}),
            (model.clone(remat=True), {}),
            (model, {"train": True, "rngs": {"dropout": jax.random.key(0)}}),
        )
    )
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), plain, again)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(*map(jax.tree.leaves, (plain, dropped)), strict=True))


def test_half_precision_computes_in_it_and_keeps_parameters(small):
    _, variables, inputs = small
    half = unet((4, 8), out_channels=1, layers=1, head_width=4, context_levels=(1,), num_classes=3, dtype=jnp.bfloat16)
    shape = jax.eval_shape(half.init_with_output, jax.random.key(0), *inputs)
    assert shape[0].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(shape[1])} == {np.dtype("float32")}
    assert jax.tree.map(jnp.shape, shape[1]) == jax.tree.map(jnp.shape, variables)


def test_one_time_serves_all_and_odd_images_keep_their_size(small):
    model, variables, (x, _, labels, context) = small
    x = jnp.zeros((4, 5, 7, 1))
    shape = jax.eval_shape(model.apply, variables, x, 3, labels, context).shape
    assert shape == x.shape


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"x": np.zeros((4, 4, 1))}, "x: expected images"),
        ({"t": np.zeros(3)}, "t: expected one time or 4"),
        ({"class_labels": None}, "class_labels: expected one for each image"),
        ({"class_labels": np.zeros(4)}, "class_labels: expected integers"),
        ({"text_embeds": np.zeros((4, 2))}, "text_embeds, time_ids: expected none"),
    ],
)
def test_what_cannot_be_used_is_named(small, change, told):
    model, variables, inputs = small
    named = dict(zip(("x", "t", "class_labels", "context"), inputs, strict=True)) | change
    with pytest.raises(ConfigError, match=told):
        jax.eval_shape(lambda: model.apply(variables, named.pop("x"), named.pop("t"), **named))


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"widths": ()}, "widths"), ({"attention_levels": (2,)}, "attention_levels: expected levels from 0 to 1")],
)
def test_levels_that_there_are_not_are_named(fields, told):
    with pytest.raises(ConfigError, match=told):
        unet(**fields)


def test_levels_that_do_not_fit_are_named():
    model = unet((4, 8), layers=1)
    broken = model.clone(up=model.up[:1])
    with pytest.raises(ConfigError, match="up: expected 4 blocks in all"):
        jax.eval_shape(broken.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)), 1.0)
    assert isinstance(model, UNet)
    assert models.unet is unet
