"""Trains two encoders that bring images and their captions together, and measures zero-shot classification.

    softmax    CLIP (Radford et al. 2021)        sigmoid    SigLIP (Zhai et al. 2023)

The captions of an image are its class's name in each of `templates`, of which a step draws one. On a mesh the loss goes
round the ring of devices; `feature_parts` encodes a batch part by part, with the gradient of the whole. A tower may be
a published one (`vision.pretrained`) and, by `optimizer.freeze_rules`, stay as it is (LiT, Zhai et al. 2022).

Measured at each evaluation: `accuracy`, of the nearest of all captions, each in all templates. At the end also
retrieval, one image for each class that the test has against all captions of these classes.
"""

import jax
import jax.numpy as jnp
import numpy as np

from aijax import evaluation, losses, models
from aijax.data import load_source
from aijax.data.augment import make_augment, make_preprocess
from aijax.data.tokenizer import train_words
from aijax.errors import ConfigError
from aijax.parallel import on_many_devices
from aijax.train import Evaluation, Experiment, start_from

FIELDS = ("vision", "text", "clip", "augment", "preprocess", "templates", "feature_parts", "splits")


def load(config):
    """Returns the sources that the run reads: "train", and those that are measured."""
    return {split: load_source(config.data, split) for split in ("train", *config.splits)}


def build(config, sources):
    """Returns the experiment: the encoders of `config.vision` and `config.text`, trained on "train"."""
    train = sources["train"]
    if train.classes is None or "image" not in train.spec:
        raise ConfigError(f"config.data.source: {config.data.source!r} has no images with classes to make captions of")
    texts = evaluation.fill_templates(train.classes, config.templates)
    flat = [text for row in texts for text in row]
    tokenizer = train_words(flat)
    tokens = jnp.asarray(tokenizer.rows(flat, config.text.context_length)).reshape(*np.shape(texts), -1)
    augment_batch = make_augment(config.augment, None) if config.get("augment") else lambda key, batch: batch
    preprocess_batch = make_preprocess(config.get("preprocess", {}))

    def preprocess(raw):
        return preprocess_batch({"image": jnp.asarray(raw)})["image"]

    image = train.spec["image"]
    example = jax.eval_shape(preprocess, jax.ShapeDtypeStruct((1, *image.shape), image.dtype))
    model, trained = make_model(config, tokenizer)

    def init(key):
        fresh = models.init(key, model, example, tokens[:1, 0])
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
        chosen = jax.random.randint(template_key, batch["label"].shape, 0, tokens.shape[1])
        pairs = {"image": batch["image"], "tokens": tokens[batch["label"], chosen]}
        features = encode_batch(params, pairs, dropout_key)
        scalars = [jnp.exp(params["log_scale"])] + ([params["logit_bias"]] if model.loss == "sigmoid" else [])
        loss = ring[on_many_devices()](features["image"], features["text"], *scalars)
        return loss, {"scale": scalars[0]}

    def class_weights(params):
        rows = tokens.reshape(-1, tokens.shape[-1])
        features = model.apply({"params": params}, rows, method="encode_text")
        return evaluation.class_weights(features.reshape(*tokens.shape[:2], -1))

    def apply_fn(params, images):
        features = model.apply({"params": params}, images, method="encode_image")
        return jnp.exp(params["log_scale"]) * evaluation.zero_shot_scores(features, class_weights(params))

    def measure(params, batch):
        logits = apply_fn(params, preprocess(batch["image"]))
        return {"accuracy": logits.argmax(-1) == batch["label"]}

    def retrieval(params, folder):
        source = sources[config.splits[0]]
        classes, first = np.unique(source.labels, return_index=True)
        images = preprocess(source[first]["image"])
        image = model.apply({"params": params}, images, method="encode_image")
        text = model.apply({"params": params}, tokens[classes].reshape(-1, tokens.shape[-1]), method="encode_text")
        recall = evaluation.retrieval_recall(image, text, jnp.repeat(jnp.arange(len(classes)), tokens.shape[1]))
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
