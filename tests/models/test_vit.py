"""The ViT against published weights, its layouts against each other, and its refusals."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from aijax import models
from aijax.errors import ConfigError
from aijax.models import pretrained


def shapes_of(model, *shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda key: models.init(key, model, x), jax.random.key(0))


def test_it_is_the_published_vit(quick_jit, x64, golden):
    folder = golden / "vision_text/vit_hf/base_p8"
    data = load_file(folder / "data.safetensors")
    model, params = models.load(folder, "float64")
    x = jnp.asarray(data["in.pixel_values"].transpose(0, 2, 3, 1), jnp.float64)
    labels = data["in.labels"]

    def loss_and_all(params):
        logits, state = model.apply({"params": params}, x, capture_intermediates=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), (logits, state["intermediates"])

    (loss, (logits, seen)), grads = quick_jit(jax.value_and_grad(loss_and_all, has_aux=True))(params)
    np.testing.assert_allclose(logits, data["out.logits"], atol=1e-10)
    np.testing.assert_allclose(loss, data["out.loss"], atol=1e-10)
    for i in range(2):
        block = seen["encoder"][f"block_{i}"]["__call__"][0]
        np.testing.assert_allclose(block, data[f"out.hidden_{i + 1}"], atol=1e-5)
    expected = pretrained.from_tensors(pretrained.read_config(folder), load_file(folder / "grads.safetensors"))[1]
    chex.assert_trees_all_close(grads, expected, atol=1e-6)


@pytest.fixture(scope="module")
def looped(quick_jit, small_vit, small_params, images):
    return value_and_grad(quick_jit, small_vit(), small_params, images)


def value_and_grad(quick_jit, model, params, images):
    return quick_jit(jax.value_and_grad(lambda p: jnp.sum(model.apply({"params": p}, images) ** 2)))(params)


@pytest.mark.parametrize("remat", ["block", "dots"])
def test_the_rematerialised_is_the_looped(quick_jit, small_vit, small_params, images, looped, remat):
    found = value_and_grad(quick_jit, small_vit(remat=remat), small_params, images)
    chex.assert_trees_all_close(found, looped, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("remat", ["none", "dots"])
def test_the_scanned_is_the_looped(quick_jit, small_vit, small_params, images, looped, remat):
    value, grads = value_and_grad(
        quick_jit, small_vit(scan=True, remat=remat), models.stack_blocks(small_params), images
    )
    chex.assert_trees_all_close((value, models.unstack_blocks(grads)), looped, rtol=1e-4, atol=1e-5)


def test_it_maps_over_examples_and_takes_bfloat16(quick_jit, small_vit, small_params, small_logits, images):
    each = quick_jit(jax.vmap(lambda x: small_vit().apply({"params": small_params}, x[None])[0]))(images)
    np.testing.assert_allclose(each, small_logits, atol=1e-5)
    half = quick_jit(small_vit(dtype="bfloat16").apply)({"params": small_params}, images)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(half), small_logits, atol=0.1)


@pytest.mark.parametrize("scan", [False, True])
def test_dropout_and_stochastic_depth_act_in_training_only(
    quick_jit, small_vit, small_params, small_logits, images, scan
):
    params = {"params": models.stack_blocks(small_params) if scan else small_params}
    model = small_vit(dropout_rate=0.3, stochastic_depth_rate=0.5, scan=scan)
    train = quick_jit(lambda key: model.apply(params, images, train=True, rngs={"dropout": key}))
    first, again, other = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_allclose(quick_jit(model.apply)(params, images), small_logits, atol=1e-5)


def test_a_skipped_branch_keeps_its_mean(quick_jit, small_params):
    spec = models.BlockSpec(num_heads=2, mlp_ratio=4.0)
    branchless = jax.tree.map(jnp.zeros_like, small_params["encoder"]["block_0"]["mlp"])
    params = {"params": small_params["encoder"]["block_0"] | {"mlp": branchless}}
    x = jax.random.normal(jax.random.key(0), (1, 4, 16))

    @quick_jit
    def trained(keys):
        block = models.Block(spec, deterministic=False)
        return jax.vmap(lambda key: block.apply(params, x, jnp.float32(0.5), rngs={"dropout": key}))(keys)

    added = trained(jax.random.split(jax.random.key(1), 400)) - x
    kept = quick_jit(models.Block(spec).apply)(params, x) - x
    on = jnp.any(added != 0, axis=(1, 2, 3))
    np.testing.assert_allclose(on.mean(), 0.5, atol=0.1)
    np.testing.assert_allclose(added[on], jnp.broadcast_to(2 * kept, added[on].shape), atol=1e-5)


def test_variants_are_those_of_the_papers():
    counts = {
        "Ti/16": 5_717_416 - 192,  # the class token has no row in the position table
        "B/16": 86_567_656 - 768,
    }
    for variant, count in counts.items():
        shapes = shapes_of(models.vit(variant, num_classes=1000), 1, 224, 224, 3)
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert models.vit("L/14").depth == 24
    assert "blocks" in shapes_of(models.vit("L/16"), 1, 32, 32, 3)["encoder"]
    assert models.vit("mu/4", depth=3).depth == 3


def test_features_gap_stem_and_fixed_positions(small_vit, images):
    model = small_vit(pool="gap", positions="sincos2d", stem_widths=(4, 6), num_classes=None)
    shapes = shapes_of(model, *images.shape)
    assert set(shapes) == {"embedding", "encoder", "stem_0", "stem_1"}
    assert shapes["embedding"]["kernel"].shape == (4, 4, 6, 16)
    assert jax.eval_shape(model.apply, {"params": shapes}, images).shape == (3, 16)
    smaller = small_vit(patch_size=1, stem_widths=(4, 6), stem_strides=(1, 2), num_classes=None)
    assert shapes_of(smaller, *images.shape)["positions"].shape == (4, 4, 16)


@pytest.mark.parametrize(
    ("fields", "shape", "said"),
    [
        ({}, (1, 10, 8, 1), "patches of 4 x 4 pixels do not divide an image of 10 x 8"),
        ({"num_heads": 3}, (1, 8, 8, 1), "num_heads: expected a divisor of the width 16, got 3"),
        ({"stem_strides": (2,)}, (1, 8, 8, 1), "stem_strides: expected 0, as stem_widths has"),
        ({"pool": "avg"}, (1, 8, 8, 1), "pool: unknown value 'avg'"),
        ({"class_token": False}, (1, 8, 8, 1), "class_token: pool='cls' and distillation='none' need one, got False"),
        ({"in_channels": 3}, (1, 8, 8, 1), "in_channels: expected images of 3 channels, got shape"),
        ({"img_size": 9}, (1, 8, 8, 1), "patches of 4 x 4 pixels do not divide an image of 9 x 9"),
        ({"remat": "blok"}, (1, 8, 8, 1), "did you mean 'block'"),
        ({"norm": "batch"}, (1, 8, 8, 1), "norm: unknown value 'batch'"),
        ({"embed_dim": 18, "positions": "sincos2d"}, (1, 8, 8, 1), "multiple of 4"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(small_vit, fields, shape, said):
    with pytest.raises(ConfigError, match=said):
        shapes_of(small_vit(**fields), *shape)


def test_an_image_of_another_size_than_the_positions_is_refused(small_vit, small_params):
    with pytest.raises(ConfigError, match="learned for 2 x 2 patches, and the image gives 3 x 2; position_resize"):
        small_vit().apply({"params": small_params}, jnp.ones((1, 12, 8, 1)))


@pytest.mark.parametrize("variant", ["b/16", "B", "B/", "B/x", "B/0", "XXL/16"])
def test_an_unknown_variant_is_refused(variant):
    with pytest.raises(ConfigError, match=r"^variant: .*did you mean 'B'" if variant == "b/16" else r"^variant: "):
        models.vit(variant)


def features_of(quick_jit, model, params, images, **how):
    return quick_jit(lambda params: model.apply({"params": params}, images, with_features=True, **how))(params)


def test_registers_masks_and_kept_patches(quick_jit, random_params, small_vit, images):
    model = small_vit(num_registers=2, token_positions="all", mask_token=True, pool="cls_gap", num_classes=None)
    params = random_params(model, images)
    assert params["token_positions"].shape == (3, 16)
    _, whole = features_of(quick_jit, model, params, images)
    assert whole.last.shape == (3, 7, 16)
    np.testing.assert_allclose(whole.pooled[:, 16:], whole.last[:, 3:].mean(axis=1), rtol=1e-5)
    hide = jnp.zeros((3, 4), bool).at[0, 1].set(True)
    _, hidden = features_of(quick_jit, model, params, images, hide=hide)
    assert not np.allclose(hidden.last[0], whole.last[0])
    np.testing.assert_allclose(hidden.last[1:], whole.last[1:], atol=1e-6)
    # all patches in another order give the same class token
    keep = jnp.broadcast_to(jnp.array([3, 1, 0, 2]), (3, 4))
    _, kept = features_of(quick_jit, model, params, images, keep=keep)
    np.testing.assert_allclose(kept.last[:, 0], whole.last[:, 0], atol=1e-5)
    np.testing.assert_allclose(kept.last[:, 3:], whole.last[:, 3:][:, keep[0]], atol=1e-5)


def test_patches_of_several_images_are_those_images(quick_jit, random_params, small_vit, images):
    from aijax.models.patches import to_patches

    model = small_vit(pool="map", position_resize="bilinear_antialias")
    params = random_params(model, images)
    wanted = quick_jit(model.apply)({"params": params}, images)
    patches = to_patches(images, (4, 4)).reshape(3, 4, 16)
    padded = jnp.pad(patches, ((0, 0), (0, 2), (0, 0)), constant_values=9.0)
    shapes, mask = jnp.full((3, 2), 2), jnp.arange(6)[None] < jnp.full((3, 1), 4)
    found = quick_jit(lambda p: model.apply({"params": p}, padded, shapes=shapes, mask=mask))(params)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    with pytest.raises(ConfigError, match="images given as patches need their shapes"):
        model.apply({"params": params}, padded)


def test_images_of_another_size_and_tokens_left_out(quick_jit, small_vit, small_params):
    large = jax.random.normal(jax.random.key(2), (2, 12, 16, 1))
    outputs = [
        quick_jit(small_vit(position_resize=method).apply)({"params": small_params}, large)
        for method in ("bicubic", "zoom")
    ]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    dropped = small_vit(position_resize="zoom", token_dropout_rate=0.5)

    def train(key):
        return dropped.apply(
            {"params": small_params}, large, train=True, with_features=True, rngs={"dropout": key}
        )[1].last  # fmt: skip

    assert jax.eval_shape(train, jax.random.key(0)).shape == (2, 7, 16)
