"""What a trained vision transformer of digits looks at, and what its neurons are for.

Which patches matter is asked of the rollout of attention, of gradients and of the ink itself, and judged by what it
costs to erase the patches that each names first; neurons are judged by what classes they tell apart and by what their
ablation costs. How the class comes about, block by block, is read by the model's own head (logit lens) and by probes,
whose control task are labels drawn for each amount of ink. `config.run` is the folder of a run of a ViT on images.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from aijax import models, open_run
from aijax.data import load_source
from aijax.errors import ConfigError
from aijax.interp import (
    attention_rollout,
    capture,
    compute_neuron_activation_patterns,
    control_labels,
    fit_logistic,
    logit_lens,
    maximize_image,
    patching,
    random_view,
    selectivity,
)
from aijax.losses import softmax_cross_entropy

ORDERS = {"rollout": "#d1605e", "gradient": "#4878a8", "ink": "#6a9f58", "random": "#888888"}
COLOURS = ("#4878a8", "#e49444", "#6a9f58", "#8b6ca8")


def main(config, folder):
    """Returns the metrics and writes `figures/vit_digits.png`."""
    run = open_run(config.run)
    if not isinstance(run.model, models.ViT):
        raise ConfigError(f"config.run: expected the run of a ViT, and {config.run} is of {type(run.model).__name__}")
    images, labels = read(run, "test")
    inputs = run.preprocess(images)
    accuracy = float(jnp.mean(jax.jit(run.apply_fn)(run.params, inputs).argmax(-1) == labels))
    relevance = {
        "rollout": (rolled := rollout(run, inputs)),
        "gradient": by_patch(gradients(run, inputs, labels), rolled.shape),
        "ink": by_patch(images, rolled.shape),
        "random": np.random.default_rng(config.seed).random(rolled.shape),
    }
    erased = {name: erase(run, images, labels, of) for name, of in relevance.items()}
    neurons = study_neurons(run, inputs, labels, config)
    depths = read_depths(run, (images, labels), config)
    excited = excite(run, images.shape[1:], config)
    metrics = {"accuracy": accuracy}
    for name, values in depths.items():
        metrics |= {f"{name}_after_{i}_blocks": float(value) for i, value in enumerate(values)}
    for name, values in erased.items():
        metrics[f"accuracy_without_a_quarter_by_{name}"] = float(values[len(values) // 4])
    for name, (patterns, costs) in neurons.items():
        told = patterns.classes
        metrics |= {
            f"{name}_mean_effective_classes": float(told.effective_classes.mean()),
            f"{name}_mean_explained_variance": float(told.explained_variance.mean()),
            f"{name}_cost_and_explained_variance": float(spearmanr(told.explained_variance, costs).statistic),
        }
    draw(folder / "figures" / "vit_digits.png", images, relevance["rollout"], excited, erased, neurons, depths)
    return metrics


def read(run, split):
    """Returns all images and labels of a split of the run's data."""
    source = load_source(run.config.data, split)
    batch = source[np.arange(len(source))]
    return batch["image"], batch["label"]


def rollout(run, inputs):
    """Returns how much of each patch the pooled feature holds, `[b, rows, columns]`, by rollout of attention."""
    names = [f"encoder/block_{i}/attention/weights" for i in range(run.model.depth)]
    _, values = jax.jit(capture(run.apply_fn, names))(run.params, inputs)
    rolled = attention_rollout(jnp.stack([values[name] for name in names]))[-1]
    pooled = rolled[:, 0] if run.model.has_class_token else rolled.mean(1)
    side = int(pooled.shape[-1] ** 0.5)
    return np.asarray(pooled[:, -side * side :].reshape(-1, side, side))


def gradients(run, inputs, labels):
    """Returns input times gradient of the log-probability of the right class (Simonyan et al. 2014), `[b, h, w, c]`."""

    def log_probability(inputs):
        return -softmax_cross_entropy(run.apply_fn(run.params, inputs), labels).sum()

    return np.asarray(inputs * jax.jit(jax.grad(log_probability))(inputs))


def by_patch(pixels, shape):
    """Returns the sum over each patch of pixels `[b, h, w, c]`, `[b, rows, columns]`."""
    count, rows, columns = shape
    h, w = pixels.shape[1:3]
    return pixels.reshape(count, rows, h // rows, columns, w // columns, -1).sum((2, 4, 5))


def erase(run, images, labels, relevance):
    """Returns the accuracy with 0, 1, .. all patches erased, those of most relevance first."""
    count, rows, columns = relevance.shape
    ranks = np.argsort(np.argsort(-relevance.reshape(count, -1)))
    block = np.ones((1, images.shape[1] // rows, images.shape[2] // columns))

    @jax.jit
    def accuracy(kept):
        logits = run.apply_fn(run.params, run.preprocess(images * kept[..., None]))
        return jnp.mean(logits.argmax(-1) == labels)

    steps = range(ranks.shape[1] + 1)
    return np.array([accuracy(np.kron((ranks >= step).reshape(relevance.shape), block)) for step in steps])


def study_neurons(run, inputs, labels, config):
    """Returns for each block the patterns of its hidden neurons and what the loss rises by without each of them."""
    names = [f"encoder/block_{i}/mlp/hidden" for i in range(run.model.depth)]
    parts = np.array_split(np.asarray(inputs), -(-len(inputs) // config.batch_size))

    def loss(logits):
        return softmax_cross_entropy(logits, labels).mean()

    sweep = patching.sweep(run.apply_fn, loss, dict.fromkeys(names, (2,)), ablation="zero")
    ablated = jax.jit(sweep)(run.params, inputs)
    return {
        f"block_{i}": (
            compute_neuron_activation_patterns(
                run.apply_fn, run.params, list(parts), name, labels=labels, num_classes=run.model.num_classes
            ),
            np.asarray(ablated.values[name] - ablated.unpatched),
        )
        for i, name in enumerate(names)
    }


def read_depths(run, test, config):
    """Returns what can be told of the class from the residual stream before each block and at the end, by reader."""
    images, labels = map(np.concatenate, zip(read(run, "train"), test, strict=True))
    train = np.arange(len(images)) < len(images) - len(test[0])
    inputs = run.preprocess(images)
    names = ["encoder/block_0/residual", *(f"encoder/block_{i}" for i in range(run.model.depth))]
    _, values = jax.jit(capture(run.apply_fn, names))(run.params, inputs)
    logits = jax.jit(logit_lens(run.apply_fn, names, names[-1]))(run.params, inputs[~train])
    ink = images.reshape(len(images), -1).sum(1)
    types = np.searchsorted(np.quantile(ink, np.linspace(0, 1, config.control_types + 1)[1:-1]), ink)
    control = control_labels(
        jax.random.key(config.seed), types, num_types=config.control_types, num_classes=run.model.num_classes
    )
    fit = functools.partial(fit_logistic, num_classes=run.model.num_classes)

    found = {"lens_accuracy": [], "probe_accuracy": [], "probe_selectivity": []}
    for name in names:
        told = selectivity(fit, values[name].mean(1), labels, control, train)
        seen = jnp.mean(logits[name].argmax(-1) == labels[~train])
        for reader, number in zip(found, (seen, told.accuracy, told.selectivity), strict=True):
            found[reader].append(number)
    return found


def excite(run, shape, config):
    """Returns for each class an image that makes it likeliest."""

    def best(key, label):
        def log_probability(image):
            return jax.nn.log_softmax(run.apply_fn(run.params, run.preprocess(image[None]))[0])[label]

        view = functools.partial(random_view, jitter=1.0, scale=0.05, degrees=5.0)
        return maximize_image(key, log_probability, shape, view=view, restarts=1, **config.image).x[0]

    labels = jnp.arange(run.model.num_classes)
    return np.asarray(jax.jit(jax.vmap(best))(jax.random.split(jax.random.key(config.seed), len(labels)), labels))


def draw(path, images, relevance, excited, erased, neurons, depths):
    """Writes the figure."""
    figure = Figure(figsize=(12, 6.8), layout="constrained")
    pictures, plots = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    grid = pictures.subplots(3, len(excited))
    for axes, image, of, strongest in zip(grid.T, images, relevance, excited, strict=False):
        axes[0].imshow(image[..., 0], cmap="gray_r")
        axes[1].imshow(of, cmap="magma")
        axes[2].imshow(strongest[..., 0], cmap="gray_r", vmin=0, vmax=1)
    for axes, title in zip(grid[:, 0], ("image", "rollout", "what excites\nthe class"), strict=True):
        axes.set_ylabel(title, fontsize=8)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    patches, blocks, selective, shared = plots.subplots(1, 4)
    for name, values in erased.items():
        patches.plot(values, label=f"by {name}", color=ORDERS[name], linewidth=1.4)
    patches.set(title="accuracy without the first patches", xlabel="patches erased")
    for (name, values), colour in zip(depths.items(), COLOURS, strict=False):
        blocks.plot(values, "o-", label=name.replace("_", " "), color=colour, linewidth=1.4)
    blocks.set(title="the class, block by block", xlabel="blocks", xticks=range(len(values)), ylim=(0, 1.02))
    for (name, (patterns, costs)), colour in zip(neurons.items(), COLOURS * len(neurons), strict=False):
        label = name.replace("_", " ")
        selective.plot(patterns.classes.explained_variance, costs, ".", label=label, color=colour, alpha=0.7)
        shared.hist(patterns.classes.effective_classes, 20, range=(0, 10), label=label, color=colour, alpha=0.6)
    selective.set(title="rise of the loss without a neuron", xlabel="variance explained by class")
    shared.set(title="neurons by effective classes", xlabel="classes")
    for axes in (patches, blocks, selective, shared):
        axes.title.set_size(10)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
