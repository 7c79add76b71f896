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
import optax
from matplotlib.figure import Figure

from aijax import diffusion, models
from aijax.binding import bind
from aijax.data import load_source, stream
from aijax.data.augment import make_augment
from aijax.diffusion.build import build_process, build_sampler
from aijax.diffusion.metrics import features
from aijax.errors import ConfigError
from aijax.train import Evaluation, Experiment, init_state, make_step

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

    options = bind(sample_options, config.sample, "config.sample", seed=config.seed)()
    judge = bind(judge_options, config.judge, "config.judge")() if config.get("judge") else None
    likelihood = bind(likelihood_options, config.get("likelihood", {}), "config.likelihood")()

    def conclude(params, folder):
        data = {split: all_images(source, goal["levels"]) for split, source in sources.items()}
        make = functools.partial(generate, params, denoise_fn, process, shape, goal["levels"], classes, **options)
        pictures = {"sample": make(1.0)}
        if classes is not None and options["guidance"] != 1:
            pictures["guided"] = make(options["guidance"])
        metrics = measure_images(pictures, data, train, judge, classes, config.seed)
        metrics |= bits(params, denoise_fn, process, sources["test"], goal["levels"], seed=config.seed, **likelihood)
        draw_images(folder / "samples.png", pictures | {"test": data["test"]}, classes or 10)
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
    *, sampler: Mapping, steps: int, seed: int, spacing: str = "karras", count: int = 1000, block: int = 500,
    guidance: float = 1.0,
):  # fmt: skip
    """Returns the options of sampling: `count` images, `block` at a time, once more with `guidance` unless it is 1."""
    sampler = build_sampler(sampler, "config.sample.sampler")
    return {**locals()}


def judge_options(*, model: Mapping, epochs: int, batch_size: int = 128, learning_rate: float = 3e-3):
    """Returns the options of the classifier that judges samples."""
    return locals()


def likelihood_options(*, examples: int = 0, probes: int = 4, block: int = 128):
    """Returns the options of the likelihood of the first `examples` test images."""
    return locals()


def as_levels(images, levels):
    """Returns images as integers from 0 to levels - 1, from float32 in 0..1 or uint8."""
    unit = images / 255 if images.dtype == np.uint8 else images
    return jnp.round(unit * (levels - 1))


def all_images(source, levels):
    """Returns all images of a source as multiples of 1 / (levels - 1), from 0 to 1."""
    return np.asarray(as_levels(source[np.arange(len(source))]["image"], levels)) / (levels - 1)


def generate(
    params, denoise_fn, process, shape, levels, classes, scale, *, sampler, steps, spacing, count, block, guidance, seed
):
    """Returns samples `[count, h, w, c]` of all classes in turn, as `all_images` has them."""

    def guided_fn(params, labels, x, t):
        if scale == 1:
            return denoise_fn(params, labels, x, t)
        none = jnp.full_like(labels, classes)
        both = diffusion.classifier_free_batch(
            lambda x, t, labels: denoise_fn(params, labels, x, t), labels, none, scale
        )
        return both(x, t)

    blocks = []
    for first in range(0, count, block):
        labels = jnp.arange(first, min(first + block, count)) % (classes or 1)
        denoise = jax.tree_util.Partial(guided_fn, params, labels)
        key = jax.random.fold_in(jax.random.key(seed), first)
        options = {"sampler": sampler, "steps": steps, "grid": spacing}
        x = np.asarray(diffusion.sample(key, denoise, process, (len(labels), *shape), **options))
        blocks.append(np.clip(np.floor((x + 1) / 2 * levels), 0, levels - 1) / (levels - 1))
    return np.concatenate(blocks)


def measure_images(pictures, data, train, judge, classes, seed):
    """Returns what the module says of samples, and of test images against the training images for comparison."""
    flat = {name: jnp.asarray(2 * x - 1, jnp.float32).reshape(len(x), -1) for name, x in (data | pictures).items()}
    metrics = {}
    if judge is not None:
        logits_fn, features_fn = train_judge(train, seed=seed, **judge)
        seen = {name: features(features_fn, x) for name, x in (data | pictures).items()}
    for name in ("test", *pictures):
        other = "train" if name == "test" else "test"
        metrics[f"{name}_pixel_frechet_distance"] = diffusion.frechet_distance(flat[name], flat[other])
        metrics[f"{name}_nearest_training_image"] = nearest(flat[name], flat["train"])
        if judge is not None:
            metrics[f"{name}_frechet_distance"] = diffusion.frechet_distance(seen[name], seen[other])
    if judge is not None and classes is not None:
        for name, x in pictures.items():
            read = features(logits_fn, x).argmax(1)
            metrics[f"{name}_class_accuracy"] = jnp.mean(read == jnp.arange(len(x)) % classes)
    return metrics


def train_judge(source, *, model, epochs, batch_size, learning_rate, seed):
    """Returns a trained classifier of images in 0..1 as `images -> logits` and `images -> features`."""
    classifier = models.build(model, "config.judge.model", num_classes=len(source.classes))
    steps = max(1, epochs * len(source) // batch_size)
    optimizer = optax.adamw(optax.cosine_decay_schedule(learning_rate, steps), weight_decay=0.05)

    def loss_fn(params, batch, key):
        logits = classifier.apply({"params": params}, unit(batch["image"]))
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean(), {}

    step = jax.jit(make_step(loss_fn, optimizer))
    key = jax.random.key(seed)
    image = jax.ShapeDtypeStruct((1, *source.spec["image"].shape), jnp.float32)
    state = init_state(models.init(key, classifier, image), optimizer)
    for _, batch in zip(range(steps), stream(source, batch_size, seed=seed).iterate(0), strict=False):
        state, _ = step(state, batch, key)
    featureless = classifier.clone(num_classes=None)
    body = {name: leaf for name, leaf in state.params.items() if name != "head"}
    return (
        lambda x: classifier.apply({"params": state.params}, unit(x)),
        lambda x: featureless.apply({"params": body}, unit(x)),
    )


def unit(images):
    return images / 255 if images.dtype == jnp.uint8 else jnp.asarray(images, jnp.float32)


def nearest(x, others):
    """The mean distance of rows to the nearest of others."""
    squares = jnp.sum(x**2, 1)[:, None] + jnp.sum(others**2, 1) - 2 * x @ others.T
    return jnp.sqrt(jnp.maximum(squares.min(1), 0)).mean()


def bits(params, denoise_fn, process, source, levels, *, seed, examples, probes, block):
    """Returns bits per dimension of test images given their class, and its standard error over images."""
    if examples == 0:
        return {}

    @jax.jit
    def log_prob(key, batch):
        level_key, probe_key = jax.random.split(key)
        x = diffusion.dequantise(level_key, as_levels(batch["image"], levels), levels=levels)
        denoise = functools.partial(denoise_fn, params, batch.get("label"))
        return diffusion.log_likelihood(probe_key, denoise, process, x, num_probes=probes).log_prob

    parts = []
    for first in range(0, min(examples, len(source)), block):
        rows = np.arange(first, min(first + block, examples, len(source)))
        parts.append(np.asarray(log_prob(jax.random.fold_in(jax.random.key(seed), first), source[rows])))
    size = np.prod(source.spec["image"].shape)
    each = diffusion.bits_per_dim(np.concatenate(parts), int(size), levels=levels)
    return {"test_bits_per_dim": each.mean(), "test_bits_per_dim_error": each.std() / np.sqrt(len(each))}


def draw_images(path, pictures, columns):
    figure = Figure(figsize=(0.5 * columns * len(pictures), 4.4), layout="constrained")
    for axes, (name, images) in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures.items(), strict=True):
        rows = min(8, len(images) // columns)
        tiled = tile(images[: rows * columns].reshape(rows, columns, *images.shape[1:]))
        axes.imshow(tiled, cmap="gray", vmin=0, vmax=1)
        axes.set_title(name, fontsize=9)
        axes.set_axis_off()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


def tile(grid):
    """Returns one image of `[rows, columns, h, w, c]`, a dark line above and to the left of each."""
    grid = np.pad(grid, ((0, 0), (0, 0), (1, 0), (1, 0), (0, 0)))
    rows, columns, h, w, c = grid.shape
    return grid.transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, c).squeeze()
