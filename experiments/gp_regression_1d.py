"""Gaussian process regression on a line: prior, posterior and fit, the picture people know.

Three panels: functions drawn from the prior; the posterior with the same parameters, its band of two standard
deviations and functions drawn from it; and the posterior after the parameters are fitted to the log marginal likelihood
(Rasmussen and Williams 2006, figures 2.2 and 2.5). The data are noisy values of a smooth function, with a gap.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from aijax import gp, kernels
from aijax.errors import ConfigError

BLUE, RED, GREY = "#4878a8", "#d1605e", "#888888"
KERNELS = ("RBF", "Matern12", "Matern32", "Matern52", "RationalQuadratic")


def main(config, folder):
    """Returns the evidence before and after the fit, the parameters, the error and the coverage; draws the figure."""
    if config.kernel not in KERNELS:
        raise ConfigError(f"config.kernel: expected one of {', '.join(KERNELS)}, got {config.kernel!r}")
    with jax.enable_x64(True):
        kernel = getattr(kernels, config.kernel)(config.lengthscale, variance=config.variance)
        model = gp.GP(kernel, noise_variance=config.noise_variance)
        keys = jax.random.split(jax.random.key(config.seed), 4)
        x, y = observe(keys[0], config.points, config.noise_std)
        grid = jnp.linspace(-1.5, 1.5, config.grid)

        prior = gp.sample(keys[1], model, grid, config.samples)
        before = gp.condition(model, x, y)
        fitted = gp.fit(model, x, y, restarts=config.restarts, key=keys[2])
        panels = {
            "prior": (jnp.zeros_like(grid), jnp.sqrt(kernel.diagonal(grid)), prior),
            "posterior": (*gp.predict(before, grid), gp.sample(keys[3], before, grid, config.samples)),
            "posterior, fitted": (*gp.predict(fitted, grid), gp.sample(keys[3], fitted, grid, config.samples)),
        }
        draw(folder / "figures" / "regression.png", panels, grid, x, y)
        mean, std = panels["posterior, fitted"][:2]
        truth = target(grid)
        return {
            "log_marginal_likelihood": float(gp.log_marginal_likelihood(model, x, y)),
            "log_marginal_likelihood_fitted": float(gp.log_marginal_likelihood(fitted.gp, x, y)),
            "lengthscale": float(fitted.gp.kernel.lengthscale),
            "variance": float(fitted.gp.kernel.variance),
            "noise_std": float(fitted.gp.noise_variance) ** 0.5,
            "rmse": float(jnp.sqrt(jnp.mean((mean - truth) ** 2))),
            "share_within_two_standard_deviations": float(jnp.mean(jnp.abs(mean - truth) < 2 * std)),
        }


def target(x):
    """Returns the function to be learned."""
    return jnp.sin(5 * x) + 0.5 * jnp.cos(11 * x)


def observe(key, points, noise_std):
    """Returns inputs on [-1, 1], with a gap from 0.2 to 0.6, and noisy values there, both `[points]`."""
    places, noise = jax.random.split(key)
    x = jnp.sort(jax.random.uniform(places, (points,), minval=-1.0, maxval=0.6))
    x = jnp.where(x > 0.2, x + 0.4, x)
    return x, target(x) + noise_std * jax.random.normal(noise, (points,))


def draw(path, panels, grid, x, y):
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    for panel, (title, (mean, std, samples)) in zip(axes, panels.items(), strict=True):
        panel.fill_between(grid, mean - 2 * std, mean + 2 * std, color=BLUE, alpha=0.18, linewidth=0)
        panel.plot(grid, np.asarray(samples).T, color=BLUE, alpha=0.5, linewidth=0.8)
        panel.plot(grid, mean, color=BLUE, linewidth=1.8)
        if title != "prior":
            panel.plot(grid, target(grid), "--", color=GREY, linewidth=1.0)
            panel.plot(x, y, ".", color=RED, markersize=6)
        panel.set_title(title, fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(-3.5, 3.5)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
