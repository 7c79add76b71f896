"""Pre-trains a vision transformer without labels, by the section that the config has.

    mae     a masked autoencoder (He et al. 2022, arXiv 2111.06377)
    dino    self-distillation between views of an image (Caron et al. 2021, arXiv 2104.14294)

The teacher of the latter is the average of the parameters that the trainer keeps (`ema_decay`, `ema_end_decay`).

When the run has ended, its folder `encoder` holds the encoder as a published folder, from which `train_classifier`
fine-tunes (`pretrained`) and which other tools read. `report` names classifiers of frozen features (of `mae` the mean
of the patches, of `dino` the class token), which are measured on the trained encoder and, as `untrained_...`, on one
that was only initialised. A masked autoencoder also leaves `figures/reconstructions.png`: test images, what the encoder
saw of them and what was made of it (where targets are normalised, with the mean and the deviation that a hidden patch
has in the image).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aijax import durations, evaluation, losses, models
from aijax.binding import bind
from aijax.data import load_source
from aijax.data.augment import make_augment, make_preprocess, to_unit
from aijax.data.views import multi_crop
from aijax.diffusion.figures import draw_pictures
from aijax.errors import ConfigError, choose
from aijax.models.dino import DINO
from aijax.models.mae import MAE, complete, masked_error
from aijax.models.patches import pair, to_patches
from aijax.models.pretrained import config_of
from aijax.train import Carry, Evaluation, Experiment, outputs
from aijax.train.prepare import resolve_cadence

FIELDS = ("model", "mae", "dino", "views", "sharpening", "augment", "preprocess", "report")
MAE_ENCODER = {
    "num_classes": None, "pool": "none", "class_token": True, "positions": "learned", "token_positions": "class",
    "freeze_positions": True, "position_resize": "bicubic",
}  # fmt: skip
"""What the published class has: fixed tables of positions, that of the class token too, and an output of all tokens."""
DINO_ENCODER = {
    "num_classes": None, "pool": "cls", "class_token": True, "positions": "learned", "token_positions": "class",
    "position_resize": "bicubic", "layer_scale": 1.0,
}  # fmt: skip
"""What the published class has, that of DINOv2: a class token, positions that fit smaller images, scaled branches."""
PICTURES = 40


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to learn without labels.

    Attributes:
      model: the module that is trained; its parameters have those of the encoder under "encoder".
      encoder: images -> features.
      published: the class as which the encoder is saved.
      loss_fn, carry: see `aijax.train.Experiment`.
      measure: what is measured on each image, or None.
      draw: `draw(params, folder)`, its own figures, or None.
    """

    model: Any
    encoder: Any
    published: str
    loss_fn: Callable
    carry: Carry | None = None
    measure: Callable | None = None
    draw: Callable | None = None


def load(config):
    """Returns the sources that the run reads."""
    return {split: load_source(config.data, split) for split in ("train", "test")}


def build(config, sources):
    """Returns the experiment: the encoder of `config.model`, trained on "train" and measured on "test"."""
    train, test = sources["train"], sources["test"]
    if "image" not in train.spec:
        raise ConfigError(f"config.data.source: {config.data.source!r} has no images")
    shape = train.spec["image"].shape
    preprocess_batch = make_preprocess(config.get("preprocess", {}))

    def preprocess(raw):
        return preprocess_batch({"image": jnp.asarray(raw)})["image"]

    if bool(config.get("mae")) == bool(config.get("dino")):
        raise ConfigError("config: expected a section `mae` or a section `dino`, one of the two")
    method = (masked_autoencoder if config.get("mae") else self_distillation)(config, sources, preprocess)

    def init(key):
        return models.init(key, method.model, jax.ShapeDtypeStruct((1, *shape), jnp.float32))

    # a model that could not be written at the end is refused at the beginning
    config_of(method.encoder, jax.eval_shape(init, jax.random.key(0))["encoder"], method.published)

    def features(params, images):
        encoder = method.encoder.clone(pool="gap") if method.encoder.pool == "none" else method.encoder
        return encoder.apply({"params": params["encoder"]}, images).astype(jnp.float32)

    wanted = tuple(config.get("report", ()))
    for name in wanted:
        choose(dict.fromkeys(evaluation.FEATURE_CLASSIFIERS), name, "config.report")
    if wanted and train.classes is None:
        raise ConfigError(f"config.report: {config.data.source!r} has no classes for features to tell apart")

    def report(params, prefix):
        if not wanted:
            return {}
        sets = [
            part
            for source in (train, test)
            for part in outputs(lambda batch: (features(params, preprocess(batch["image"])), batch["label"]), source)
        ]
        found = evaluation.feature_accuracies(wanted, *sets, num_classes=len(train.classes))
        return {f"test/{prefix}{name}": value for name, value in found.items()}

    def draw(params, folder):
        models.save(folder.parent / "encoder", method.encoder, params["encoder"], architecture=method.published)
        if method.draw is not None:
            method.draw(params, folder)
        fresh = init(jax.random.key(config.seed)) if wanted else None
        return {**report(params, ""), **report(fresh, "untrained_")}

    return Experiment(
        init=init,
        loss_fn=method.loss_fn,
        source=train,
        apply_fn=features,
        evaluations={} if method.measure is None else {"test": Evaluation(test, method.measure)},
        fields=FIELDS,
        model=method.model,
        preprocess=preprocess,
        classes=train.classes,
        draw=draw,
        carry=method.carry,
    )


def make_encoder(config, shape, given):
    """Returns the encoder of `config.model` for images of a shape."""
    size = shape[0] if shape[0] == shape[1] else shape[:2]
    return models.build(config.model, img_size=size, in_channels=shape[2], **given)


def masked_autoencoder(config, sources, preprocess):
    """Returns the method of `config.mae`."""
    test = sources["test"]
    shape = test.spec["image"].shape
    encoder = make_encoder(config, shape, MAE_ENCODER)
    model = bind(MAE, config.mae, "config.mae", encoder=encoder)()
    augment = make_augment(config.augment, None) if config.get("augment") else lambda key, batch: batch

    def loss_fn(params, batch, key):
        augment_key, mask_key, dropout_key = jax.random.split(key, 3)
        images = preprocess(augment(augment_key, batch)["image"])
        images = images.astype(jax.tree.leaves(params)[0].dtype)  # that of config.compute_dtype
        rngs = {"mask": mask_key, "dropout": dropout_key}
        return model.apply({"params": params}, images, train=True, rngs=rngs).loss, {}

    def reconstruct(params, images):
        return model.apply({"params": params}, images, rngs={"mask": jax.random.key(0)})

    def measure(params, batch):
        images = preprocess(batch["image"])
        found = reconstruct(params, images)
        patches = to_patches(images, pair(encoder.patch_size)).reshape(found.patches.shape)
        errors = jax.vmap(functools.partial(masked_error, normalize=model.normalize_targets))
        return {"loss": errors(found.patches, patches, found.hidden)}

    def draw(params, folder):
        raw = test[np.arange(min(PICTURES, len(test)))]["image"]
        black, white = preprocess(np.zeros(shape, np.float32)), preprocess(np.ones(shape, np.float32))
        images = preprocess(raw)
        pictures = complete(images, reconstruct(params, images), encoder.patch_size, normalize=model.normalize_targets)
        pictures = dict(zip(("image", "seen", "reconstructed"), (images, *pictures), strict=True))
        pictures = {name: np.clip((x - black) / (white - black), 0, 1) for name, x in pictures.items()}
        draw_pictures(folder / "reconstructions.png", pictures, columns=5)

    return Method(model, encoder, "ViTMAEModel", loss_fn, measure=measure, draw=draw)


def self_distillation(config, sources, preprocess):
    """Returns the method of `config.dino`, its head, with `config.views` and `config.sharpening`."""
    train = sources["train"]
    if config.get("augment"):
        raise ConfigError("config.augment: the views of `dino` are those of config.views, and nothing else augments")
    if config.get("ema_decay") is None:
        raise ConfigError("config.ema_decay: the teacher of `dino` is the average; expected a decay such as 0.996")
    encoder = make_encoder(config, train.spec["image"].shape, DINO_ENCODER)
    model = bind(DINO, config.dino, "config.dino", encoder=encoder)()
    section = config.get("views", {})
    bind(multi_crop, section, "config.views", key=None, images=None)

    def views(key, raw):
        return [preprocess(view) for view in multi_crop(key, to_unit(raw), **section)]

    _, clock = resolve_cadence(config, len(train))
    given = {"model": model, "views": views, "clock": clock}
    loss_fn, carry = bind(sharpened, config.get("sharpening", {}), "config.sharpening", **given)()
    return Method(model, encoder, "Dinov2Model", loss_fn, carry)


def sharpened(
    model,
    views,
    clock,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    first_teacher_temperature: float | None = None,
    warmup_epochs: float = 0.0,
    freeze_epochs: float = 0.0,
    center_momentum: float = 0.9,
):
    """Returns the loss and what it carries, the centre of the teacher's outputs.

    The teacher's temperature goes in a line from its first to its last in `warmup_epochs`; for `freeze_epochs` the
    prototypes stay as they are (appendix A of the paper).
    """
    first = teacher_temperature if first_teacher_temperature is None else first_teacher_temperature
    for name, value in (("student", student_temperature), ("teacher", teacher_temperature), ("first_teacher", first)):
        if not value > 0:
            raise ConfigError(f"config.sharpening.{name}_temperature: expected a number above 0, got {value}")
    if not 0 <= center_momentum < 1:
        raise ConfigError(f"config.sharpening.center_momentum: expected 0 to below 1, got {center_momentum}")
    warmup, freeze = (
        durations.resolve({f"{name}_epochs": epochs}, name, clock, where="config.sharpening")
        for name, epochs in (("warmup", warmup_epochs), ("freeze", freeze_epochs))
    )

    def outputs_of(params, images, **how):
        """The outputs [b, v, k] at views [b, v, h, w, c]."""
        b, v, *shape = images.shape
        images = images.reshape(b * v, *shape).astype(jax.tree.leaves(params)[0].dtype)  # that of compute_dtype
        return model.apply({"params": params}, images, **how).reshape(b, v, -1)

    def loss_fn(params, batch, key, past):
        view_key, global_key, local_key = jax.random.split(key, 3)
        large, small = views(view_key, batch["image"])
        prototypes = params["prototypes"]
        still = past.step < freeze
        params = params | {"prototypes": jnp.where(still, jax.lax.stop_gradient(prototypes), prototypes)}
        teacher = jax.lax.stop_gradient(outputs_of(past.average, large))
        student = [
            outputs_of(params, x, train=True, rngs={"dropout": key})
            for x, key in ((large, global_key), (small, local_key))
            if x.shape[1]
        ]
        share = jnp.clip(past.step / max(warmup, 1), 0, 1) if warmup else 1.0
        temperatures = {
            "student_temperature": student_temperature,
            "teacher_temperature": first + (teacher_temperature - first) * share,
        }
        center = past.carried["center"]
        loss = losses.self_distillation_loss(jnp.concatenate(student, 1), teacher, center, **temperatures).mean()
        told = losses.teacher_probabilities(teacher, center, temperatures["teacher_temperature"])
        entropy = -jnp.sum(jax.scipy.special.xlogy(told, told), -1).mean()
        return loss, {"teacher_entropy": entropy}, teacher.astype(jnp.float32).mean((0, 1))

    def update(carried, seen):
        return {"center": center_momentum * carried["center"] + (1 - center_momentum) * seen}

    return loss_fn, Carry(lambda params: {"center": jnp.zeros(model.outputs)}, update)
