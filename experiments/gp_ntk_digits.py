"""Digits by Gaussian processes whose kernel is that of a convolutional network.

The 8x8 digits of scikit-learn, one output a class (-0.1, or 0.9 for the class). Kernels: the tangent kernel (NTK) and
the Gaussian process limit (NNGP) of an infinitely wide CNN; the empirical tangent kernel of a finite one at
initialisation; and RBF. Each network's Gram matrix is worked out once; what the marginal likelihood then chooses is its
scale and the variance of the noise (and the lengthscale of RBF). The class is that of the largest predictive mean; its
probability, for the negative log predictive density, is by draws from the predictive distribution of the outputs.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from aijax import gp, kernels, models
from aijax.data import load_source
from aijax.errors import ConfigError
from aijax.ntk import stax
from aijax.ntk.blocks import kernel_blocks
from aijax.ntk.factored import factored_ntk

COLOURS = {"ntk": "#4878a8", "nngp": "#6a9f58", "empirical_ntk": "#e49444", "rbf": "#d1605e"}


def main(config, folder):
    """Returns accuracy, negative log predictive density and evidence of each kernel; writes `figures/digits.png`."""
    for name in config.kernels:
        if name not in COLOURS:
            raise ConfigError(f"config.kernels: expected some of {', '.join(COLOURS)}, got {name!r}")
    images, labels = read_digits()
    count = config.test_images + max(config.sizes)
    if count > len(images):
        raise ConfigError(f"config.sizes, config.test_images: expected at most {len(images)} images, got {count}")
    order = np.random.default_rng(config.seed).permutation(len(images))[:count]
    images, labels = images[order], labels[order]
    test, pool = np.split(np.arange(count), [config.test_images])
    metrics, curves = {}, {name: [] for name in config.kernels}
    for name in config.kernels:
        began = time.perf_counter()
        kernel = make_kernel(name, images, config)
        metrics[f"{name}_kernel_seconds"] = time.perf_counter() - began
        x = np.arange(len(images)) if name != "rbf" else images.reshape(len(images), -1)
        for size in config.sizes:
            scores = measure(kernel, x, labels, pool[:size], test, config)
            curves[name].append(scores)
            metrics |= {f"{name}_{size}_{score}": value for score, value in scores.items()}
    draw(folder / "figures" / "digits.png", config.sizes, curves)
    return metrics


def read_digits():
    """Returns all images `[1797, 8, 8, 1]`, of mean 0 and mean square 1, and their labels."""
    parts = [load_source({"source": "digits"}, split) for split in ("train", "test")]
    batches = [part[np.arange(len(part))] for part in parts]
    images = np.concatenate([batch["image"] for batch in batches]).reshape(-1, 8, 8, 1).astype(np.float32)
    images = (images - images.mean()) / images.std()
    return images, np.concatenate([batch["label"] for batch in batches])


def make_kernel(name, images, config):
    """Returns the kernel of that name: of indices of images where it is a network's, of pixels where it is RBF."""
    if name == "rbf":
        return kernels.RBF(config.rbf_lengthscale)
    if name == "empirical_ntk":
        model = models.CNN(widths=tuple(config.cnn_widths), num_classes=10)
        params = models.init(jax.random.key(config.seed), model, images[:1])
        kernel_fn, arguments = factored_ntk(lambda p, x: model.apply({"params": p}, x), trace_outputs=True), (params,)
    else:
        kernel_fn, arguments = (lambda x1, x2=None: network(config)(x1, x2, name)), ()
    gram = kernel_blocks(kernel_fn, images, kernel_args=arguments, block_size=config.block_size)
    gram = jnp.asarray(gram / np.mean(np.diag(gram)))
    return 1.0 * kernels.from_kernel_fn(lambda gram, i, j: gram[i[:, None], j], gram, batched=True)


def network(config):
    """Returns the `kernel_fn` of an infinitely wide CNN."""
    block = (stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5, b_std=0.1), stax.Relu())
    return stax.serial(*block * config.depth, stax.Flatten(), stax.Dense(1))[2]


def measure(kernel, x, labels, train, test, config):
    """Returns the scores on `test` of the process that is fitted to `train`."""
    targets = jnp.asarray(np.eye(10)[labels] - 0.1)
    model = gp.GP(kernel, noise_variance=config.noise_variance)
    fitted = gp.fit(model, x[train], targets[train], trainable=lambda name: "params" not in name)
    mean, std = gp.predict(fitted, x[test], include_noise=True)
    draws = mean + std[:, None] * jax.random.normal(jax.random.key(config.seed), (config.draws, *mean.shape))
    chosen = jnp.argmax(draws, -1)
    share = (jnp.sum(chosen == labels[test], 0) + 0.5) / (config.draws + 5)
    return {
        "accuracy": float(jnp.mean(jnp.argmax(mean, -1) == labels[test])),
        "nlpd": float(-jnp.mean(jnp.log(share))),
        "evidence": float(fitted.value) / len(train),
    }


def draw(path, sizes, curves):
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, score in zip(figure.subplots(1, 2), ("accuracy", "nlpd"), strict=True):
        for name, scores in curves.items():
            values = [100 * (1 - at[score]) if score == "accuracy" else at[score] for at in scores]
            axes.plot(sizes, values, "o-", label=name.replace("_", " "), color=COLOURS[name], linewidth=1.4)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("training images", fontsize=8)
        axes.set_title("error, %" if score == "accuracy" else "negative log predictive density, nats", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
