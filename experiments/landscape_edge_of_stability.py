"""Full-batch gradient descent at several learning rates: the sharpness rises until it meets 2 / learning rate.

A network on standardised handwritten digits, trained on all of them at each step by the mean squared error to one-hot
labels (Cohen, Kaur, Li, Kolter and Talwalkar 2021, section 3). Below the edge of stability the loss falls at each step;
at the edge it falls in the long run, and rises at many steps. For each learning rate r:

    R_ratio       the mean of sharpness * r / 2 over the last quarter of the run: 1 at the edge
    R_reached     the first step measured at which that is 1 or more; -1 where it never is
    R_rises       the share of all steps at which the loss rose
    R_loss        the last loss
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from aijax import landscape, models
from aijax.data import load_source
from aijax.errors import ConfigError
from aijax.train import Hook, minimize


def main(config, folder):
    """Returns the metrics above; writes `figures/edge_of_stability.png`."""
    if not config.learning_rates or min(config.learning_rates) <= 0:
        raise ConfigError(f"config.learning_rates: expected positive numbers, got {config.learning_rates}")
    source = load_source(config.data, "train")
    rows = source[np.arange(min(config.examples, len(source)))]
    # a mean that is left in makes one large eigenvalue from the start
    images = jnp.asarray(rows["image"] - rows["image"].mean(0))
    batch = {"image": images / images.std(), "target": jax.nn.one_hot(rows["label"], len(source.classes))}
    model = models.build(config.model, num_classes=len(source.classes))

    def loss_fn(params, batch):
        return jnp.mean((model.apply({"params": params}, batch["image"]) - batch["target"]) ** 2)

    key = jax.random.key(config.seed)
    start = models.init(key, model, jax.ShapeDtypeStruct((1, *batch["image"].shape[1:]), jnp.float32))
    runs = {rate: descend(config, key, loss_fn, start, batch, rate) for rate in config.learning_rates}
    draw(folder / "figures" / "edge_of_stability.png", runs)
    return {
        f"{rate}_{name}": value
        for rate, (losses, told) in runs.items()
        for name, value in describe(losses, told).items()
    }


def descend(config, key, loss_fn, start, batch, rate):
    """Returns the loss before each step, and at the steps measured `step, sharpness, ratio` `[n, 3]`."""
    track = landscape.track_stability(loss_fn, batch, rate)
    _, records = minimize(
        key,
        lambda params, batch, key: (loss_fn(params, batch), {}),
        start,
        optax.sgd(rate),
        batch,
        config.steps,
        hooks=[Hook(config.measure_every, track)],
    )
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    told = [
        [record[name] for name in ("step", "sharpness", "stability")] for record in records if "stability" in record
    ]
    return np.array(losses), np.array(told)


def describe(losses, told):
    late = told[:, 0] > 0.75 * told[-1, 0]
    beyond = told[:, 2] >= 1
    return {
        "ratio": float(told[late, 2].mean()),
        "reached": int(told[beyond.argmax(), 0]) if beyond.any() else -1,
        "rises": float((np.diff(losses) > 0).mean()),
        "loss": float(losses[-1]),
    }


def draw(path, runs):
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, (rate, (losses, told)) in enumerate(runs.items()):
        colour = f"C{index}"
        left.plot(losses, color=colour, linewidth=0.8, label=f"learning rate {rate:g}")
        right.plot(told[:, 0], told[:, 1], color=colour, linewidth=1)
        right.axhline(2 / rate, color=colour, linestyle="--", linewidth=0.8)
    left.set(xlabel="step", ylabel="training loss", yscale="log")
    left.legend(fontsize=8)
    right.set(xlabel="step", ylabel="largest eigenvalue of the Hessian", title="dashed: 2 / learning rate")
    right.title.set_fontsize(9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
