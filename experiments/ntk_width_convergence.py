"""Finite networks against infinite ones: the tangent kernel at initialisation and in training, and trained ensembles.

Points on a circle, a network of `depth` hidden layers in the NTK parametrisation, one output (Jacot et al. 2018,
section 6; Lee et al. 2019, arXiv:1902.06720, section 3). Three measurements:

- `|Theta_width - Theta_inf| / |Theta_inf|` at initialisation, the root of the mean square over networks, by width;
- `|Theta_t - Theta_0| / |Theta_0|` after training on the mean squared error by gradient descent, by width;
- the outputs of an ensemble of trained networks at time t, against the Gaussian that `gradient_descent_mse_ensemble`
  gives for infinite width at the same time.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.ntk import stax
from aijax.ntk.empirical import empirical_ntk
from aijax.ntk.predict import gradient_descent_mse_ensemble, max_learning_rate

ACTIVATIONS = ("Erf", "Relu", "Gelu")


def main(config, folder):
    """Returns the fitted slopes and how the ensemble compares; writes `figures/width_convergence.png`."""
    if config.activation not in ACTIVATIONS:
        raise ConfigError(f"config.activation: expected one of {', '.join(ACTIVATIONS)}, got {config.activation!r}")
    network = functools.partial(make_network, config)
    kernel_fn = network(1)[2]
    x_train, x_test = (circle(angles(n)) for n in (config.train_points, config.test_points))
    y_train = target(angles(config.train_points))
    exact = kernel_fn(x_train, None, "ntk")
    learning_rate = config.learning_rate_fraction * float(max_learning_rate(exact, y_train.size))
    keys = jax.random.split(jax.random.key(config.seed), 3)

    errors = at_initialisation(keys[0], network, config.widths, config.networks, x_train, exact)
    train = functools.partial(descend, x=x_train, y=y_train, learning_rate=learning_rate, steps=config.steps)
    changes = in_training(keys[1], network, config.trained_widths, config.trained_networks, x_train, train)
    outputs = ensemble(keys[2], network(config.ensemble_width), config.ensemble_members, x_train, x_test, train)
    predict = gradient_descent_mse_ensemble(kernel_fn, x_train, y_train, learning_rate)
    limit = predict(config.steps, x_test, "ntk", compute_cov=True)
    mean, std = np.asarray(limit.mean)[:, 0], np.sqrt(np.diag(limit.covariance))

    slopes = slope(config.widths, errors), slope(config.trained_widths, changes)
    draw(folder, config, errors, changes, slopes, outputs, mean, std)
    standard_error = std / config.ensemble_members**0.5
    return {
        "slope_at_initialisation": slopes[0],
        "slope_of_change_in_training": slopes[1],
        "ensemble_mean_error_in_standard_errors": rms((outputs.mean(0) - mean) / standard_error),
        "ensemble_std_over_predicted": rms(outputs.std(0, ddof=1)) / rms(std),
        "share_within_two_standard_deviations": float((np.abs(outputs - mean) < 2 * std).mean()),
    }


def make_network(config, width):
    """Returns `(init_fn, apply_fn, kernel_fn)` of the network with hidden layers of a width."""
    hidden = (stax.Dense(width, W_std=config.W_std, b_std=config.b_std), getattr(stax, config.activation)())
    return stax.serial(*hidden * config.depth, stax.Dense(1, W_std=config.W_std, b_std=config.b_std))


def angles(n):
    """Returns n angles, evenly around the circle."""
    return 2 * np.pi * np.arange(n) / n


def circle(angle):
    """Returns points [n, 2] whose entries have a mean square of one."""
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1) * 2**0.5


def target(angle):
    """Returns what is to be learned, [n, 1]."""
    return jnp.sin(3 * angle)[:, None] + 0.5 * jnp.cos(angle)[:, None]


def at_initialisation(key, network, widths, count, x, exact):
    """Returns for each width the relative distance of the kernel at initialisation from that of infinite width."""
    errors = []
    for width in widths:
        init_fn, apply_fn, _ = network(width)

        @jax.jit
        def error(key, init_fn=init_fn, apply_fn=apply_fn):
            kernel = empirical_ntk(apply_fn, init_fn(key, x.shape)[1], x, trace_outputs=True)
            return jnp.linalg.norm(kernel - exact) / jnp.linalg.norm(exact)

        errors.append(rms([error(k) for k in jax.random.split(jax.random.fold_in(key, width), count)]))
    return errors


def in_training(key, network, widths, count, x, train):
    """Returns for each width the relative change of the kernel in training."""
    changes = []
    for width in widths:
        init_fn, apply_fn, _ = network(width)

        @jax.jit
        def change(key, init_fn=init_fn, apply_fn=apply_fn):
            before = init_fn(key, x.shape)[1]
            start, end = (empirical_ntk(apply_fn, p, x, trace_outputs=True) for p in (before, train(apply_fn, before)))
            return jnp.linalg.norm(end - start) / jnp.linalg.norm(start)

        changes.append(rms([change(k) for k in jax.random.split(jax.random.fold_in(key, width), count)]))
    return changes


def ensemble(key, network, members, x_train, x_test, train):
    """Returns the outputs [members, test points] of trained networks."""
    init_fn, apply_fn, _ = network

    @jax.jit
    def outputs(key):
        return apply_fn(train(apply_fn, init_fn(key, x_train.shape)[1]), x_test)[:, 0]

    return np.stack([outputs(k) for k in jax.random.split(key, members)])


def descend(apply_fn, params, *, x, y, learning_rate, steps):
    """Returns the parameters after steps of gradient descent on `|f - y|^2 / (2 N)`."""

    def loss(params):
        return 0.5 * jnp.mean((apply_fn(params, x) - y) ** 2)

    def step(params, _):
        return jax.tree.map(lambda p, g: p - learning_rate * g, params, jax.grad(loss)(params)), None

    return jax.lax.scan(step, params, None, length=steps)[0]


def slope(widths, values):
    """Returns the exponent of the power law that fits best."""
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def rms(values):
    """Returns the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def draw(folder, config, errors, changes, slopes, outputs, mean, std):
    """Writes the three panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.9), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 1.5))
    what = ("at initialisation, from infinite width", "in training, from initialisation")
    for axes, widths, values, fitted, title in zip(
        panels, (config.widths, config.trained_widths), (errors, changes), slopes, what, strict=False
    ):
        widths = np.asarray(widths)
        axes.loglog(widths, values, "o", color="#4878a8", markersize=6)
        line = np.exp(np.mean(np.log(values)) + fitted * (np.log(widths) - np.mean(np.log(widths))))
        axes.loglog(widths, line, color="#4878a8", linewidth=1.3, label=f"fit: width$^{{{fitted:.2f}}}$")
        axes.loglog(
            widths, values[0] * (widths / widths[0]) ** -0.5, "--", color="0.5", linewidth=1, label="width$^{-1/2}$"
        )
        axes.set_xlabel("width")
        axes.set_title(f"relative change of the NTK\n{title}", fontsize=10)
        axes.legend(frameon=False, fontsize=9)
        axes.grid(alpha=0.25, which="both", linewidth=0.5)
    axes, theta = panels[2], angles(config.test_points)
    axes.fill_between(theta, mean - 2 * std, mean + 2 * std, color="#e49444", alpha=0.25, linewidth=0)
    axes.plot(theta, mean, color="#d1605e", linewidth=1.6, label="infinite width: mean and 2 standard deviations")
    centre, spread = outputs.mean(0), outputs.std(0, ddof=1)
    label = f"{config.ensemble_members} networks of width {config.ensemble_width}: the same"
    axes.plot(theta, centre, "--", color="#2b5c8a", linewidth=1.4, label=label)
    for sign in (-2, 2):
        axes.plot(theta, centre + sign * spread, ":", color="#2b5c8a", linewidth=1.2)
    axes.plot(
        angles(config.train_points),
        target(angles(config.train_points))[:, 0],
        "ko",
        markersize=4,
        label="training points",
    )
    axes.set_xlabel("angle on the circle")
    axes.set_title(f"outputs after {config.steps} steps of gradient descent", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    axes.margins(x=0)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.35 * (high - low))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "figures" / "width_convergence.png", dpi=140)
