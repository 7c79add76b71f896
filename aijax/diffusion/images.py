"""Images on L grey levels: made by a diffusion of [-1, 1], and measured.

Level k of L stands for the bin from -1 + 2 k / L to -1 + 2 (k + 1) / L, over which `dequantise` spreads it; pictures
hold it as k / (L - 1), from 0 to 1.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from aijax.diffusion.guidance import classifier_free_batch
from aijax.diffusion.likelihood import bits_per_dim, dequantise, log_likelihood
from aijax.diffusion.metrics import features, frechet_distance, nearest_distance
from aijax.diffusion.predictions import as_partial
from aijax.diffusion.process import Process
from aijax.diffusion.samplers.sample import sample
from aijax.parallel import cut_rows
from aijax.typing import Any, Array, Callable, Float, Int, Mapping, PRNGKey


def as_levels(images: Any, levels: int = 256) -> Array:
    """Returns images as whole numbers from 0 to `levels` - 1, from uint8 or 0 to 1.

    >>> as_levels(np.array([0.0, 0.4, 1.0]), 3).tolist()
    [0.0, 1.0, 2.0]
    """
    unit = images / 255 if images.dtype == np.uint8 else images
    return jnp.round(unit * (levels - 1))


def on_levels(images: Any, levels: int = 256) -> np.ndarray:
    """Returns images, uint8 or 0 to 1, as pictures: each value the nearest multiple of 1 / (levels - 1)."""
    return np.asarray(as_levels(images, levels)) / (levels - 1)


def as_pictures(x: Any, levels: int = 256) -> np.ndarray:
    """Returns samples as the pictures in whose bins they lie; what is outside of [-1, 1] is at its ends.

    >>> as_pictures(np.array([-1.2, 0.1, 0.9]), 3).tolist()
    [0.0, 0.5, 1.0]
    """
    return np.clip(np.floor((np.asarray(x) + 1) / 2 * levels), 0, levels - 1) / (levels - 1)


def sample_images(
    key: PRNGKey,
    denoise_fn: Callable[[Int[Array, " n"], Array, Array], Array],
    process: Process,
    shape: tuple[int, ...],
    *,
    count: int,
    block: int = 500,
    levels: int = 256,
    classes: int | None = None,
    guidance: float = 1.0,
    **options: Any,
) -> np.ndarray:
    """Returns `count` pictures `[count, *shape]` of all classes in turn.

    Args:
      key: folded with the first number of each block.
      denoise_fn: `(labels [n], x, t) -> E[x_0 given x]`; label `classes` means none. A `jax.tree_util.Partial` of a
        function and its parameters is compiled once.
      process: any process.
      shape: of an image.
      count: how many.
      block: how many at a time, default 500.
      levels: of grey, default 256.
      classes: how many; None for none, and labels of 0.
      guidance: scale of classifier-free guidance; default 1, the class alone.
      **options: sampler, steps, grid and others of `sample`.
    """
    parts = []
    for rows in cut_rows(count, block):
        labels = jnp.arange(rows.start, rows.stop) % (classes or 1)
        told = (_guided, jnp.full_like(labels, classes), guidance) if guidance != 1 else (_told,)
        denoise = jax.tree_util.Partial(*told, as_partial(denoise_fn), labels)
        block_key = jax.random.fold_in(key, rows.start)
        parts.append(as_pictures(sample(block_key, denoise, process, (len(labels), *shape), **options), levels))
    return np.concatenate(parts)


def compare_images(
    pictures: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    classes: int | None = None,
    classifier: tuple[Callable[[Array], Array], Callable[[Array], Array]] | None = None,
) -> dict[str, Array]:
    """Returns measures of pictures by name against test data, and of those against training data for comparison.

    NAME_pixel_frechet_distance and, of a classifier's features, NAME_frechet_distance; NAME_nearest_training_image, the
    mean distance in pixels, which tells memorisation; NAME_class_accuracy, the share that the classifier reads as what
    was asked for, where classes were, in turn.

    Args:
      pictures: `[n, ...]` from 0 to 1, by name.
      data: "train" and "test", likewise.
      classes: how many were asked for in turn; None for none.
      classifier: `images -> logits` and `images -> features`, such as `aijax.train.fit_classifier` makes; None for no
        such measures.
    """
    every = {**data, **pictures}
    flat = {name: jnp.asarray(2 * x - 1, jnp.float32).reshape(len(x), -1) for name, x in every.items()}
    seen = {} if classifier is None else {name: features(classifier[1], x) for name, x in every.items()}
    metrics = {}
    for name in ("test", *pictures):
        other = "train" if name == "test" else "test"
        metrics[f"{name}_pixel_frechet_distance"] = frechet_distance(flat[name], flat[other])
        metrics[f"{name}_nearest_training_image"] = nearest_distance(flat[name], flat["train"])
        if seen:
            metrics[f"{name}_frechet_distance"] = frechet_distance(seen[name], seen[other])
    if classifier is not None and classes is not None:
        for name, x in pictures.items():
            read = features(classifier[0], x).argmax(1)
            metrics[f"{name}_class_accuracy"] = jnp.mean(read == jnp.arange(len(x)) % classes)
    return metrics


def bits_of_images(
    key: PRNGKey,
    denoise_fn: Callable[[Int[Array, " n"] | None, Array, Array], Array],
    process: Process,
    images: Any,
    labels: Int[np.ndarray, " n"] | None = None,
    *,
    levels: int = 256,
    num_probes: int = 1,
    block: int = 128,
) -> Float[np.ndarray, " n"]:
    """Returns bits per dimension of each image given its class: an upper bound, of uniformly dequantised images.

    Args:
      key: of dequantisation and probes.
      denoise_fn: `(labels, x, t) -> E[x_0 given x]`.
      process: any process.
      images: uint8 or from 0 to 1, `[n, ...]`.
      labels: of the images; None for no classes.
      levels: of grey, default 256.
      num_probes: of the divergence, default 1.
      block: images at a time, default 128.
    """

    @jax.jit
    def log_prob(denoise_fn, key, images, labels):
        level_key, probe_key = jax.random.split(key)
        x = dequantise(level_key, as_levels(images, levels), levels=levels)
        denoise = functools.partial(denoise_fn, labels)
        return log_likelihood(probe_key, denoise, process, x, num_probes=num_probes).log_prob

    parts = []
    for rows in cut_rows(len(images), block):
        told = None if labels is None else labels[rows]
        parts.append(log_prob(as_partial(denoise_fn), jax.random.fold_in(key, rows.start), images[rows], told))
    return bits_per_dim(np.concatenate(parts), images[0].size, levels=levels)


def _told(denoise_fn, labels, x, t):
    return denoise_fn(labels, x, t)


def _guided(none, scale, denoise_fn, labels, x, t):
    return classifier_free_batch(lambda x, t, labels: denoise_fn(labels, x, t), labels, none, scale)(x, t)
