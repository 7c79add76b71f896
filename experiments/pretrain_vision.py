"""Pre-trains a vision transformer without labels, as a masked autoencoder (He et al. 2022, arXiv 2111.06377).

When the run has ended, its folder `encoder` holds the encoder as a published folder, from which `train_classifier`
fine-tunes (`pretrained`) and which other tools read; `figures/reconstructions.png` shows test images, what the encoder
saw of them and what was made of it (where targets are normalised, with the mean and the deviation that a hidden patch
has in the image). `report` names classifiers of frozen features (the mean of the patches), which are measured on the
trained encoder and, as `untrained_...`, on one that was only initialised.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from aijax import evaluation, models
from aijax.binding import bind
from aijax.data import load_source
from aijax.data.augment import make_augment, make_preprocess
from aijax.diffusion.figures import draw_pictures
from aijax.errors import ConfigError, choose
from aijax.models.mae import MAE, complete, masked_error
from aijax.models.patches import pair, to_patches
from aijax.models.pretrained import config_of
from aijax.train import Evaluation, Experiment, outputs

FIELDS = ("model", "mae", "augment", "preprocess", "report")
PUBLISHED = "ViTMAEModel"
ENCODER = {
    "num_classes": None, "pool": "none", "class_token": True, "positions": "learned", "token_positions": "class",
    "freeze_positions": True, "position_resize": "bicubic",
}  # fmt: skip
"""What the published class has: fixed tables of positions, that of the class token too, and an output of all tokens."""
PICTURES = 40


def load(config):
    """Returns the sources that the run reads."""
    return {split: load_source(config.data, split) for split in ("train", "test")}


def build(config, sources):
    """Returns the experiment: the encoder of `config.model`, trained on "train" and measured on "test"."""
    train, test = sources["train"], sources["test"]
    if "image" not in train.spec:
        raise ConfigError(f"config.data.source: {config.data.source!r} has no images")
    shape = train.spec["image"].shape
    size = shape[0] if shape[0] == shape[1] else shape[:2]
    encoder = models.build(config.model, img_size=size, in_channels=shape[2], **ENCODER)
    model = bind(MAE, config.get("mae", {}), "config.mae", encoder=encoder)()
    augment = make_augment(config.augment, None) if config.get("augment") else lambda key, batch: batch
    preprocess_batch = make_preprocess(config.get("preprocess", {}))

    def init(key):
        return models.init(key, model, jax.ShapeDtypeStruct((1, *shape), jnp.float32))

    # a model that could not be written at the end is refused at the beginning
    config_of(encoder, jax.eval_shape(init, jax.random.key(0))["encoder"], PUBLISHED)

    def preprocess(raw):
        return preprocess_batch({"image": jnp.asarray(raw)})["image"]

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

    def features(params, images):
        return encoder.clone(pool="gap").apply({"params": params["encoder"]}, images).astype(jnp.float32)

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
        models.save(folder.parent / "encoder", encoder, params["encoder"], architecture=PUBLISHED)
        raw = test[np.arange(min(PICTURES, len(test)))]["image"]
        black, white = preprocess(np.zeros(shape, np.float32)), preprocess(np.ones(shape, np.float32))
        images = preprocess(raw)
        pictures = complete(images, reconstruct(params, images), encoder.patch_size, normalize=model.normalize_targets)
        pictures = dict(zip(("image", "seen", "reconstructed"), (images, *pictures), strict=True))
        pictures = {name: np.clip((x - black) / (white - black), 0, 1) for name, x in pictures.items()}
        draw_pictures(folder / "reconstructions.png", pictures, columns=5)
        fresh = init(jax.random.key(config.seed)) if wanted else None
        return {**report(params, ""), **report(fresh, "untrained_")}

    return Experiment(
        init=init,
        loss_fn=loss_fn,
        source=train,
        apply_fn=features,
        evaluations={"test": Evaluation(test, measure)},
        fields=FIELDS,
        model=model,
        preprocess=preprocess,
        classes=train.classes,
        draw=draw,
    )
