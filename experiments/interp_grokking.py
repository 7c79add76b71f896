"""Trains a one-layer transformer on modular addition until it groks, and measures the circuit as it forms.

The model learns the training pairs by heart long before it answers the others; restricted and excluded loss (Nanda et
al. 2023) tell in the meantime that the Fourier circuit grows. `progress/...` are measured on all pairs, the figure
shows them over the run, and the frequencies of the network that it ends with.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from aijax import models
from aijax.data import load_source
from aijax.data.source import ArraySource
from aijax.errors import ConfigError
from aijax.interp import capture
from aijax.interp import progress_measures as pm
from aijax.train import Evaluation, Experiment
from aijax.train.sinks import read_lines

FIELDS = ("model", "num_frequencies")
HIDDEN = "decoder/block_0/mlp/hidden"
PURE = 0.85
"""Share of one frequency from which on a neuron counts as of it."""


def load(config):
    """Returns the sources of the run: "all" has every pair, in the order of tables, and which are trained on."""
    parts = {split: load_source(config.data, split) for split in ("train", "test")}
    if "label" not in parts["train"].spec or "tokens" not in parts["train"].spec:
        raise ConfigError(f"config.data.source: expected modular_addition, got {config.data.source!r}")
    columns = [
        part[np.arange(len(part))] | {"trained": np.full(len(part), part is parts["train"])} for part in parts.values()
    ]
    columns = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    order = np.lexsort(columns["tokens"].T[::-1])
    return parts | {"all": ArraySource({name: column[order] for name, column in columns.items()})}


def build(config, sources):
    """Returns the experiment: the model of `config.model`, trained on "train" and measured on "test" and on all."""
    train = sources["train"]
    p = len(train.classes)
    if not 1 <= config.num_frequencies <= p // 2:
        raise ConfigError(f"config.num_frequencies: expected 1 to {p // 2}, got {config.num_frequencies}")
    model = models.build(config.model, vocab_size=p + 1, context_length=3, depth=1, norm="none", tied=False)

    def apply_fn(params, tokens):
        return model.apply({"params": params}, tokens, place=2)[:, :p]

    def loss_fn(params, batch, key):
        logits = apply_fn(params, batch["tokens"]).astype(jnp.float32)
        accuracy = jnp.mean(logits.argmax(-1) == batch["label"])
        return precise_cross_entropy(logits, batch["label"]).mean(), {"accuracy": accuracy}

    def measure(params, batch):
        logits = apply_fn(params, batch["tokens"]).astype(jnp.float32)
        return {
            "loss": precise_cross_entropy(logits, batch["label"]),
            "accuracy": logits.argmax(-1) == batch["label"],
        }

    def structure(params, tokens):
        logits, values = capture(apply_fn, HIDDEN)(params, tokens)
        frequencies, shares = pm.neuron_frequencies(values[HIDDEN][:, -1])
        to_logits = params["decoder"]["block_0"]["mlp"]["down"]["kernel"] @ params["head"]["kernel"][:, :p]
        return {
            "logits": logits,
            "embedding": pm.fourier_norms(params["embedding"]["embedding"][:p]),
            "neurons_to_logits": pm.fourier_norms(to_logits.T),
            "neuron_frequencies": frequencies,
            "neuron_shares": shares,
        }

    def progress(params, batch):
        rows = len(batch["tokens"])
        found = structure(params, batch["tokens"][: p * p])
        measures = pm.measure_progress(found["logits"], batch["trained"][: p * p], config.num_frequencies)
        values = {
            "restricted_loss": measures.restricted_loss,
            "excluded_train_loss": measures.excluded_train_loss,
            "key_fraction": measures.key_fraction,
            "embedding_gini": pm.gini(found["embedding"][1:]),
            "neurons_to_logits_gini": pm.gini(found["neurons_to_logits"][1:]),
            "pure_neurons": jnp.mean(found["neuron_shares"] > PURE),
            "sum_of_squared_weights": pm.sum_of_squared_weights(params),
        }
        return {name: jnp.broadcast_to(value, rows) for name, value in values.items()}

    def draw(params, folder):
        a, b, _ = pm.modular_pairs(p)
        found = jax.jit(structure)(params, np.stack([a, b, np.full_like(a, p)], axis=1))
        power = pm.logit_power(found["logits"])
        keys = np.asarray(pm.key_frequencies(power, config.num_frequencies))
        draw_grokking(
            folder / "grokking.png", read_lines(folder.parent / "metrics.jsonl"), found, np.asarray(power), keys
        )
        return {f"key_frequency_{i}": int(key) for i, key in enumerate(keys)}

    devices = jax.device_count()
    table = -(-p * p // devices) * devices  # all pairs at once, filled up to what the devices can share
    return Experiment(
        init=lambda key: init(key, model),
        loss_fn=loss_fn,
        source=train,
        apply_fn=apply_fn,
        evaluations={
            "test": Evaluation(sources["test"], measure, table),
            "progress": Evaluation(sources["all"], progress, table),
        },
        fields=FIELDS,
        model=model,
        preprocess=lambda tokens: jnp.asarray(tokens, jnp.int32),
        classes=train.classes,
        draw=draw,
    )


def precise_cross_entropy(logits, labels):
    """Returns softplus(logsumexp of the other logits - the right one): the cross-entropy, of which float32 keeps all
    digits far below 1e-7, where training goes on for thousands of steps."""
    right = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    others = jax.nn.logsumexp(jnp.where(right, -jnp.inf, logits), axis=-1)
    return jax.nn.softplus(others - jnp.sum(logits, axis=-1, where=right))


def init(key, model):
    """Returns parameters as Nanda et al. begin with: normal with variance 1 / width, biases zero."""
    shapes = jax.eval_shape(lambda: model.init(key, jnp.zeros((1, 3), jnp.int32))["params"])
    leaves, structure = jax.tree.flatten(shapes)
    drawn = [
        jax.random.normal(key, leaf.shape) * model.width**-0.5 if leaf.ndim > 1 else jnp.zeros(leaf.shape)
        for key, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def draw_grokking(path, records, found, power, keys):
    """Writes the figure: losses and weights over the run, and the frequencies at its end."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    (losses, weights, neurons), (embedding, to_logits, logits) = figure.subplots(2, 3)
    curves = {
        "train": ("train/loss", "#4878a8"), "test": ("test/loss", "#d1605e"),
        "restricted, all pairs": ("progress/restricted_loss", "#6a9f58"),
        "excluded, train": ("progress/excluded_train_loss", "#e49444"),
    }  # fmt: skip
    for label, (name, colour) in curves.items():
        losses.plot(*points(records, name), label=label, color=colour, linewidth=1.4)
    losses.set(yscale="log", xlabel="step", title="loss, nats")
    low, high = losses.get_ylim()
    losses.set_ylim(top=high * (high / low) ** 0.3)  # room for the legend
    losses.legend(fontsize=8, frameon=False, ncols=2, loc="upper left")
    for label, (name, colour) in {
        "embedding": ("progress/embedding_gini", "#4878a8"),
        "neurons to logits": ("progress/neurons_to_logits_gini", "#6a9f58"),
        f"neurons of one frequency (> {PURE:.0%})": ("progress/pure_neurons", "#8b6ca8"),
    }.items():
        weights.plot(*points(records, name), label=label, color=colour, linewidth=1.4)
    squares = weights.twinx()
    squares.plot(*points(records, "progress/sum_of_squared_weights"), "--", color="#888888", linewidth=1)
    squares.set_ylabel("sum of squared weights (dashed)", fontsize=8)
    squares.set_ylim(0, 1.35 * squares.get_ylim()[1])
    weights.set(xlabel="step", title="Gini coefficients; share of neurons", ylim=(0, 1.35))
    weights.legend(fontsize=8, frameon=False)
    shares, frequencies = np.asarray(found["neuron_shares"]), np.asarray(found["neuron_frequencies"])
    neurons.hist([shares[np.isin(frequencies, keys)], shares[~np.isin(frequencies, keys)]], np.linspace(0, 1, 21),
                 stacked=True, color=["#6a9f58", "#bbbbbb"], label=["key frequency", "other"])  # fmt: skip
    neurons.set(title="neurons by the share of their best frequency")
    neurons.legend(fontsize=8, frameon=False)
    for axes, name, title in (
        (embedding, "embedding", "embedding"),
        (to_logits, "neurons_to_logits", "neurons to logits"),
    ):
        norms = np.asarray(found[name])
        bars(axes, [norms[1::2], norms[2::2]], keys, f"{title}: Fourier norms (cos, sin)")
    bars(logits, [power / power.sum()], keys, "logits: power of cos, sin of a + b")
    for axes in figure.axes:
        axes.tick_params(labelsize=8)
        axes.title.set_size(10)
        axes.spines["top"].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


def points(records, name):
    """Returns steps and values of a metric."""
    return list(zip(*((record["step"], record[name]) for record in records if name in record), strict=True)) or ([], [])


def bars(axes, heights, keys, title):
    """Draws bars by frequency, those of the key frequencies in green."""
    width = 0.8 / len(heights)
    for i, values in enumerate(heights):
        frequencies = np.arange(1, len(values) + 1)
        colours = np.where(np.isin(frequencies, keys), "#6a9f58", "#bbbbbb")
        axes.bar(frequencies + (i - (len(heights) - 1) / 2) * width, values, width, color=colours)
    axes.set(title=title, xlabel="frequency")
