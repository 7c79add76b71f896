"""Trains a classifier of images or of tables by cross-entropy and measures its accuracy on held-out examples."""

import jax
import jax.numpy as jnp
import optax

from aijax import models
from aijax.data import load_source
from aijax.data.augment import make_augment, make_preprocess
from aijax.errors import ConfigError
from aijax.train import Evaluation, Experiment

FIELDS = ("model", "augment", "preprocess", "label_smoothing")


def load(config):
    """Returns the sources that the run reads."""
    return {split: load_source(config.data, split) for split in ("train", "test")}


def build(config, sources):
    """Returns the experiment: the model of `config.model`, trained on "train" and measured on "test"."""
    train = sources["train"]
    if train.classes is None:
        raise ConfigError(f"config.data.source: {config.data.source!r} has no classes for a classifier to tell apart")
    inputs, labels = ("image", "label") if "image" in train.spec else ("x", "y")
    classes = len(train.classes)
    smoothing = config.get("label_smoothing", 0.0)
    if not 0 <= smoothing < 1:
        raise ConfigError(f"config.label_smoothing: expected 0 or more and below 1, got {smoothing}")
    model = models.build(config.model, num_classes=classes)
    if config.get("augment") and inputs != "image":
        raise ConfigError(f"config.augment: augments images, and {config.data.source!r} has none")
    augment = make_augment(config.augment, classes) if config.get("augment") else lambda key, batch: batch
    preprocess_batch = make_preprocess(config.get("preprocess", {}))

    def preprocess(raw):
        return preprocess_batch({inputs: jnp.asarray(raw)})[inputs]

    example = jax.eval_shape(preprocess, jax.ShapeDtypeStruct((1, *train.spec[inputs].shape), train.spec[inputs].dtype))

    def apply_fn(params, x):
        return model.apply({"params": params}, x)

    def loss_fn(params, batch, key):
        augment_key, dropout_key = jax.random.split(key)
        batch = augment(augment_key, batch)
        logits = model.apply({"params": params}, preprocess(batch[inputs]), train=True, rngs={"dropout": dropout_key})
        targets = optax.smooth_labels(as_probabilities(batch[labels], classes), smoothing)
        loss = optax.softmax_cross_entropy(logits.astype(jnp.float32), targets).mean()
        return loss, {"accuracy": jnp.mean(logits.argmax(-1) == targets.argmax(-1))}

    def measure(params, batch):
        logits = apply_fn(params, preprocess(batch[inputs])).astype(jnp.float32)
        return {
            "loss": optax.softmax_cross_entropy_with_integer_labels(logits, batch[labels]),
            "accuracy": logits.argmax(-1) == batch[labels],
        }

    return Experiment(
        init=lambda key: models.init(key, model, example),
        loss_fn=loss_fn,
        source=train,
        apply_fn=apply_fn,
        evaluations={"test": Evaluation(sources["test"], measure)},
        fields=FIELDS,
        model=model,
        preprocess=preprocess,
        classes=train.classes,
    )


def as_probabilities(labels, classes):
    """Returns labels as probabilities [b, classes]; what mixing has made probabilities already is left as it is."""
    return labels if labels.ndim == 2 else jax.nn.one_hot(labels, classes)
