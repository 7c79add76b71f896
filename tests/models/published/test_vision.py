"""Vision transformers and dual encoders as published: outputs, gradients, training curves, and files both ways."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

from aijax import models
from aijax.errors import ConfigError, DataError, UnsupportedError
from aijax.models import pretrained
from aijax.models.layout import from_published, to_published
from aijax.models.tensor_files import read_tensors

QUICK = ("deit_hf/a", "dinov3_hf/mlp", "clip_hf/quickgelu_legacy_eos", "vit_timm/map_head")
SLOW = (
    "siglip2_naflex_hf/b", "dinov2_hf/swiglu", "dinov2_registers_hf/reg4", "siglip_hf/wide_erf_gelu",
    "open_clip/vit_ls_posln", "vit_timm/prenorm_nonsquare", "vit_timm/swiglu_packed", "vit_hf/base_p8", "mixer_timm/a",
    "mae_hf/normpix_half",
)  # fmt: skip
SAVED = ("clip_hf/quickgelu_legacy_eos", "open_clip/vit_ls_posln")
TRAINED = ("mae_hf/normpix_half", "dinov3_hf/mlp", "clip_hf/quickgelu_legacy_eos", "vit_timm/map_head")
EXACT = {"siglip2_naflex_hf": 1e-7}
"""In float64, 1e-10 for others; the reference resizes positions in 32 bits."""


def slow(names):
    """The same cases, left to the slow run."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def is_head(module, _):
    return "head" in (module.name or "")


class Case:
    """A published model, its inputs and what it should give."""

    def __init__(self, folder, dtype="float64", **fields):
        self.folder, self.family, self.dtype = folder, folder.parent.name, dtype
        self.data = load_file(folder / "data.safetensors")
        self.told = json.loads((folder / "case.json").read_text())
        self.model, self.params = models.load(folder, dtype=dtype, **fields)
        images = self.data.get("in.pixel_values", self.data.get("in.image"))
        self.images = np.moveaxis(images, 1, -1) if images.ndim == 4 else images
        self.images = self.images.astype(dtype)

    def outputs(self, params):
        """Every output of the reference that there is."""
        variables, data = {"params": params}, self.data
        if isinstance(self.model, models.CLIP):
            return self._pairs(variables)
        if self.family == "mae_hf":
            found = self.model.apply(variables, self.images, noise=data["in.noise"])
            return {"loss": found.loss, "logits": found.patches, "mask": found.hidden}
        if self.family == "mixer_timm":
            return {"logits": self.model.apply(variables, self.images)}
        (output, features), state = self.model.apply(
            variables, self.images, with_features=True, capture_intermediates=is_head
        )
        found = {"logits": output, "last_hidden_state": features.last, "pooler_output": features.pooled}
        found |= {"features": features.last, "pre_logits": features.pooled}
        found |= {f"hidden_{i}": hidden for i, hidden in enumerate(features.hidden)}
        if self.family == "deit_hf":
            heads = state["intermediates"]
            found["cls_logits"], found["distillation_logits"] = (
                heads[name]["__call__"][0] for name in ("head", "head_distillation")
            )
        if "in.labels" in data:
            found["loss"] = optax.softmax_cross_entropy_with_integer_labels(output, data["in.labels"]).mean()
        return {name: value for name, value in found.items() if f"out.{name}" in data}

    def _pairs(self, variables):
        data, how = self.data, {}
        if "in.spatial_shapes" in data:
            how = {"shapes": data["in.spatial_shapes"], "mask": data["in.pixel_attention_mask"] > 0}
        tokens = data.get("in.input_ids", data.get("in.text"))
        mask = data["in.attention_mask"] > 0 if "in.attention_mask" in data else None
        found = self.model.apply(variables, self.images, tokens, token_mask=mask, **how)
        return {
            "logits_per_image": found["logits"], "loss": found["loss"], "image_embeds": found["image_features"],
            "text_embeds": found["text_features"],
        }  # fmt: skip

    def loss(self, params):
        found = self.outputs(params)
        return jnp.mean(found["last_hidden_state"] ** 2) if "loss" not in found else found["loss"]

    def layout(self):
        config = pretrained.read_config(self.folder)
        return pretrained.find_architecture(config, "config").layout(self.model, config)


@pytest.fixture(scope="module")
def cases(golden):
    return lambda name, *args, **fields: Case(golden / "vision_text" / name, *args, **fields)


@pytest.mark.parametrize("name", [*QUICK, *slow(SLOW)])
def test_outputs_are_those_of_the_reference(quick_jit, x64, cases, name):
    case = cases(name)
    found = quick_jit(case.outputs)(case.params)
    main = case.told["main_outputs"]
    assert {output for output in main if f"out.{output}" in case.data} <= set(found)
    for output, value in found.items():
        tolerance = EXACT.get(case.family, 1e-10) if output in main else 1e-6
        np.testing.assert_allclose(value, case.data[f"out.{output}"], atol=tolerance, err_msg=output)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_outputs_in_32_bits(quick_jit, cases, name):
    case = cases(name, "float32")
    for output, value in quick_jit(case.outputs)(case.params).items():
        np.testing.assert_allclose(value, case.data[f"out.{output}"], atol=1e-5, err_msg=output)


@pytest.mark.parametrize("name", [TRAINED[0], *slow(TRAINED[1:])])
def test_gradients_of_each_tensor(quick_jit, x64, cases, name):
    case = cases(name)
    loss, grads = quick_jit(jax.value_and_grad(case.loss))(case.params)
    np.testing.assert_allclose(loss, case.told["train"]["loss"], atol=1e-10)
    found, wanted = to_published(grads, case.layout()), load_file(case.folder / "grads.safetensors")
    assert set(wanted) <= set(found)
    for tensor, values in found.items():
        expected = wanted.get(tensor, np.zeros_like(values))
        np.testing.assert_allclose(values, expected, atol=2e-6 * max(1.0, np.abs(expected).max()), err_msg=tensor)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_eight_steps_of_adamw(quick_jit, x64, cases, name):
    case = cases(name)
    still = case.told["train"]["parameters_with_no_gradient_here"]
    weights = load_file(case.folder / "weights.safetensors")
    # what decays is told by the published tensors, some of which have fewer axes than ours
    axes = {n: np.full(t.shape, 0 if n in still else t.ndim, np.float32) for n, t in weights.items()}
    decays = jax.tree.map(lambda leaf: bool(leaf.min() > 1), from_published(axes, case.params, case.layout()))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=0.05, mask=decays))

    def step(carry, _):
        params, state = carry
        loss, grads = jax.value_and_grad(case.loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), (loss, optax.tree.norm(grads))

    start = case.params, optimizer.init(case.params)
    losses, norms = quick_jit(lambda carry: jax.lax.scan(step, carry, length=8))(start)[1]
    curve = case.told["train"]["adamw8"]
    np.testing.assert_allclose(losses, curve["losses"], rtol=1e-6)
    np.testing.assert_allclose(norms, curve["grad_norms_before_clip"], rtol=1e-5)


@pytest.mark.parametrize("name", [*SAVED, *slow(sorted({*QUICK, *SLOW} - set(SAVED)))])
def test_what_is_saved_is_what_was_loaded(tmp_path, golden, name):
    folder = golden / "vision_text" / name
    model, params = models.load(folder)
    models.save(tmp_path, model, params)
    saved, published = load_file(tmp_path / "model.safetensors"), load_file(folder / "weights.safetensors")
    assert {n: t.tobytes() for n, t in saved.items()} == {n: t.tobytes() for n, t in published.items()}
    assert {n: t.shape for n, t in saved.items()} == {n: t.shape for n, t in published.items()}
    again, read = models.load(tmp_path)
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, read, params)


def test_a_vision_tower_with_its_projection_is_half_of_a_pair(tmp_path, cases):
    case = cases("clip_hf/quickgelu_legacy_eos", "float32")
    config = pretrained.read_config(case.folder)
    alone = config["vision_config"] | {
        "architectures": ["CLIPVisionModelWithProjection"], "projection_dim": config["projection_dim"],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(alone))
    kept = ("vision_model.", "visual_projection.")
    tensors = {n: t for n, t in read_tensors(case.folder).items() if n.startswith(kept) and "position_ids" not in n}
    save_file({name: np.asarray(tensor) for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    model, params = models.load(tmp_path)
    found = model.apply({"params": params}, case.images)
    wanted = case.model.apply({"params": case.params}, case.images, method="encode_image")
    np.testing.assert_allclose(found / np.linalg.norm(found, axis=-1, keepdims=True), wanted, atol=1e-6)
    models.save(tmp_path / "again", model, params)
    assert set(load_file(tmp_path / "again/model.safetensors")) == set(tensors)
    assert models.load(tmp_path / "again")[0] == model


def test_names_of_a_tower_alone_may_lack_it(tmp_path, golden):
    folder = golden / "vision_text/siglip_hf/wide_erf_gelu"
    whole = {name: np.asarray(tensor) for name, tensor in read_tensors(folder).items()}
    short = {n.removeprefix("vision_model."): t for n, t in whole.items() if n.startswith("vision_model.")}
    config = pretrained.read_config(folder)["vision_config"] | {"architectures": ["SiglipVisionModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(short, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, models.load(tmp_path)[1], models.load(folder)[1]["vision_encoder"])


def test_pairs_of_open_clip_with_a_text_tower_apart_and_without_its_projection(tmp_path, random_params):
    vision = {"image_size": 8, "patch_size": 4, "width": 16, "head_width": 8, "layers": 1, "mlp_ratio": 2.67}
    text = {"context_length": 4, "vocab_size": 9, "width": 12, "heads": 2, "layers": 1, "proj_type": "none"}
    config = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text, "custom_text": True}
    model = pretrained.from_config(config)
    params = random_params(model, np.zeros((1, 8, 8, 3)), np.zeros((1, 4), int))
    assert params["vision_encoder"]["encoder"]["block_0"]["mlp"]["up"]["bias"].shape == (42,)
    models.save(tmp_path, model, params)
    tensors = load_file(tmp_path / "model.safetensors")
    assert {"visual.proj", "text.ln_final.weight"} <= set(tensors) and "text.text_projection" not in tensors
    again, read = models.load(tmp_path)
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, read, params)


def test_masked_autoencoders_of_either_generation_and_their_encoder_alone(tmp_path, golden):
    folder = golden / "vision_text/mae_hf/normpix_half"
    config, tensors = pretrained.read_config(folder), load_file(folder / "weights.safetensors")
    new = {n.replace("decoder.decoder_layers.", "decoder.decoder_encoder.layer."): t for n, t in tensors.items()}
    assert new.keys() != tensors.keys()
    found = pretrained.from_tensors(config, new)[1]
    jax.tree.map(np.testing.assert_array_equal, found, models.load(folder)[1])
    alone = pretrained.from_tensors(
        config | {"architectures": ["ViTMAEModel"]},
        {name.removeprefix("vit."): tensor for name, tensor in tensors.items() if name.startswith("vit.")},
    )
    models.save(tmp_path, *alone)
    assert json.loads((tmp_path / "config.json").read_text())["mask_ratio"] == 0


@pytest.mark.parametrize("name", ["dinov2_hf/swiglu", *slow(["clip_hf/quickgelu_legacy_eos"])])
def test_scanned_rematerialised_and_sharded_are_the_plain(tmp_path, quick_jit, cases, name):
    from aijax.parallel import make_mesh

    plain = cases(name, "float32")
    wanted = quick_jit(jax.value_and_grad(plain.loss))(plain.params)
    wanted = wanted[0], to_published(wanted[1], plain.layout())
    if name == "dinov2_hf/swiglu":
        scanned = cases(name, "float32", scan=True, remat="dots")
        assert scanned.params["encoder"]["blocks"]["attention"]["query"]["kernel"].shape == (2, 30, 30)
        found = quick_jit(jax.value_and_grad(scanned.loss))(scanned.params)
        same(found, wanted, scanned)
        models.save(tmp_path, scanned.model, scanned.params)
        assert set(read_tensors(tmp_path)) == set(wanted[1])
    mesh = make_mesh(data=1, fsdp=2, tensor=1, devices=jax.devices()[:2])
    cut = cases(name, "float32", mesh=mesh)
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(cut.params))
    with jax.set_mesh(mesh):
        found = quick_jit(jax.value_and_grad(cut.loss))(cut.params)
    same(found, wanted, cut)


def same(found, wanted, case):
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    for name, tensor in to_published(found[1], case.layout()).items():
        np.testing.assert_allclose(tensor, wanted[1][name], atol=1e-5 * max(1, np.abs(wanted[1][name]).max()))


@pytest.mark.parametrize("name", ["augreg_token", *slow(["bv_map_prefixed"])])
def test_npz_files_of_two_generations(x64, quick_jit, tmp_path, golden, name):
    folder = golden / "vision_text/vit_npz" / name
    data, path = load_file(folder / "data.safetensors"), tmp_path / "saved.npz"
    model, params = models.load(folder)
    assert models.load(folder / "weights.npz")[0] == model
    models.save(path, model, params)
    saved, published = np.load(path), np.load(folder / "weights.npz")
    assert {n: (a.shape, a.tobytes()) for n, a in saved.items()} == {
        n: (a.shape, a.tobytes()) for n, a in published.items()
    }
    assert models.load(path)[0] == model
    variables = {"params": jax.tree.map(lambda leaf: leaf.astype(float), params)}
    images = np.moveaxis(data["in.pixel_values"], 1, -1)
    found, features = quick_jit(lambda told: model.apply(told, images, with_features=True))(variables)
    np.testing.assert_allclose(found, data["out.output"], atol=1e-10)
    np.testing.assert_allclose(features.last, data["out.features"], atol=1e-6)
    # a file of a scanned encoder stacks what the looped one has one by one
    stacked = {}
    for array in published:
        head, numbered, rest = array.partition("encoderblock_")
        key = f"{head}encoderblock/{rest.partition('/')[2]}" if numbered else array
        stacked.setdefault(key, []).append(published[array])
    stacked = {n: np.stack(a) if "encoderblock" in n else a[0] for n, a in stacked.items()}
    np.savez(tmp_path / "scanned.npz", **stacked)
    again, read = models.load(tmp_path / "scanned.npz")
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, read, params)


@pytest.mark.slow
def test_npz_files_of_two_towers(tmp_path, random_params):
    style = {"norm_epsilon": 1e-6, "activation": "gelu_tanh"}
    vision = models.ViT(4, 16, 2, 2, pool="map", img_size=8, position_resize="zoom", **style)
    text = models.TextEncoder(9, 6, 24, 1, 3, projection_width=16, projection_bias=True, **style)
    model = models.CLIP(vision, text, None, "sigmoid")
    params = random_params(model, np.zeros((1, 8, 8, 3)), np.zeros((1, 6), int))
    models.save(tmp_path / "towers.npz", model, params)
    names = np.load(tmp_path / "towers.npz").files
    assert {"img/pos_embedding", "txt/Encoder_0/encoderblock_0/MlpBlock_0/Dense_1/bias", "t", "b"} <= set(names)
    read, found = models.load(tmp_path / "towers.npz")
    assert read.vision_encoder.embed_dim == 16
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize(
    ("name", "change", "error", "told"),
    [
        ("vit_hf/base_p8", {"hidden_act": "gelu_10"}, UnsupportedError, "hidden_act: 'gelu_10' is not offered"),
        ("vit_hf/base_p8", {"qkv_bais": True}, ConfigError, "qkv_bais: unknown field, got True; did you mean"),
        ("vit_hf/base_p8", {"num_hidden_layers": 3}, DataError, "missing: vit.encoder.layer.2"),
        ("vit_hf/base_p8", {"image_size": [32, "a"]}, ConfigError, "image_size: expected a size or a pair"),
        ("vit_hf/base_p8", {"architectures": ["ViTModel"], "pooler_act": "relu"}, UnsupportedError, "pooler_act"),
        ("dinov2_hf/swiglu", {"use_swiglu_ffn": False}, DataError, r"missing: encoder\.layer\.0\.mlp\.fc2"),
        ("dinov3_hf/mlp", {"architectures": ["ViTForImageClassification"]}, ConfigError, "unknown field"),
        ("siglip2_naflex_hf/b", {"vision_config": {"num_patches": 24}}, ConfigError, "num_patches: expected a square"),
        ("open_clip/vit_ls_posln", {"vision_cfg": {"layers": [3, 4]}}, ConfigError, "layers: expected int"),
        ("open_clip/vit_ls_posln", {"vision_cfg": {"pool_type": "none"}}, UnsupportedError, "pool_type: 'none'"),
        ("vit_timm/map_head", {"act_layer": "Mish"}, UnsupportedError, "act_layer: 'Mish' is not offered"),
        ("vit_timm/map_head", {"global_pool": "token"}, ConfigError, "needs a class token"),
    ],
)
def test_configs_that_are_not_offered_are_told(golden, name, change, error, told):
    folder = golden / "vision_text" / name
    config = pretrained.read_config(folder) | change
    with pytest.raises(error, match=told):
        pretrained.from_tensors(config, read_tensors(folder / "weights.safetensors"))


def test_a_checkpoint_of_another_architecture_is_told(tmp_path, golden):
    folder = golden / "vision_text"
    (tmp_path / "config.json").write_text((folder / "vit_hf/base_p8/config.json").read_text())
    save_file(load_file(folder / "deit_hf/a/weights.safetensors"), tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"missing: vit\.embeddings.* unknown: cls_classifier"):
        models.load(tmp_path)
    whole = (folder / "vit_npz/augreg_token/weights.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "config.json").unlink()
    with pytest.raises(DataError, match="cut short or damaged"):
        models.load(tmp_path / "cut.npz")
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    with pytest.raises(DataError, match="expected the arrays of a ViT"):
        models.load(tmp_path / "other.npz")


def test_a_model_of_our_own_is_saved_as_the_first_class_that_fits(tmp_path, random_params):
    images = np.zeros((1, 8, 8, 1))
    plain = models.ViT(4, 16, 1, 2, 3, img_size=8, token_positions="class", in_channels=1)
    params = random_params(plain, images)
    models.save(tmp_path / "vit", plain, params)
    assert models.load(tmp_path / "vit")[0].published_as == "ViTForImageClassification"
    scaled = plain.clone(layer_scale=0.1, num_classes=None)
    models.save(tmp_path / "dino", scaled, random_params(scaled, images))
    assert models.load(tmp_path / "dino")[0].published_as == "Dinov2Model"
    averaged = plain.clone(pool="gap", token_positions="none", final_norm="pooled")
    models.save(tmp_path / "timm", averaged, random_params(averaged, images))
    assert models.load(tmp_path / "timm")[0].pool == "gap"
    with pytest.raises(UnsupportedError, match=r"layer_scale: 0\.1 where it has None"):
        models.save(tmp_path / "no", scaled, params, architecture="ViTForImageClassification")
    with pytest.raises(UnsupportedError, match="this ViT is none that is published"):
        stem = plain.clone(stem_widths=(3,))
        models.save(tmp_path / "no", stem, random_params(stem, images))
