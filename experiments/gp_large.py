"""Gaussian process regression on more points than a kernel matrix could be held for: matrix-free, by its own word.

Inputs are normal in d dimensions; the function is drawn from a Matern-5/2 process with a lengthscale for each of them,
by random features, and noise is added. The parameters are fitted to `config.fit.points` of the points by exact
inference in float64, and then all points are conditioned on by preconditioned conjugate gradients (`gp.Iterative`).
Means at test points come from the weights; their variances from `config.samples` functions drawn from the posterior,
which take one solve more, whatever the number of test points. Their error in the scores is small, as most of the
variance of a target is noise. At the full size the evidence and its gradient are estimated too: what is left of the
gradient says how far the optimum of the few is from that of all.

Three panels: the error against the number of points; how often a target fell below a quantile that was given for it;
and the iterations of a solve against the rank of its preconditioner.
"""

import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.special import ndtr

from aijax import gp, kernels
from aijax.binding import bind
from aijax.errors import ConfigError
from aijax.parallel import make_mesh

BLUE, RED, GREY = "#4878a8", "#d1605e", "#888888"


def main(config, folder):
    """Returns scores, seconds and memory at each number of points, the evidence at the largest; draws the figure."""
    sizes = sorted({n for n in config.curve if n < config.points} | {config.points})
    if config.fit.points > config.points:
        raise ConfigError(f"config.fit.points: expected at most {config.points} points, got {config.fit.points}")
    mesh = make_mesh() if jax.device_count() > 1 else None
    solver = bind(gp.Iterative, config.solver, "config.solver", mesh=mesh)()
    keys = jax.random.split(jax.random.key(config.seed), 4)
    x, f, y = observe(keys[0], config)
    x_test, f_test, y_test = (a[config.points :] for a in (x, f, y))
    model, metrics = fit(config.fit, x, y)
    curve = {}
    for n in sizes:
        found, mean, std = regress(keys[1], model, x[:n], y[:n], x_test, solver, config.samples)
        curve[n] = found | score(mean, std, f_test, y_test)
        print(f"{n} points: " + ", ".join(f"{name} {value:.4g}" for name, value in curve[n].items()), flush=True)
    metrics |= curve[config.points] | estimate_evidence(keys[2], model, x[: config.points], y[: config.points], solver)
    metrics["nlpd_of_the_truth"] = 0.5 * float(np.log(2 * np.pi * np.e) + 2 * np.log(config.noise_std))
    metrics |= {f"{n}/{name}": curve[n][name] for n in sizes[:-1] for name in ("rmse", "nlpd", "iterations")}
    ranks = {rank: count_iterations(model, x, y, rank, config) for rank in config.preconditioner.ranks}
    metrics["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    draw(folder / "figures" / "large.png", curve, ndtr((np.asarray(y_test) - mean) / std), ranks, config)
    return metrics


def observe(key, config):
    """Returns points, the function and its noisy values there, test points last, all in float32."""
    keys = jax.random.split(key, 4)
    kernel = kernels.Matern52(jnp.linspace(*config.lengthscales, config.dimension))
    x = jax.random.normal(keys[0], (config.points + config.test_points, config.dimension))
    features = kernels.random_features(keys[1], kernel, config.features, x[:1])
    weights = jax.random.normal(keys[2], (config.features,))
    f = jax.lax.map(lambda point: features(point[None])[0] @ weights, x, batch_size=min(1024, len(x)))
    return x, f, f + config.noise_std * jax.random.normal(keys[3], f.shape)


def fit(section, x, y):
    """Returns the model with the parameters most likely by the first few points, and what they are."""
    began = time.perf_counter()
    x, y = (np.asarray(a[: section.points], np.float64) for a in (x, y))
    with jax.enable_x64(True):
        model = gp.GP(kernels.Matern52(np.full(x.shape[1], 3.0)), noise_variance=0.5)
        found = gp.fit(model, x, y, max_steps=section.max_steps)
        fitted, converged = jax.tree.map(np.asarray, found.gp), bool(found.converged)
    metrics = {
        "fit/converged": converged,
        "fit/noise_std": float(fitted.noise_variance) ** 0.5,
        "fit/variance": float(fitted.kernel.variance),
        "fit/seconds": time.perf_counter() - began,
    }
    for i, lengthscale in enumerate(fitted.kernel.lengthscale):
        metrics[f"fit/lengthscale_{i}"] = float(lengthscale)
    return jax.tree.map(np.float32, fitted), metrics


def regress(key, model, x, y, x_test, solver, num_samples):
    """Returns how well the solves went, and mean and standard deviation of test targets, as numpy arrays."""
    began, cpu = time.perf_counter(), time.process_time()
    posterior = gp.condition(model, x, y, solver=solver)
    functions = gp.pathwise_sample(key, posterior, num_samples)
    mean = posterior.mean(x_test)
    variance = jnp.mean((functions(x_test) - mean) ** 2, 0) + model.noise_variance
    mean, std = np.asarray(mean), np.sqrt(np.asarray(variance))
    return (
        {
            "residual": float(posterior.residual),
            "iterations": int(posterior.iterations),
            "samples_residual": float(functions.residual),
            "samples_iterations": int(functions.iterations),
            "converged": bool(posterior.converged & functions.converged),
            "solve_seconds": time.perf_counter() - began,
            "solve_cpu_seconds": time.process_time() - cpu,
        },
        mean,
        std,
    )


def score(mean, std, f, y):
    """Returns the error against the function, and scores of normal predictions of the targets."""
    f, y = np.asarray(f), np.asarray(y)
    z = (y - mean) / std
    return {
        "rmse": float(np.sqrt(np.mean((f - mean) ** 2))),
        "rmse_of_targets": float(np.sqrt(np.mean((y - mean) ** 2))),
        "nlpd": float(np.mean(0.5 * z**2 + np.log(std) + 0.5 * np.log(2 * np.pi))),
        "share_within_two_standard_deviations": float(np.mean(np.abs(z) < 2)),
    }


def estimate_evidence(key, model, x, y, solver):
    """Returns the log marginal likelihood with its error, and its gradient in the logarithms of the parameters."""
    began, cpu = time.perf_counter(), time.process_time()

    @jax.jit
    def value_and_gradient(model):
        def value(model):
            found = gp.evidence(model, x, y, solver=solver, key=key)
            return found.value, found

        (_, found), gradient = jax.value_and_grad(value, has_aux=True)(model)
        return found, jax.tree.map(jnp.multiply, gradient, model)

    found, gradient = value_and_gradient(model)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    return {
        "evidence": float(found.value),
        "evidence/standard_error": float(found.standard_error),
        "evidence/residual": float(found.residual),
        "evidence/iterations": int(found.iterations),
        "evidence/converged": bool(found.converged),
        "evidence/largest_slope": largest,
        "evidence/largest_slope_a_point": largest / len(y),
        "evidence/seconds": time.perf_counter() - began,
        "evidence/cpu_seconds": time.process_time() - cpu,
    }


def count_iterations(model, x, y, rank, config):
    """Returns the iterations of the solve for some of the points by a preconditioner of a rank."""
    n = min(config.preconditioner.points, config.points)
    solver = gp.Iterative(rank=min(rank, n), tolerance=config.solver.tolerance)
    return int(gp.condition(model, x[:n], y[:n], solver=solver).iterations)


def draw(path, curve, levels, ranks, config):
    """Writes the three panels; `levels` are the quantiles that test targets turned out to be."""
    figure = Figure(figsize=(12.5, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    sizes = list(curve)
    left.loglog(sizes, [curve[n]["rmse"] for n in sizes], "o-", color=BLUE, label="error of the function")
    left.loglog(sizes, [curve[n]["rmse_of_targets"] for n in sizes], "o-", color=RED, label="error of targets")
    left.axhline(config.noise_std, color=GREY, linestyle="--", linewidth=1, label="noise")
    left.set(xlabel="points", ylabel="root mean square, test points")
    left.legend(frameon=False, fontsize=8)
    levels = np.sort(levels)
    middle.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    middle.plot(levels, (np.arange(len(levels)) + 0.5) / len(levels), color=BLUE)
    middle.set(xlabel="quantile given", ylabel="share of targets below", title=f"{sizes[-1]:,} points")
    right.loglog(list(ranks), list(ranks.values()), "o-", color=BLUE)
    points = min(config.preconditioner.points, config.points)
    right.set(xlabel="rank of the preconditioner", ylabel="iterations", title=f"{points:,} points")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=140)
