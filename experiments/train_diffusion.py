"""Trains a diffusion model of images by EDM's objective, with classes and classifier-free guidance where there are any.

When the run has ended, samples are drawn and measured: by a classifier trained on the same data (does it read the class
that was asked for; Frechet distance of its features), in pixels (Frechet distance; distance to the nearest training
image, against that of test images, which tells memorisation), and by the likelihood of test images in bits per
dimension, of uniformly dequantised data.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from aijax import diffusion, models
from aijax.binding import bind
from aijax.data import load_source
from aijax.data.augment import make_augment
from aijax.diffusion.build import build_process, build_sampler
from aijax.diffusion.figures import draw_pictures
from aijax.diffusion.images import as_levels, on_levels
from aijax.errors import ConfigError
from aijax.train import Evaluation, Experiment, fit_classifier

FIELDS = ("model", "augment", "process", "objective", "sample", "judge", "likelihood")


def load(config):
    """Returns the sources that the run reads."""
    return {split: load_source(config.data, split) for split in ("train", "test")}


def build(config, sources):
    """Returns the experiment: the network of `config.model`, trained on "train" and measured on "test"."""
    train = sources["train"]
    if "image" not in train.spec:
        raise ConfigError(f"config.data.source: {config.data.source!r} has no images")
    goal = bind(objective, config.objective, "config.objective")()
    if goal["conditional"] and train.classes is None:
        raise ConfigError(f"config.objective.conditional: {config.data.source!r} has no classes to be told")
    classes = len(train.classes) if goal["conditional"] else None
    process = build_process(config.process)
    shape = train.spec["image"].shape
    given = {"out_channels": shape[-1]} if config.model.get("name") == "unet" else {}
    model = models.build(config.model, num_classes=None if classes is None else classes + 1, **given)
    augment = make_augment(config.augment, None) if config.get("augment") else lambda key, batch: batch

    def denoise_fn(params, labels, x, t, **options):
        def network(y, c_noise):
            return model.apply({"params": params}, y, c_noise, *(() if classes is None else (labels,)), **options)

        return diffusion.edm_denoiser(network, process, sigma_data=goal["sigma_data"])(x, t)

    def losses(params, batch, labels, key, **options):
        level_key, loss_key = jax.random.split(key)
        x0 = diffusion.dequantise(level_key, as_levels(batch["image"], goal["levels"]), levels=goal["levels"])
        denoise = functools.partial(denoise_fn, params, labels, **options)
        noise = {name: goal[name] for name in ("mean", "std", "sigma_data")}
        return diffusion.edm_loss(loss_key, denoise, process, x0, **noise)

    def loss_fn(params, batch, key):
        augment_key, drop_key, loss_key, dropout_key = jax.random.split(key, 4)
        batch, labels = augment(augment_key, batch), None
        if classes is not None:
            labels = diffusion.drop_condition(drop_key, batch["label"], classes, goal["drop_rate"])
        return losses(params, batch, labels, loss_key, train=True, rngs={"dropout": dropout_key}).mean(), {}

    def measure(params, batch):
        return {"loss": losses(params, batch, batch.get("label"), jax.random.key(0))}

    options = bind(sample_options, config.sample, "config.sample")()
    judge = bind_judge(config, train) if config.get("judge") else lambda: None
    likelihood = bind(likelihood_options, config.get("likelihood", {}), "config.likelihood")()

    def conclude(params, folder):
        denoise, key, levels = jax.tree_util.Partial(denoise_fn, params), jax.random.key(config.seed), goal["levels"]
        make = functools.partial(diffusion.sample_images, key, denoise, process, shape, levels=levels, classes=classes)
        pictures = {"sample": make(**options | {"guidance": 1.0})}
        if classes is not None and options["guidance"] != 1:
            pictures["guided"] = make(**options)
        data = {split: on_levels(all_of(source)["image"], levels) for split, source in sources.items()}
        metrics = diffusion.compare_images(pictures, data, classes=classes, classifier=judge())
        if likelihood["examples"]:
            batch = sources["test"][np.arange(min(likelihood["examples"], len(sources["test"])))]
            metrics |= bits(key, denoise, process, batch, levels, likelihood)
        draw_pictures(folder / "samples.png", pictures | {"test": data["test"]}, columns=classes or 10)
        return {name: float(value) for name, value in metrics.items()}

    inputs = [jax.ShapeDtypeStruct((1, *shape), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)]
    inputs += [] if classes is None else [jax.ShapeDtypeStruct((1,), jnp.int32)]
    return Experiment(
        init=lambda key: models.init(key, model, *inputs),
        loss_fn=loss_fn,
        source=train,
        apply_fn=denoise_fn,
        evaluations={"test": Evaluation(sources["test"], measure)},
        fields=FIELDS,
        model=model,
        preprocess=lambda images: 2 * as_levels(images, goal["levels"]) / (goal["levels"] - 1) - 1,
        classes=train.classes,
        draw=conclude,
    )


def objective(
    *,
    conditional: bool = True,
    drop_rate: float = 0.1,
    levels: int = 256,
    mean: float = -1.2,
    std: float = 1.2,
    sigma_data: float = 0.5,
):
    """Returns the options of the loss: `levels` grey values, noise ln rho from N(mean, std^2)."""
    if levels < 2:
        raise ConfigError(f"config.objective.levels: expected 2 grey values or more, got {levels}")
    return locals()


def sample_options(
    *, sampler: Mapping, steps: int, spacing: str = "karras", count: int = 1000, block: int = 500, guidance: float = 1.0
):
    """Returns the options of sampling: `count` images, `block` at a time, once more with `guidance` unless it is 1."""
    sampler = build_sampler(sampler, "config.sample.sampler")
    options = {"sampler": sampler, "steps": steps, "grid": spacing}
    return options | {"count": count, "block": block, "guidance": guidance}


def likelihood_options(*, examples: int = 0, probes: int = 4, block: int = 128):
    """Returns the options of the likelihood of the first `examples` test images."""
    return locals()


def bind_judge(config, source):
    """Returns what trains the classifier of `config.judge`, which judges samples."""
    return bind(fit_classifier, config.judge, "config.judge", source=source, seed=config.seed, where="config.judge")


def all_of(source):
    """Returns all records of a source."""
    return source[np.arange(len(source))]


def bits(key, denoise, process, batch, levels, options):
    """Returns bits per dimension of images given their class, and its standard error over images."""
    given = {"levels": levels, "num_probes": options["probes"], "block": options["block"]}
    each = diffusion.bits_of_images(key, denoise, process, batch["image"], batch.get("label"), **given)
    return {"test_bits_per_dim": each.mean(), "test_bits_per_dim_error": each.std() / np.sqrt(len(each))}
