"""The experiments of classifiers and of dual encoders, with every option, at small size."""

import json
import re

import jax
import numpy as np
import PIL.Image
import pytest
from ml_collections import ConfigDict

from aijax import open_run
from aijax.errors import UserError
from aijax.launch.cli import main
from aijax.launch.config import load
from aijax.launch.projects import import_experiment
from aijax.models import load as load_published
from aijax.train import fit, prepare
from aijax.trees import named_leaves

SMALL_VIT = (
    "--config.model.embed_dim=16", "--config.model.depth=2", "--config.model.stem_widths=(4,4)",
    "--config.total_steps=2",
)  # fmt: skip


def build(root, config, **fields):
    loaded = load(str(root / "configs" / config), [])
    changed = ConfigDict(loaded.config.to_dict() | fields)
    module = import_experiment(loaded.experiment, loaded.project)
    return module.build(changed, module.load(changed)), changed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_smoothing": 1.0}, "config.label_smoothing: expected 0 or more and below 1"),
        ({"loss": "softmaxx"}, "config.loss: unknown value 'softmaxx'; did you mean 'softmax'"),
        ({"corruptions": (("fog", 3),)}, "config.corruptions: unknown value 'fog'"),
        ({"report": ("neighbors",)}, "config.report: unknown value 'neighbors'; did you mean 'neighbours'"),
        ({"distillation": {"run": "nowhere"}}, "nowhere: not a run folder"),
        ({"distillation": {"run": "nowhere", "weigth": 1.0}}, "config.distillation.weigth: unknown field"),
        ({"pretrained": "nowhere"}, "config.model: the model is that of config.pretrained"),
        ({"pretrained": "nowhere", "model": {}}, "nowhere"),
        ({"pretrained": "", "model": {}}, "config.model: missing, and config.pretrained names no folder"),
    ],
)
def test_a_wrong_option_is_told(root, fields, message):
    with pytest.raises(UserError, match=message):
        build(root, "vit/digits.py", **fields)


@pytest.mark.slow
def test_a_step_of_the_dual_encoder_is_the_same_on_a_ring_and_in_parts(root):
    fields = {
        "batch_size": 16,
        "data": {"source": "captioned_digits", "train_size": 32, "test_size": 8},
        "vision": {"name": "vit", "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2, "pool": "gap"},
        "text": {"name": "text_encoder", "context_length": 14, "width": 8, "depth": 1, "num_heads": 2, "pool": "end"},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
    }
    losses = {}
    for name, more in {"plain": {}, "parts": {"feature_parts": 2}, "ring": {"mesh": {"data": 4}}}.items():
        experiment, config = build(root, "clip/digits.py", **fields, **more)
        run = prepare(experiment, config, devices=jax.devices()[: 4 if name == "ring" else 1])
        state = run.init(jax.random.key(0))
        batch = experiment.source[np.arange(16)]
        _, metrics = run.step(state, batch, jax.random.key(1))
        losses[name] = np.asarray(metrics.values)
    np.testing.assert_allclose(losses["parts"], losses["plain"], rtol=1e-3)
    np.testing.assert_allclose(losses["ring"], losses["plain"], rtol=1e-3)


@pytest.mark.slow
def test_a_run_with_every_option_teaches_another_and_is_opened(root, tmp_path):
    config = str(root / "configs" / "vit" / "digits.py")
    assert main(["run", config, "--workdir", str(tmp_path / "a"), *SMALL_VIT]) == 0
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        f"""
import importlib.util
spec = importlib.util.spec_from_file_location("digits", {config!r})
digits = importlib.util.module_from_spec(spec)
spec.loader.exec_module(digits)

def get_config():
    '''A recipe of everything.'''
    config = digits.get_config()
    config.model.update({{"stochastic_depth_rate": 0.1, "token_dropout_rate": 0.25, "dropout_rate": 0.1}})
    config.augment = {{"translate": 1, "rand_augment_layers": 1, "erase": 0.2, "mixup": 0.2, "cutmix": 1.0}}
    config.label_smoothing = 0.1
    config.loss = "sigmoid"
    config.sharpness_radius = 0.05
    config.ema_decay = 0.9
    config.optimizer = {{"name": "adafactor", "learning_rate": 1e-3, "weight_decay": 0.1, "layer_decay": 0.8,
                        "learning_rate_rules": (("head/.*", 2.0),), "freeze_rules": (("embedding/.*", True),)}}
    config.distillation = {{"run": {str(tmp_path / "a")!r}, "temperature": 2.0, "weight": 0.5}}
    config.corruptions = (("gaussian_noise", 3), ("contrast", 5))
    config.report = ("calibration", "neighbours", "ridge_probe", "logistic_probe")
    return config
"""
    )
    assert main(["run", str(recipe), "--workdir", str(tmp_path / "b"), *SMALL_VIT]) == 0
    run = open_run(tmp_path / "b")
    assert run.apply(np.zeros((3, 8, 8, 1), np.float32)).shape == (3, 10)
    names = {"calibration_error", "neighbours_accuracy", "ridge_probe_accuracy", "logistic_probe_accuracy"}
    assert {f"test/{name}" for name in names} <= set(run.metrics)
    assert {"gaussian_noise_3/accuracy", "contrast_5/accuracy"} <= set(run.metrics)


@pytest.mark.parametrize("config", ["vit/digits.py", "vit/mae_cifar10.py:tiny"])
def test_products_are_in_the_type_that_the_config_computes_in(root, config):
    """Images come as bytes and become floats within the loss: they too are in the type of the parameters."""
    data = {"source": "synthetic", "image_shape": (8, 8, 3), "num_classes": 3, "train_size": 16, "test_size": 8}
    built, _ = build(root, config, data=data, augment={}, model=PRETRAINING["model"])
    half = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, "bfloat16"), jax.eval_shape(built.init, jax.random.key(0))
    )
    traced = jax.make_jaxpr(built.loss_fn)(half, built.source[np.arange(4)], jax.random.key(0))
    kinds = [eqn.invars[0].aval.dtype for eqn in traced.eqns if eqn.primitive.name == "dot_general"]
    assert kinds and set(map(str, kinds)) == {"bfloat16"}


PRETRAINING = {
    "data": {"source": "synthetic", "image_shape": (8, 12, 3), "num_classes": 3, "train_size": 64, "test_size": 32},
    "model": {"name": "vit", "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2},
    "mae": {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2, "mask_ratio": 0.5},
}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"report": ("ridge",)}, "config.report: unknown value 'ridge'; did you mean 'ridge_probe'"),
        ({"mae": {"mask_rate": 0.5}}, "config.mae.mask_rate: unknown field; did you mean 'mask_ratio'"),
        ({"mae": {"mask_ratio": 0.0}}, "mask_ratio: 0.0 of 6 patches leaves 6"),
        ({"model": PRETRAINING["model"] | {"pool": "gap"}}, "config.model.pool"),
        ({"model": PRETRAINING["model"] | {"layer_scale": 1e-4}}, "ViTMAEModel: layer_scale"),
        ({"data": {"source": "iris"}}, "config.data.source: 'iris' has no images"),
    ],
)
def test_a_wrong_option_of_pretraining_is_told(root, fields, message):
    with pytest.raises(UserError, match=message):
        build(root, "vit/mae_cifar10.py:tiny", **PRETRAINING | fields)


DINO = {
    "data": PRETRAINING["data"],
    "model": PRETRAINING["model"],
    "dino": {"outputs": 7, "hidden_width": 16, "bottleneck": 4},
    "views": {"local_crops": 1, "local_size": 4},
    "batch_size": 8,
    "total_epochs": 1.0,
}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ema_decay": None, "ema_end_decay": None}, "config.ema_decay: the teacher of `dino` is the average"),
        ({"views": {"local_crop": 1}}, "config.views.local_crop: unknown field; did you mean 'local_crops'"),
        (
            {"sharpening": {"teacher_temperature": 0.0}},
            "config.sharpening.teacher_temperature: expected a number above",
        ),
        ({"sharpening": {"center_momentum": 1.0}}, "config.sharpening.center_momentum: expected 0 to below 1"),
        ({"augment": {"flip": True}}, "config.augment: the views of `dino` are those of config.views"),
        ({"mae": PRETRAINING["mae"]}, "config: expected a section `mae` or a section `dino`"),
    ],
)
def test_a_wrong_option_of_self_distillation_is_told(root, fields, message):
    with pytest.raises(UserError, match=message):
        build(root, "vit/dino_cifar10.py:tiny", **DINO | fields)


@pytest.mark.slow
def test_self_distillation_goes_on_where_it_was_stopped_and_leaves_an_encoder(root, tmp_path):
    fields = DINO | {"sharpening": {"warmup_epochs": 0.5, "first_teacher_temperature": 0.03, "freeze_epochs": 0.25}}
    built, config = build(root, "vit/dino_cifar10.py:tiny", **fields | {"schedule": {}, "tensorboard": False})
    how = {"report": lambda sentence: None, "prepared": prepare(built, config, devices=jax.devices()[:1])}
    whole = fit(built, config, tmp_path / "whole", **how)
    fit(built, config, tmp_path / "half", stop=lambda step: step == 3, **how)
    rest = fit(built, config, tmp_path / "half", **how)
    jax.tree.map(np.testing.assert_array_equal, whole.state, rest.state)
    assert np.any(whole.state.carried["center"])
    params = jax.device_get(whole.state.best_params)
    metrics = built.draw(params, tmp_path / "figures")
    assert set(metrics) == {"test/neighbours_accuracy", "test/untrained_neighbours_accuracy"}
    encoder, read = load_published(tmp_path / "encoder")
    images = np.ones((2, 8, 12, 3), np.float32)
    np.testing.assert_allclose(encoder.apply({"params": read}, images), built.apply_fn(params, images), rtol=1e-5)


@pytest.mark.slow
def test_self_distillation_is_the_same_over_a_mesh(root):
    built, config = build(root, "vit/dino_cifar10.py:tiny", **DINO)

    def stepped(devices):
        run = prepare(built, config, devices=devices)
        state, metrics = run.step(run.init(jax.random.key(0)), built.source[np.arange(8)], jax.random.key(1))
        return jax.device_get((state.carried, metrics.values))

    one, many = stepped(jax.devices()[:1]), stepped(jax.devices())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, many)


@pytest.mark.slow
def test_a_masked_autoencoder_leaves_an_encoder_that_a_classifier_begins_from(root, tmp_path):
    fields = PRETRAINING | {"batch_size": 8, "total_epochs": 1.0, "schedule": {}}
    fields["report"] = ("neighbours", "ridge_probe")
    built, config = build(root, "vit/mae_cifar10.py:tiny", **fields)
    run = prepare(built, config, devices=jax.devices()[:1])
    state = run.init(jax.random.key(0))
    before = named_leaves(jax.device_get(state.params))
    state, _ = run.step(state, built.source[np.arange(8)], jax.random.key(1))
    params = jax.device_get(state.params)
    still = {name for name, leaf in named_leaves(params).items() if np.array_equal(leaf, before[name])}
    assert {name for name in still if "positions" in name} == {name for name in before if "positions" in name}
    assert "encoder/embedding/kernel" not in still
    metrics = built.draw(params, tmp_path / "figures")
    names = ("neighbours_accuracy", "ridge_probe_accuracy")
    assert set(metrics) == {f"test/{prefix}{name}" for prefix in ("", "untrained_") for name in names}
    assert (tmp_path / "figures" / "reconstructions.png").is_file()
    fields = {"data": PRETRAINING["data"], "pretrained": str(tmp_path / "encoder")}
    tuned, _ = build(root, "vit/mae_cifar10.py:finetune", **fields)
    images = np.ones((2, 8, 12, 3), np.float32)
    start = named_leaves(tuned.init(jax.random.key(0)))
    assert start["head/kernel"].shape == (8, 3)
    np.testing.assert_array_equal(start["embedding/kernel"], params["encoder"]["embedding"]["kernel"])
    encoder = {name: leaf for name, leaf in tuned.init(jax.random.key(0)).items() if name != "head"}
    features = tuned.model.clone(num_classes=None).apply({"params": encoder}, images)
    np.testing.assert_allclose(features, built.apply_fn(params, images), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["vit/digits.py", "clip/digits.py"])
def test_a_run_begins_from_published_weights_and_leaves_frozen_ones(root, golden, experiment):
    """A classifier with a new head; a locked tower whose texts are tuned (LiT)."""
    folder = golden / "vision_text" / "vit_hf" / "base_p8"
    data = {"source": "synthetic", "image_shape": (32, 32, 3), "num_classes": 7, "train_size": 32, "test_size": 8}
    fields = {"batch_size": 8, "data": data, "augment": {}, "schedule": {}, "total_steps": 2, "total_epochs": None}
    if "vit" in experiment:
        frozen, fields["pretrained"], fields["model"] = "e.*", str(folder), {}
    else:
        frozen, fields["vision"] = "vision_encoder/.*", {"pretrained": str(folder)}
    rate = {"name": "adamw", "learning_rate": 1e-2, "freeze_rules": ((frozen, True),)}
    built, config = build(root, experiment, **fields, optimizer=rate)
    run = prepare(built, config, devices=jax.devices()[:1])
    state = run.init(jax.random.key(0))
    before = named_leaves(jax.device_get(state.params))
    state, _ = run.step(state, built.source[np.arange(8)], jax.random.key(1))
    after, published = named_leaves(jax.device_get(state.params)), named_leaves(load_published(folder)[1])
    frozen_names = {name for name in after if re.fullmatch(frozen, name)}
    moved = {name for name, leaf in after.items() if not np.array_equal(leaf, before[name])}
    assert moved and frozen_names and not moved & frozen_names
    for name in frozen_names:
        np.testing.assert_array_equal(after[name], published[name.removeprefix("vision_encoder/")])


@pytest.mark.slow
def test_a_dual_encoder_learns_from_captions_of_their_own_and_is_opened(root, tmp_path):
    rng, names = np.random.default_rng(0), ("red", "green", "blue")
    for part, count in {"train": 48, "val": 12}.items():
        (tmp_path / part).mkdir()
        rows = []
        for i in range(count):
            pixels = np.zeros((8, 8, 3), np.uint8)
            pixels[..., i % 3] = rng.integers(150, 255)
            PIL.Image.fromarray(pixels).save(tmp_path / part / f"{i}.png")
            rows.append({"file_name": f"{i}.png", "text": [f"a {names[i % 3]} square", f"{names[i % 3]} all over"]})
        (tmp_path / part / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = tmp_path / "run"
    words = [
        "run", str(root / "configs/clip/siglip_b16.py"), f"--workdir={folder}", f"--config.data.path={tmp_path}/train",
        f"--config.data.test_path={tmp_path}/val", "--config.data.size=8", "--config.data.length=6",
        "--config.vision.variant=mu/8", "--config.text.width=16", "--config.text.depth=1", "--config.text.num_heads=2",
        "--config.text.context_length=6", "--config.clip.embed_dim=8", "--config.batch_size=16",
        "--config.total_examples=960", "--config.schedule.warmup_steps=5", "--config.evaluate_every_steps=60",
        "--config.checkpoint.every_steps=60", "--config.augment.crop_area=(0.9,1.0)", "--config.tensorboard=False",
        "--config.optimizer.learning_rate=1e-2",
    ]  # fmt: skip
    assert main(words) == 0
    run = open_run(folder)
    assert 0.2 <= run.metrics["test/batch_accuracy"] <= 1 and run.metrics["test/image_to_text_r1"] > 0
    tokens = run.tokenizer.rows(["a red square", "a green square", "a blue square"], 6)
    texts = run.model.apply({"params": run.params}, tokens, method="encode_text")
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[range(3), ..., range(3)] = 200
    assert np.argmax(np.asarray(run.apply(images)) @ texts.T, axis=1).tolist() == [0, 1, 2]
