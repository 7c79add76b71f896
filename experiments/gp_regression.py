"""Gaussian process regression of a data set, beside scikit-learn's on the same split with the same model.

A kernel with a lengthscale for each input, a variance and a noise variance, all fitted to the log marginal likelihood
from `restarts` starts. Inputs and targets are standardised by the training rows. Scores are those of the test rows:
root mean square error and negative log predictive density, both of the standardised target, and the share of targets
within two standard deviations.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from aijax import gp, kernels
from aijax.data import load_source
from aijax.errors import ConfigError, choose

BLUE, RED, GREY = "#4878a8", "#d1605e", "#888888"
ROUGHNESS = {"RBF": None, "Matern12": 0.5, "Matern32": 1.5, "Matern52": 2.5}
"""Name of a kernel: nu of scikit-learn's Matern, None for its RBF."""


def main(config, folder):
    """Returns the scores of both, their evidence and CPU time; writes `figures/regression.png`."""
    choose(ROUGHNESS, config.kernel, "config.kernel")
    x, y, x_test, y_test = read_data(config.data)
    ours, fitted, own = fit_ours(config, x, y, x_test, y_test)
    metrics = {f"test/{name}": value for name, value in ours.items()}
    if config.compare:
        theirs = fit_scikit_learn(config, x, y, x_test, y_test)
        metrics |= {f"scikit_learn/{name}": value for name, value in theirs.items()}
    draw(folder / "figures" / "regression.png", fitted, own, y_test)
    return metrics


def read_data(section):
    """Returns x, y of the training and of the test rows, standardised by the training rows, in float64."""
    parts = []
    for split in ("train", "test"):
        source = load_source(section, split)
        rows = source[np.arange(len(source))]
        if "x" not in rows or "y" not in rows or source.classes is not None:
            raise ConfigError(f"config.data.source: expected a table with targets, got {section.source!r}")
        parts.append((rows["x"].astype(np.float64), rows["y"].astype(np.float64)))
    (x, y), (x_test, y_test) = parts
    centre, scale = x.mean(0), x.std(0)
    return (x - centre) / scale, (y - y.mean()) / y.std(), (x_test - centre) / scale, (y_test - y.mean()) / y.std()


def fit_ours(config, x, y, x_test, y_test):
    """Returns the scores, the fit, and the predictive (mean, standard deviation) of the test targets."""
    with jax.enable_x64(True):
        kernel = getattr(kernels, config.kernel)(jnp.ones(x.shape[1]))
        model = gp.GP(kernel, noise_variance=0.5)
        began = time.process_time()
        fitted = gp.fit(
            model, jnp.asarray(x), jnp.asarray(y), restarts=config.restarts, key=jax.random.key(config.seed)
        )
        predicted = [np.asarray(part) for part in gp.predict(fitted, jnp.asarray(x_test), include_noise=True)]
        seconds = time.process_time() - began
    scores = score(*predicted, y_test)
    return scores | {"log_evidence": float(fitted.value), "cpu_seconds": seconds}, fitted, predicted


def fit_scikit_learn(config, x, y, x_test, y_test):
    """Returns the scores of scikit-learn's `GaussianProcessRegressor`, from one start."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel

    nu, ones = ROUGHNESS[config.kernel], np.ones(x.shape[1])
    kernel = RBF(ones) if nu is None else Matern(ones, nu=nu)
    began = time.process_time()
    model = GaussianProcessRegressor(ConstantKernel() * kernel + WhiteKernel(0.5), alpha=0.0).fit(x, y)
    predicted = model.predict(x_test, return_std=True)
    seconds = time.process_time() - began
    evidence = float(model.log_marginal_likelihood_value_)
    return score(*predicted, y_test) | {"log_evidence": evidence, "cpu_seconds": seconds}


def score(mean, std, y):
    """Returns the scores of normal predictions."""
    z = (y - mean) / std
    return {
        "rmse": float(np.sqrt(np.mean((y - mean) ** 2))),
        "nlpd": float(np.mean(0.5 * z**2 + np.log(std) + 0.5 * np.log(2 * np.pi))),
        "share_within_two_standard_deviations": float(np.mean(np.abs(z) < 2)),
    }


def draw(path, fitted, predicted, y_test):
    """Writes three panels: predictions, relevance of the inputs, the restarts of the fit."""
    mean, std = predicted
    figure = Figure(figsize=(13, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.errorbar(y_test, mean, 2 * std, fmt="o", color=BLUE, ecolor=GREY, elinewidth=0.5, markersize=3.5)
    ends = [min(y_test.min(), mean.min()), max(y_test.max(), mean.max())]
    left.plot(ends, ends, "--", color=RED, linewidth=1)
    left.set(xlabel="target", ylabel="prediction, two standard deviations")
    relevance = 1 / np.asarray(fitted.gp.kernel.lengthscale)
    middle.bar(np.arange(len(relevance)), relevance, color=BLUE)
    middle.set(xlabel="input", ylabel="1 / lengthscale", xticks=np.arange(len(relevance)))
    top = float(fitted.value)
    for history, steps in zip(np.asarray(fitted.history), np.asarray(fitted.steps), strict=True):
        right.semilogy(np.maximum(top - history[: steps + 1], 1e-5), color=BLUE, alpha=0.6, linewidth=1)
    right.set(xlabel="step", ylabel="nats below the best")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=140)
