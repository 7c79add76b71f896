"""Trains a classifier of images or of tables by cross-entropy and measures its accuracy on held-out examples.

With `pretrained` it begins from a published folder, whose head alone is new (of an encoder that does not pool, such as
a masked autoencoder's, the mean of the patches is classified); with `distillation` it learns from the answers of an
earlier run too, on the same augmented images. `report` adds at the end what the features are worth.
"""

import jax
import jax.numpy as jnp

from aijax import evaluation, losses, models, open_run
from aijax.binding import bind
from aijax.data import load_source
from aijax.data.augment import make_augment, make_preprocess, to_unit
from aijax.errors import ConfigError, choose
from aijax.train import Evaluation, Experiment, outputs, start_from

FIELDS = (
    "model", "augment", "preprocess", "label_smoothing", "loss", "pretrained", "distillation", "corruptions", "report",
)  # fmt: skip
LOSSES = {"softmax": losses.softmax_cross_entropy, "sigmoid": losses.sigmoid_cross_entropy}
REPORTS = ("calibration", *evaluation.FEATURE_CLASSIFIERS)


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
    augment_batch, preprocess_batch = make_batch_functions(config, inputs, classes)

    def preprocess(raw):
        return preprocess_batch({inputs: jnp.asarray(raw)})[inputs]

    example = jax.eval_shape(preprocess, jax.ShapeDtypeStruct((1, *train.spec[inputs].shape), train.spec[inputs].dtype))
    model, init = make_model(config, classes, example)
    loss_of = make_loss(config)
    distil = make_distillation(config, classes)

    def apply_fn(params, x):
        return model.apply({"params": params}, x)

    def loss_fn(params, batch, key):
        augment_key, dropout_key = jax.random.split(key)
        batch = augment_batch(augment_key, batch)
        x = preprocess(batch[inputs]).astype(jax.tree.leaves(params)[0].dtype)  # that of config.compute_dtype
        logits = model.apply({"params": params}, x, train=True, rngs={"dropout": dropout_key})
        logits = logits.astype(jnp.float32)
        targets = losses.as_probabilities(batch[labels], logits)
        loss = distil(loss_of(logits, targets), logits, batch[inputs]).mean()
        return loss, {"accuracy": jnp.mean(logits.argmax(-1) == targets.argmax(-1))}

    def measure(params, batch):
        logits = apply_fn(params, preprocess(batch[inputs])).astype(jnp.float32)
        return {
            "loss": losses.softmax_cross_entropy(logits, batch[labels]),
            "accuracy": logits.argmax(-1) == batch[labels],
        }

    return Experiment(
        init=init,
        loss_fn=loss_fn,
        source=train,
        apply_fn=apply_fn,
        evaluations={"test": Evaluation(sources["test"], measure)}
        | corrupted(config, sources["test"], measure, inputs),
        fields=FIELDS,
        model=model,
        preprocess=preprocess,
        classes=train.classes,
        draw=make_report(config, model, sources, lambda batch: (preprocess(batch[inputs]), batch[labels])),
    )


def make_batch_functions(config, inputs, classes):
    """Returns `augment(key, batch)` and `preprocess(batch)`."""
    if config.get("augment") and inputs != "image":
        raise ConfigError(f"config.augment: augments images, and {config.data.source!r} has none")
    augment = make_augment(config.augment, classes) if config.get("augment") else lambda key, batch: batch
    return augment, make_preprocess(config.get("preprocess", {}))


def make_model(config, classes, example):
    """Returns the module and `init(key)`; of a published folder, with its parameters and a new head."""
    if not config.get("pretrained"):
        if not config.get("model"):
            raise ConfigError("config.model: missing, and config.pretrained names no folder; give one of them")
        model = models.build(config.model, num_classes=classes)
        return model, lambda key: models.init(key, model, example)
    if config.get("model"):
        raise ConfigError("config.model: the model is that of config.pretrained; give one of them")
    module, trained = models.load(config.pretrained)
    if "num_classes" not in module.__dataclass_fields__:
        raise ConfigError(f"config.pretrained: {config.pretrained} is a {type(module).__name__}, which has no classes")
    pool = {"pool": "gap"} if getattr(module, "pool", None) == "none" else {}
    model = module.clone(num_classes=classes, **pool)

    def init(key):
        fresh = models.init(key, model, example)
        return start_from(fresh, trained, fresh_names=("head", "head_distillation"), where="config.pretrained")

    return model, init


def make_loss(config):
    """Returns the loss `(logits, targets) -> [b]` that the config names."""
    smoothing, name = config.get("label_smoothing", 0.0), config.get("loss", "softmax")
    if not 0 <= smoothing < 1:
        raise ConfigError(f"config.label_smoothing: expected 0 or more and below 1, got {smoothing}")
    loss = choose(LOSSES, name, "config.loss")
    return lambda logits, targets: loss(logits, losses.smooth(targets, smoothing))


def make_distillation(config, classes):
    """Returns what adds the distance to a teacher's answers to the loss of each example."""
    if not config.get("distillation"):
        return lambda loss, logits, raw: loss
    return bind(distillation, config.distillation, "config.distillation", classes=classes)()


def distillation(run: str, classes: int, temperature: float = 1.0, weight: float = 0.5):
    """Returns `(1 - weight) loss + weight` times the distillation loss; the teacher is the run in the folder `run`."""
    losses.check_temperature(temperature)
    if not 0 <= weight <= 1:
        raise ConfigError(f"config.distillation.weight: expected 0 to 1, got {weight}")
    teacher = open_run(run)
    if len(teacher.classes or ()) != classes:
        raise ConfigError(f"config.distillation.run: {run} tells {len(teacher.classes or ())} classes, not {classes}")

    def mixed(loss, logits, raw):
        answers = teacher.apply_fn(teacher.params, teacher.preprocess(raw))
        return (1 - weight) * loss + weight * losses.distillation_loss(logits, answers, temperature=temperature)

    return mixed


def corrupted(config, source, measure, inputs):
    """Returns an evaluation for each (corruption, severity) of the config."""

    def one(name, severity):
        def measure_corrupted(params, batch):
            images = evaluation.corrupt(jax.random.key(severity), to_unit(batch[inputs]), name, severity)
            return measure(params, {**batch, inputs: images})

        return Evaluation(source, measure_corrupted)

    pairs = config.get("corruptions", ())
    if pairs and inputs != "image":
        raise ConfigError(f"config.corruptions: corrupt images, and {config.data.source!r} has none")
    for name, severity in pairs:
        evaluation.check_corruption(name, severity, "config.corruptions")
    return {f"{name}_{severity}": one(name, severity) for name, severity in pairs}


def make_report(config, model, sources, read):
    """Returns what measures, when the run has ended, what `config.report` lists; None for nothing."""
    wanted = tuple(config.get("report", ()))
    for name in wanted:
        choose(dict.fromkeys(REPORTS), name, "config.report")
    if not wanted:
        return None
    classes = len(sources["train"].classes)
    probes = [name for name in wanted if name != "calibration"]
    if probes and "num_classes" not in model.__dataclass_fields__:
        raise ConfigError(f"config.report: {type(model).__name__} has no features apart from its classes")

    def answers(module, params, split):
        def apply(batch):
            inputs, labels = read(batch)
            return module.apply({"params": params}, inputs), labels

        return outputs(apply, sources[split])

    def report(params, folder):
        found = {}
        if "calibration" in wanted:
            logits, labels = answers(model, params, "test")
            found["calibration_error"] = float(evaluation.expected_calibration_error(jax.nn.softmax(logits), labels))
        if probes:
            encoder = model.clone(num_classes=None)
            sets = (*answers(encoder, params, "train"), *answers(encoder, params, "test"))
            found |= evaluation.feature_accuracies(probes, *sets, num_classes=classes)
        return {f"test/{name}": value for name, value in found.items()}

    return report
