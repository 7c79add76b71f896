"""Sparse autoencoders of a trained image classifier, for several of its residual streams in one run.

Activations are captured as they are needed and mixed, all sites at once, and scaled to a mean norm of sqrt(d); the
autoencoders are trained side by side by the train loop. Told are, on held-out images, how much they explain with how
few latents, what the classifier loses with their reconstructions in place of its own streams, and whether latents tell
classes apart better than the axes of the stream do. `config.run` is the folder of a run of a classifier of images.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from aijax import interp, open_run
from aijax.data import load_source
from aijax.losses import softmax_cross_entropy
from aijax.train import Recorder, pack, train

COLOURS = ("#4878a8", "#e49444", "#6a9f58", "#8b6ca8", "#d1605e", "#888888")


def main(config, folder):
    """Returns the metrics and writes `figures/sae.png`."""
    run = open_run(config.run)
    images, _ = read(run, "train")
    kind = interp.sae_architecture(**config.architecture)
    shapes = jax.eval_shape(interp.capture(run.apply_fn, config.sites), run.params, run.preprocess(images[:1]))[1]
    sites = list(shapes)
    states, scales, curves = fit(run, images, kind, sites, config)
    test_images, test_labels = read(run, "test")
    inputs = run.preprocess(test_images)
    metrics, told = {}, {}
    for number, site in enumerate(sites):
        params = jax.tree.map(lambda leaf, number=number: leaf[number], states.params)
        told[site] = measure(run, inputs, test_labels, site, kind, interp.fold_scale(params, scales[number]))
        metrics |= {f"{site}/{name}": value for name, value in told[site][0].items()}
    draw(folder / "figures" / "sae.png", curves, told, test_images)
    return metrics


def read(run, split):
    """Returns all images and labels of a split of the run's data."""
    source = load_source(run.config.data, split)
    batch = source[np.arange(len(source))]
    return batch["image"], batch["label"]


def fit(run, images, kind, sites, config):
    """Returns the states of the autoencoders, the scales of their inputs and the metrics by step."""
    draws, rows, weights = jax.random.split(jax.random.key(config.seed), 3)
    activations = interp.site_activations(run.apply_fn, sites)

    def batches():
        rng = np.random.default_rng(config.seed)
        while True:
            yield run.preprocess(images[rng.choice(len(images), config.batch_size, replace=False)])

    first = jax.jit(activations)(run.params, next(batches()))
    scales = jax.vmap(interp.expected_norm_scale)(first)
    optimizer = optax.adam(optax.linear_schedule(config.learning_rate, 0, config.total_steps))

    def init(key):
        return interp.init_sae_state(interp.init_sae(key, kind, first.shape[-1], config.latents), optimizer)

    step = interp.make_sae_step(kind, optimizer, sites=True, dead_after=config.dead_after)

    def packed(state, x, key):
        state, metrics = step(state, {"x": x * scales[:, None, None]}, key)
        return state, pack(metrics)

    curves = []
    recorder = Recorder(
        [lambda step, metrics: curves.append({"step": step, **metrics})],
        every=max(1, config.total_steps // 100),
        batch_size=config.batch_size,
        total_steps=config.total_steps,
    )
    states, _ = train(
        jax.jit(jax.vmap(init))(jax.random.split(weights, len(sites))),
        jax.jit(packed, donate_argnums=0),
        interp.stream_activations(rows, activations, run.params, batches(), depth=config.reservoir_depth),
        key=draws,
        start=0,
        total_steps=config.total_steps,
        recorder=recorder,
    )
    return states, scales, curves


def measure(run, inputs, labels, site, kind, params):
    """Returns the measures of one autoencoder, and what classes its latents and the axes of its stream have."""

    def latents_of(model_params, inputs):
        stream = interp.site_activations(run.apply_fn, [site])(model_params, inputs)[0]
        quality = interp.sae_quality(kind, params, stream)
        by_image = interp.sae_encode(kind, params, stream).reshape(len(inputs), -1, len(params["decoder"]))
        return (
            interp.tap("latents", by_image),
            interp.tap("axes", stream.reshape(len(inputs), -1, stream.shape[-1])),
            quality,
        )

    def loss(model_params, inputs):
        return softmax_cross_entropy(run.apply_fn(model_params, inputs), labels).mean()

    quality = jax.jit(latents_of)(run.params, inputs)[2]
    recovered = jax.jit(lambda *args: interp.loss_recovered(loss, {site: (kind, params)}, *args))(run.params, inputs)
    spliced = jax.jit(interp.splice_sae(run.apply_fn, {site: (kind, params)}))(run.params, inputs)
    patterns = {
        name: interp.compute_neuron_activation_patterns(latents_of, run.params, [inputs], name, labels=labels)
        for name in ("latents", "axes")
    }
    metrics = {
        "l0": float(quality.l0),
        "explained_variance": float(quality.explained_variance),
        "dead_share": float(quality.dead_share),
        "loss_recovered": float(recovered.recovered),
        "accuracy_spliced": float(jnp.mean(spliced.argmax(-1) == labels)),
    }
    for name, found in patterns.items():
        metrics[f"{name}_top_purity"] = float(purities(found).mean())
    return metrics, quality, patterns["latents"]


def purities(patterns):
    """Returns the purity of the top images of each unit that is active on all of them."""
    return np.asarray(patterns.classes.top_purity)[np.asarray(patterns.top_values)[:, -1] > 0]


def draw(path, curves, told, images):
    """Writes the figure: training, how often latents are active, and the images that excite the purest."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    plots, pictures = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    explained, often, pure = plots.subplots(1, 3)
    for number, (site, (_, quality, patterns)) in enumerate(told.items()):
        colour = COLOURS[number % len(COLOURS)]
        values = [record[f"train/site_{number}/explained_variance"] for record in curves]
        explained.plot([record["step"] for record in curves], values, label=site, color=colour)
        some = np.asarray(quality.frequencies)
        often.hist(np.log10(some[some > 0]), 25, label=site, color=colour, alpha=0.6)
        pure.hist(purities(patterns), 10, range=(0, 1), label=site, color=colour, alpha=0.6)
    explained.set(title="explained variance in training", xlabel="step", ylim=(0, 1))
    often.set(title="latents by log10 of how often active")
    pure.set(title="latents by purity of their top images")
    for axes in (explained, often, pure):
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    patterns = list(told.values())[-1][2]
    purest = np.argsort(-np.asarray(patterns.classes.top_purity) - 1e-3 * np.asarray(patterns.active_fraction))[:10]
    grid = pictures.subplots(len(purest), 10)
    for row, latent in zip(grid, purest, strict=True):
        for axes, example in zip(row, np.asarray(patterns.top_examples)[latent], strict=False):
            axes.imshow(images[example].squeeze(), cmap="gray_r")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
