"""Classifies CIFAR-10 with few training images by infinitely wide convolutional networks: CNTK and NNGP kernels.

Each network's kernel is worked out once for a pool of training images and for the test images, block by block; from the
pool, balanced subsets of each size are drawn at random, and the classes are regressed on the kernel, which is what the
infinitely wide network gives when it is trained to the end on the mean squared error. After Arora et al. 2020
(arXiv:1910.01663, section 5), with the networks of Arora et al. 2019 (`aijax.ntk.cntk`).
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from aijax.binding import bind
from aijax.data import load_source
from aijax.errors import ConfigError
from aijax.ntk.cntk import compute_cntk
from aijax.ntk.predict import gradient_descent_mse

COLOURS = ("#4878a8", "#d1605e", "#6a9f58", "#e49444")


def main(config, folder):
    """Returns the accuracy of each kernel for each size; writes `figures/accuracy.png`."""
    train, test = (load_source(config.data, split) for split in ("train", "test"))
    classes = len(train.classes)
    sizes = list(config.sizes)
    for size in (*sizes, config.test_images):
        if size < 1 or size % classes:
            raise ConfigError(f"config.sizes, config.test_images: expected multiples of {classes} classes, got {size}")
    rng = np.random.default_rng(config.seed)
    x_train, labels = pick(train, balanced(train.labels, max(sizes), classes, rng), config)
    x_test, test_labels = pick(test, balanced(test.labels, config.test_images, classes, rng), config)
    subsets = {
        size: [balanced(labels, size, classes, rng) for _ in range(config.repeats if size < max(sizes) else 1)]
        for size in sizes
    }

    curves, metrics = {}, {}
    for name, network in config.networks.items():
        kernel = bind(make_kernel, network, f"config.networks.{name}")()
        began = time.perf_counter()
        trained, tested = kernel(x_train), kernel(x_test, x_train)
        metrics[f"{name}_seconds"] = time.perf_counter() - began
        for get in ("ntk", "nngp"):
            k_train, k_test = (jnp.asarray(getattr(kernels, get)) for kernels in (trained, tested))
            label = f"{name}_{get}"
            curves[label] = [
                [accuracy(k_train, k_test, labels, test_labels, rows, classes, config.ridge) for rows in subsets[size]]
                for size in sizes
            ]
            for size, values in zip(sizes, curves[label], strict=True):
                metrics[f"{label}_{size}"] = float(np.mean(values))
    draw(folder, config, sizes, curves)
    return metrics


def balanced(labels, count, classes, rng):
    """Returns the indices of as many examples of each class, at random, `count` in all."""
    chosen = [rng.choice(np.flatnonzero(labels == c), count // classes, replace=False) for c in range(classes)]
    return np.sort(np.concatenate(chosen))


def pick(source, indices, config):
    """Returns images, scaled to mean 0 and deviation 1 of each channel, and labels."""
    batch = source[indices]
    images = batch["image"].astype(np.float32) / 255
    return (images - np.float32(config.preprocess.mean)) / np.float32(config.preprocess.std), np.asarray(batch["label"])


def make_kernel(image_size: int = 32, pooling: str = "none", depth: int = 5):
    """Returns `kernel(x1, x2=None)` of a network on images that are brought to a smaller size by means over squares."""

    def shrink(x):
        factor, rest = divmod(x.shape[1], image_size)
        if rest:
            raise ConfigError(f"config.networks.image_size: expected a divisor of {x.shape[1]}, got {image_size}")
        return x.reshape(x.shape[0], image_size, factor, image_size, factor, x.shape[3]).mean((2, 4))

    def kernel(x1, x2=None):
        x2 = None if x2 is None else shrink(x2)
        return compute_cntk(shrink(x1), x2, depth=depth, pooling=pooling, get=("nngp", "ntk"), block_size="auto")

    return kernel


def accuracy(k_train, k_test, labels, test_labels, rows, classes, ridge):
    """Returns the share of test images that kernel regression on some of the training images gets right."""
    targets = jax.nn.one_hot(labels[rows], classes) - 1 / classes
    predict = gradient_descent_mse(k_train[np.ix_(rows, rows)], targets, diag_reg=ridge)
    _, outputs = predict(None, 0.0, 0.0, k_test[:, rows])
    return float((np.asarray(outputs).argmax(-1) == test_labels).mean())


def draw(folder, config, sizes, curves):
    """Writes accuracy against the number of training images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for index, (label, values) in enumerate(curves.items()):
        name, _, get = label.rpartition("_")
        means, spread = [100 * np.mean(v) for v in values], [100 * np.std(v) for v in values]
        style = {"color": COLOURS[index // 2 % len(COLOURS)], "linestyle": "-" if get == "ntk" else ":"}
        axes.errorbar(
            sizes, means, spread, label=f"{name}: {get.upper()}", marker="o", markersize=4, capsize=2, **style
        )
    published = config.published
    known = [point for point in zip(published.sizes, published.accuracies, strict=True) if point[0] in sizes]
    if known:
        axes.plot(*zip(*known, strict=True), "--s", markersize=4, color="0.45", linewidth=1, label=published.label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.axhline(10, color="0.8", linewidth=1, zorder=0)
    axes.set_xlabel("training images")
    axes.set_ylabel("accuracy on test images (%)")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.15 * (high - low))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "figures" / "accuracy.png", dpi=140)
