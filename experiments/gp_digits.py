"""Handwritten digits by Gaussian process classification, beside scikit-learn's classifier on the same split.

    softmax              one softmax of ten latents, Laplace's approximation, kernel fitted to its evidence
    one_vs_rest          ten binary classifiers by Laplace, each with its own kernel: the model of scikit-learn, with
                         its rule that the ten probabilities are divided by their sum
    sparse_variational   one softmax of ten latents, q(f) at inducing points that begin at the greedy choice, trained in
                         minibatches by natural gradients, on all training digits
    scikit_learn         `GaussianProcessClassifier` from the same start

All have an RBF kernel. Scores are the error and the negative log predictive density (NLPD) of the test digits. The
figure shows them, how often a class came true of those that were given a probability, and the digits that the softmax
is least sure of.
"""

import time

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

from aijax import gp, kernels
from aijax.data import load_source
from aijax.errors import ConfigError

COLOURS = {
    "softmax": "#4878a8",
    "one_vs_rest": "#6a9f58",
    "sparse_variational": "#e49444",
    "scikit_learn": "#888888",
}


def main(config, folder):
    """Returns error, NLPD and seconds of each method; writes `figures/digits.png`."""
    for name in config.methods:
        if name not in METHODS:
            raise ConfigError(f"config.methods: expected some of {', '.join(METHODS)}, got {name!r}")
    (x, y), (x_test, y_test) = (read(config, split) for split in ("train", "test"))
    metrics, probabilities = {}, {}
    with jax.enable_x64(True):
        for name in config.methods:
            began = time.perf_counter()
            rows = slice(None if name == "sparse_variational" else config.examples)
            probability = np.asarray(METHODS[name](config, x[rows], y[rows], x_test))
            metrics[f"{name}_seconds"] = time.perf_counter() - began
            metrics[f"{name}_error"] = float(np.mean(probability.argmax(1) != y_test))
            metrics[f"{name}_nlpd"] = float(-np.mean(np.log(probability[np.arange(len(y_test)), y_test])))
            probabilities[name] = probability
    draw(folder / "figures" / "digits.png", metrics, probabilities, x_test, y_test)
    return metrics


def read(config, split):
    """Returns images `[n, 64]` of pixels 0 to 1, and labels."""
    source = load_source(config.data, split)
    batch = source[np.arange(len(source))]
    return batch["image"].reshape(len(source), -1).astype(np.float64), np.asarray(batch["label"])


def start(config):
    return gp.GP(kernels.RBF(config.lengthscale, config.variance))


def softmax(config, x, y, x_test):
    fitted = gp.fit(start(config), x, y, solver=gp.Laplace(gp.Categorical(10)), trainable="kernel.*")
    return gp.predict_probability(fitted, x_test)


def one_vs_rest(config, x, y, x_test):
    @jax.jit
    def one(labels):
        fitted = gp.fit(start(config), x, labels, solver=gp.Laplace(gp.Bernoulli()), trainable="kernel.*")
        return gp.predict_probability(fitted, x_test)

    probability = np.stack([one((y == k).astype(float)) for k in range(10)], 1)
    return probability / probability.sum(1, keepdims=True)


def sparse_variational(config, x, y, x_test):
    options = config.sparse_variational
    model, likelihood = start(config), gp.Categorical(10, num_points=options.quadrature_points)
    inducing = gp.greedy_inducing(model.kernel, x, options.inducing_points)
    trained = gp.fit_variational(
        jax.random.key(config.seed),
        gp.prior_svgp(model, inducing, 10),
        likelihood,
        x,
        y,
        num_steps=options.steps,
        batch_size=options.batch_size,
        natural_step_size=optax.cosine_decay_schedule(options.natural_step_size, options.steps, 0.1),
        optimizer=optax.adam(options.learning_rate),
    )
    return gp.predict_probability(trained, x_test, likelihood=gp.Categorical(10))


def scikit_learn(config, x, y, x_test):
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    kernel = ConstantKernel(config.variance) * RBF(config.lengthscale)
    return GaussianProcessClassifier(kernel, multi_class="one_vs_rest").fit(x, y).predict_proba(x_test)


METHODS = {
    "softmax": softmax,
    "one_vs_rest": one_vs_rest,
    "sparse_variational": sparse_variational,
    "scikit_learn": scikit_learn,
}


def draw(path, metrics, probabilities, images, labels):
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    scores, calibration, digits = figure.subfigures(1, 3, width_ratios=(1.1, 1, 1.1))
    names = list(probabilities)
    for axes, score in zip(scores.subplots(2, 1), ("error", "nlpd"), strict=True):
        values = [metrics[f"{name}_{score}"] * (100 if score == "error" else 1) for name in names]
        bars = axes.barh([name.replace("_", " ") for name in names], values, color=[COLOURS[name] for name in names])
        axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=3, fontsize=8)
        axes.set_title("test error, %" if score == "error" else "negative log predictive density, nats", fontsize=9)
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.tick_params(labelsize=8)
    axes = calibration.subplots()
    edges = np.linspace(0, 1, 8)
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for name, probability in probabilities.items():
        came_true = np.arange(10) == labels[:, None]
        groups = np.clip(np.digitize(probability, edges) - 1, 0, 6)
        points = [
            (probability[groups == i].mean(), came_true[groups == i].mean()) for i in range(7) if (groups == i).any()
        ]
        axes.plot(*zip(*points, strict=True), "o-", markersize=3, linewidth=1.2, color=COLOURS[name])
    axes.set_xlabel("probability given to a class", fontsize=8)
    axes.set_ylabel("share that came true", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    first = probabilities[names[0]]
    unsure = np.argsort(first.max(1))[:12]
    digits.suptitle(f"least sure: {names[0].replace('_', ' ')}", fontsize=9)
    for axes, row in zip(digits.subplots(3, 4).flat, unsure, strict=True):
        axes.imshow(images[row].reshape(8, 8), cmap="gray_r")
        best = first[row].argmax()
        axes.set_title(f"{best}: {first[row, best]:.0%}, is {labels[row]}", fontsize=7)
        axes.axis("off")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
