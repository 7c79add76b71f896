"""Bayesian optimisation against random search: regret on test functions, over seeds that run together by vmap.

Each function is maximised on its box; the regret after t evaluations is the known maximum less the best value so far.
The whole loop of a function, all evaluations and all seeds, is one compiled program: `aijax.gp.ask` and `tell` inside
`lax.scan` inside `vmap`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, choose
from aijax.gp import LogExpectedImprovement, bayesopt

GUIDED, RANDOM = "Bayesian optimisation", "random search"
FLOOR = 1e-7
"""The lowest regret that is drawn: rounding of the values in float32."""


def branin(x):
    """Returns -Branin (Dixon and Szego 1978) on [-5, 10] x [0, 15]; its maximum is -0.397887, at three points."""
    a, b = x
    wave = (b - 5.1 * a**2 / (4 * jnp.pi**2) + 5 * a / jnp.pi - 6) ** 2
    return -(wave + 10 * (1 - 1 / (8 * jnp.pi)) * jnp.cos(a) + 10)


def hartmann6(x):
    """Returns -Hartmann-6 (Dixon and Szego 1978) on the unit cube; its maximum is 3.322368."""
    heights = jnp.array([1.0, 1.2, 3.0, 3.2])
    rates = jnp.array(
        [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
    )
    centres = 1e-4 * jnp.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )
    return heights @ jnp.exp(-jnp.sum(rates * (x - centres) ** 2, 1))


FUNCTIONS = {
    "branin": (branin, ((-5.0, 10.0), (0.0, 15.0)), -0.39788736),
    "hartmann6": (hartmann6, ((0.0, 1.0),) * 6, 3.32236801),
}
"""Name: the function, its box, its maximum."""


def main(config, folder):
    """Returns median regrets by function and method; writes `figures/bayesopt.png`."""
    for name, evaluations in config.evaluations.items():
        least = 2 * (len(choose(FUNCTIONS, name, "config.evaluations")[1]) + 1)
        if evaluations < least:
            raise ConfigError(
                f"config.evaluations.{name}: expected at least {least}, the design before the model, got {evaluations}"
            )
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    metrics, curves = {}, {}
    for name, evaluations in config.evaluations.items():
        function, bounds, top = FUNCTIONS[name]
        searches = {
            GUIDED: functools.partial(optimise, function=function, bounds=bounds, evaluations=evaluations),
            RANDOM: functools.partial(at_random, function=function, bounds=bounds, evaluations=evaluations),
        }
        curves[name] = {
            label: top - np.maximum.accumulate(jax.jit(jax.vmap(search))(keys), 1) for label, search in searches.items()
        }
        metrics[f"{name}/regret"] = float(np.median(curves[name][GUIDED][:, -1]))
        metrics[f"{name}/random_search_regret"] = float(np.median(curves[name][RANDOM][:, -1]))
    draw(folder, curves)
    return metrics


def optimise(key, *, function, bounds, evaluations):
    """Returns the values that Bayesian optimisation finds, `[evaluations]`, in order."""
    keys = jax.random.split(key, evaluations + 1)
    state = bayesopt.init(keys[0], bounds, capacity=evaluations)

    def step(state, key):
        x = bayesopt.ask(key, state, acquisition=LogExpectedImprovement()).x
        y = jax.vmap(function)(x)
        return bayesopt.tell(state, x, y), y[0]

    return jax.lax.scan(step, state, keys[1:])[1]


def at_random(key, *, function, bounds, evaluations):
    """Returns the values at independent points of the box, `[evaluations]`."""
    low, high = jnp.array(bounds).T
    return jax.vmap(function)(jax.random.uniform(key, (evaluations, len(bounds)), minval=low, maxval=high))


def draw(folder, curves):
    """Writes the regret curves: median and quartiles over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(curves), 3.9), layout="constrained")
    for axes, (name, methods) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for colour, (label, regrets) in zip(("#4878a8", "#d1605e"), methods.items(), strict=True):
            evaluations = np.arange(1, regrets.shape[1] + 1)
            low, middle, high = np.quantile(np.maximum(regrets, FLOOR), (0.25, 0.5, 0.75), axis=0)
            axes.semilogy(evaluations, middle, color=colour, linewidth=1.6, label=label)
            axes.fill_between(evaluations, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("evaluations")
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("regret: median and quartiles")
    figure.axes[0].legend(frameon=False, fontsize=9)
    figure.savefig(folder / "figures" / "bayesopt.png", dpi=140)
