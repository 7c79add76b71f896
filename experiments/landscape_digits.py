"""The loss around networks that learn handwritten digits: surfaces, the spectrum in training, paths, and batch sizes.

surface    around the trained network, along two random directions with the norms of its filters (Li et al. 2018), and
           over the plane of the two principal components of the way that training took, with that way drawn on it
spectrum   the density of the eigenvalues of the Hessian at the start, on the way and at the end; the largest one, the
           trace and the share below -0.01 at each measurement (Ghorbani et al. 2019; Papyan 2018)
paths      from one trained network to another of another seed: straight, straight after the units of the other are
           exchanged to match (Ainsworth et al. 2023), and along a Bezier curve trained to avoid the barrier (Garipov et
           al. 2018); the height of each is how far the training loss rises above the chord
batches    small against large ones, for the same number of steps (Keskar et al. 2017): the largest eigenvalue, the
           rise of the loss after a step of SAM and under noise, and the accuracy on held-out digits
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from aijax import landscape, linalg, models
from aijax.data import load_source, stream
from aijax.errors import ConfigError
from aijax.train import Hook, minimize


def main(config, folder):
    """Returns the numbers of the above; writes `figures/surface.png`, `way.png`, `spectrum.png` and `paths.png`."""
    if config.model.name != "mlp":
        raise ConfigError(f"config.model.name: units are exchanged of an mlp, got {config.model.name!r}")
    task, figures = make_task(config), folder / "figures"
    keys = jax.random.split(jax.random.key(config.seed), 4)
    history = []
    first = train(config, task, config.seed, config.batch_size, history)
    second = train(config, task, config.seed + 1, config.batch_size)
    metrics = {"accuracy": accuracy(task, first)}
    metrics |= around(config, keys[0], task, first, history, figures)
    metrics |= in_training(history, figures)
    metrics |= between(config, keys[1], task, first, second, figures)
    return metrics | by_batch_size(config, keys[2], task)


@dataclass(frozen=True)
class Task:
    """The data, `apply_fn(params, images)` with its `init_fn(key)`, and `loss_fn(params, batch)`."""

    source: Any
    train_set: dict
    test_set: dict
    init_fn: Any
    apply_fn: Any
    loss_fn: Any


def make_task(config):
    train_source, test_source = (load_source(config.data, split) for split in ("train", "test"))
    train_set, test_set = (
        {name: jnp.asarray(column) for name, column in source[np.arange(len(source))].items()}
        for source in (train_source, test_source)
    )
    model = models.build(config.model, num_classes=len(train_source.classes))
    image = jax.ShapeDtypeStruct((1, *train_set["image"].shape[1:]), jnp.float32)

    def apply_fn(params, images):
        return model.apply({"params": params}, images)

    def loss_fn(params, batch):
        return optax.softmax_cross_entropy_with_integer_labels(apply_fn(params, batch["image"]), batch["label"]).mean()

    return Task(train_source, train_set, test_set, lambda key: models.init(key, model, image), apply_fn, loss_fn)


def accuracy(task, params):
    return float(jnp.mean(task.apply_fn(params, task.test_set["image"]).argmax(-1) == task.test_set["label"]))


def train(config, task, seed, batch_size, history=None):
    """Returns trained parameters; adds `(step, params, spectrum)` to a history, at the start and while training."""
    key, hooks = jax.random.key(seed), []
    if history is not None:

        def see(step, params):
            history.append((step, jax.tree.map(np.asarray, params), spectrum(config, task, params)))

        see(0, task.init_fn(key))
        hooks = [Hook(-(-config.steps // config.measurements), lambda step, state: see(step, state.params))]
    state, _ = minimize(
        key,
        lambda params, batch, key: (task.loss_fn(params, batch), {}),
        task.init_fn(key),
        optax.sgd(config.learning_rate, momentum=config.momentum),
        stream(task.source, batch_size, seed=seed).iterate(0),
        config.steps,
        hooks=hooks,
        log_every=config.steps,
    )
    return state.params


def spectrum(config, task, params):
    """Returns the density of the Hessian, its largest eigenvalue, its trace and the share of eigenvalues below 0."""
    matvec = landscape.hessian(task.loss_fn, params, task.train_set)
    return measure(matvec, jax.random.key(config.seed), config.probes, config.lanczos_steps, config.trace_products)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def measure(matvec, key, probes, steps, trace_products):
    given = matvec, key, matvec.params
    top = linalg.eigsh(landscape.linearize(matvec), key, matvec.params, 1, tolerance=1e-4, fresh_products=8)
    options = {"num_samples": probes, "steps": steps, "batch_size": probes}
    return {
        "density": landscape.spectral_density(*given, **options),
        "negative": landscape.negative_share(*given, threshold=1e-2, **options).value,
        "largest": top.values[0],
        "trace": landscape.estimate_trace(*given, trace_products).value,
    }


def around(config, key, task, params, history, figures):
    """Draws the surface around the end of training, and the plane of the way there."""
    directions = [landscape.random_direction(key, params) for key in jax.random.split(key)]
    plane = functools.partial(landscape.surface, task.loss_fn, params, task.train_set, batch_size=config.grid)
    found = plane(directions, jnp.linspace(-1, 1, config.grid))
    landscape.draw_surface(figures / "surface.png", found, log_scale=True)
    landscape.draw_surface(figures / "relief.png", found, style="relief", log_scale=True)
    trajectory = jax.tree.map(lambda *leaves: np.stack(leaves), *(params for _, params, _ in history))
    way = landscape.principal_directions(trajectory, params)
    reach = 1.15 * np.abs(way.coordinates).max(0)
    axes = [np.linspace(-limit, limit, config.grid) for limit in reach]
    shown = plane([jax.tree.map(lambda leaf, i=i: leaf[i], way.directions) for i in range(2)], axes)
    landscape.draw_surface(figures / "way.png", shown, trajectory=way.coordinates, log_scale=True)
    return {"way_explained": float(way.explained.sum())}


def in_training(history, figures):
    """Draws the density at three times and the numbers at all."""
    steps, _, found = zip(*history, strict=True)
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for index in (0, 1, len(found) - 1):
        density = found[index]["density"]
        left.semilogy(density.grid, np.maximum(density.density, 1e-5), label=f"step {steps[index]}", linewidth=1)
    left.set(xlabel="eigenvalue of the Hessian", ylabel="density", ylim=(1e-5, None))
    left.legend(fontsize=8)
    for name in ("largest", "trace"):
        middle.plot(steps, [float(one[name]) for one in found], "o-", markersize=3, label=name)
    middle.set(xlabel="step", ylabel="largest eigenvalue, and trace", yscale="log")
    middle.legend(fontsize=8)
    right.plot(steps, [float(one["negative"]) for one in found], "o-", markersize=3)
    right.set(xlabel="step", ylabel="share of eigenvalues below -0.01", ylim=(0, None))
    save(figures / "spectrum.png", figure)
    ends = {"start": found[0], "end": found[-1]}
    return {
        f"{name}_{when}": float(one[name]) for when, one in ends.items() for name in ("largest", "trace", "negative")
    }


def between(config, key, task, a, b, figures):
    """Draws the loss along the paths; returns the height of each."""
    match_key, curve_key = jax.random.split(key)
    layers = [f"layer_{index}" for index in range(len(config.model.widths))]
    axes = {}
    for before, layer in zip([None, *layers], [*layers, None], strict=True):
        axes[f"{layer or 'head'}/kernel"] = before, layer
        axes[f"{layer or 'head'}/bias"] = (layer,)
    near = landscape.permute(axes, landscape.match_weights(match_key, axes, a, b), b)
    state, _ = minimize(
        curve_key,
        landscape.path_loss(task.loss_fn, a, b),
        landscape.middle_of(a, b),
        optax.adam(config.curve.learning_rate),
        stream(task.source, config.batch_size, seed=config.seed).iterate(0),
        config.curve.steps,
        log_every=config.curve.steps,
    )
    paths = {
        "straight": lambda t: landscape.line(t, a, b),
        "matched": lambda t: landscape.line(t, a, near),
        "bezier": lambda t: landscape.bezier(t, a, state.params, b),
    }
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    panel = figure.subplots()
    heights = {}
    for name, path in paths.items():
        found = landscape.barrier(task.loss_fn, path, task.train_set)
        heights[f"barrier_{name}"] = float(found.height)
        panel.plot(found.t, found.losses, label=name)
    panel.set(xlabel="place on the path", ylabel="training loss", yscale="log")
    panel.legend(fontsize=8)
    save(figures / "paths.png", figure)
    return heights


def by_batch_size(config, key, task):
    metrics = {}
    for size in config.batch_sizes:
        params = train(config, task, config.seed, size)
        given = task.loss_fn, params, task.train_set
        metrics |= {
            f"batch_{size}_loss": landscape.mean_loss(*given),
            f"batch_{size}_largest": landscape.compute_hessian_eigenvalues(*given, 1).values[0],
            f"batch_{size}_sam": landscape.sam_sharpness(*given, rho=config.rho),
            f"batch_{size}_noise": landscape.average_sharpness(*given, sigma=config.sigma, key=key).value,
            f"batch_{size}_accuracy": accuracy(task, params),
        }
    return {name: float(value) for name, value in metrics.items()}


def save(path, figure):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
