"""Trains two encoders that bring images and their captions together, and measures zero-shot classification.

    softmax    CLIP (Radford et al. 2021)        sigmoid    SigLIP (Zhai et al. 2023)

A step draws one of the captions of an image: those that it has (`captioned_images`), or its class's name in each of
`templates`. On a mesh the loss goes round the ring of devices; `feature_parts` encodes a batch part by part, with the
gradient of the whole. A tower may be a published one (`vision.pretrained`) and, by `optimizer.freeze_rules`, stay as it
is (LiT, Zhai et al. 2022).

Measured at each evaluation: with classes `accuracy`, of the nearest of all captions, each in all templates; else
`batch_accuracy`, the share of images to which their own caption is the nearest in a batch. At the end also retrieval:
the first `RETRIEVED` images against all their captions; with classes, one image for each class that the test has.
"""

import jax
import jax.numpy as jnp
import numpy as np

from aijax import evaluation, losses, models
from aijax.data import load_source
from aijax.data.augment import make_augment, make_preprocess
from aijax.data.source import select
from aijax.data.tokenizer import train_words
from aijax.errors import ConfigError
from aijax.parallel import on_many_devices
from aijax.train import Evaluation, Experiment, outputs, start_from

FIELDS = ("vision", "text", "clip", "augment", "preprocess", "templates", "feature_parts", "splits")
RETRIEVED = 5000


def load(config):
    """Returns the sources that the run reads: "train", and those that are measured."""
    return {split: load_source(config.data, split) for split in ("train", *config.splits)}


def build(config, sources):
    """Returns the experiment: the encoders of `config.vision` and `config.text`, trained on "train"."""
    train = sources["train"]
    tokenizer, tokens = read_texts(config, train)
    augment_batch = make_augment(config.augment, None) if config.get("augment") else lambda key, batch: batch
    preprocess_batch = make_preprocess(config.get("preprocess", {}))

    def preprocess(raw):
        return preprocess_batch({"image": jnp.asarray(raw)})["image"]

    image = train.spec["image"]
    example = jax.eval_shape(preprocess, jax.ShapeDtypeStruct((1, *image.shape), image.dtype))
    model, trained = make_model(config, tokenizer)

    def init(key):
        row = jax.ShapeDtypeStruct((1, config.text.context_length), jnp.int32)
        fresh = models.init(key, model, example, row)
        if trained is None:
            return fresh
        tower = start_from(fresh["vision_encoder"], trained, where="config.vision.pretrained")
        return fresh | {"vision_encoder": tower}

    def encode(params, batch, key):
        image_key, text_key = jax.random.split(key)

        def tower(name, x, key):
            return model.apply({"params": params}, x, train=True, rngs={"dropout": key}, method=name)

        images = preprocess(batch["image"]).astype(params["log_scale"].dtype)  # that of config.compute_dtype
        return {
            "image": tower("encode_image", images, image_key),
            "text": tower("encode_text", batch["tokens"], text_key),
        }

    encode_batch = losses.encode_in_parts(encode, config.get("feature_parts", 1))
    ring = {
        "softmax": (losses.softmax_contrastive_loss, losses.ring_softmax_contrastive_loss),
        "sigmoid": (losses.sigmoid_contrastive_loss, losses.ring_sigmoid_contrastive_loss),
    }[model.loss]

    def loss_fn(params, batch, key):
        augment_key, template_key, dropout_key = jax.random.split(key, 3)
        batch = augment_batch(augment_key, batch)
        captions = batch["tokens"] if tokens is None else tokens[batch["label"]]
        chosen = jax.random.randint(template_key, captions.shape[:1], 0, captions.shape[1])
        pairs = {"image": batch["image"], "tokens": captions[jnp.arange(len(captions)), chosen]}
        features = encode_batch(params, pairs, dropout_key)
        scalars = [jnp.exp(params["log_scale"])] + ([params["logit_bias"]] if model.loss == "sigmoid" else [])
        loss = ring[on_many_devices()](features["image"], features["text"], *scalars)
        return loss, {"scale": scalars[0]}

    def encode_texts(params, captions):
        """The features [n, k, d] of captions [n, k, t]."""
        rows = captions.reshape(-1, captions.shape[-1])
        features = model.apply({"params": params}, rows, method="encode_text")
        return features.reshape(*captions.shape[:2], -1)

    def apply_fn(params, images):
        features = model.apply({"params": params}, images, method="encode_image")
        if tokens is None:
            return features
        weights = evaluation.class_weights(encode_texts(params, tokens))
        return jnp.exp(params["log_scale"]) * evaluation.zero_shot_scores(features, weights)

    def measure(params, batch):
        found = apply_fn(params, preprocess(batch["image"]))
        if tokens is not None:
            return {"accuracy": found.argmax(-1) == batch["label"]}
        nearest = (found @ encode_texts(params, batch["tokens"][:, :1])[:, 0].T).argmax(-1)
        return {"batch_accuracy": nearest == jnp.arange(len(found))}

    def retrieval(params, folder):
        source = sources[config.splits[0]]
        if tokens is None:
            first = np.arange(min(len(source), RETRIEVED))
        else:
            first = np.unique(source.labels, return_index=True)[1]

        def features(batch):
            captions = batch["tokens"] if tokens is None else tokens[batch["label"]]
            images = model.apply({"params": params}, preprocess(batch["image"]), method="encode_image")
            return images, encode_texts(params, captions)

        image, text = outputs(features, select(source, first))
        recall = evaluation.retrieval_recall(
            image, text.reshape(-1, text.shape[-1]), jnp.repeat(jnp.arange(len(image)), text.shape[1])
        )
        return {f"{config.splits[0]}/{name}": float(value) for name, value in recall.items()}

    return Experiment(
        init=init,
        loss_fn=loss_fn,
        source=train,
        apply_fn=apply_fn,
        evaluations={split: Evaluation(sources[split], measure) for split in config.splits},
        fields=FIELDS,
        model=model,
        preprocess=preprocess,
        tokenizer=tokenizer,
        classes=train.classes,
        draw=retrieval,
    )


def read_texts(config, train):
    """Returns the tokenizer, and the captions of each class `[classes, templates, t]`, or None where images have
    captions of their own."""
    length = config.text.context_length
    if "image" not in train.spec or (train.classes is None and "tokens" not in train.spec):
        raise ConfigError(f"config.data.source: {config.data.source!r} has no images with captions or classes")
    if "tokens" not in train.spec:
        texts = evaluation.fill_templates(train.classes, config.templates)
        flat = [text for row in texts for text in row]
        tokenizer = train_words(flat)
        return tokenizer, jnp.asarray(tokenizer.rows(flat, length)).reshape(*np.shape(texts), -1)
    if config.get("templates"):
        raise ConfigError(f"config.templates: the images of {config.data.source!r} have captions of their own")
    if train.spec["tokens"].shape[-1] != length:
        found = train.spec["tokens"].shape[-1]
        raise ConfigError(f"config.data.length: expected that of config.text.context_length, {length}, got {found}")
    return train.tokenizer, None


def make_model(config, tokenizer):
    """Returns the dual encoder, and the parameters of a published vision tower or None."""
    if config.vision.get("pretrained"):
        module, trained = models.load(config.vision.pretrained)
        vision, trained = module.clone(num_classes=None), {name: x for name, x in trained.items() if name != "head"}
    else:
        vision, trained = models.build(config.vision, "config.vision", num_classes=None), None
    words = {"vocab_size": tokenizer.vocabulary_size, "end_token": tokenizer.end}
    text = models.build(config.text, "config.text", **words)
    given = {"vision_encoder": vision, "text_encoder": text}
    return models.build({"name": "clip", **config.clip}, "config.clip", **given), trained
