"""Zero-shot classification: classes are described by texts, and an image is of the class whose texts are nearest.

A class is told in several templates ("a photo of a {}.", "a drawing of a {}."). With the features f_ct of class c in
template t its weight is their mean direction,

    w_c = n(mean_t n(f_ct)),    n(f) = f / |f|,    score_c(image) = n(f(image)) . w_c

Source: A. Radford et al., Learning transferable visual models from natural language supervision (2021), section 3.1.4.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.evaluation.retrieval import before
from aijax.losses import normalize
from aijax.typing import Array, Bool, Float, Int


def fill_templates(classes: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Returns the texts of each class, `texts[class][template]`.

    Args:
      classes: names.
      templates: texts in which "{}" stands for the name.

    Raises:
      ConfigError: no template, or one that has no place for the name.

    >>> fill_templates(["cat", "dog"], ["a photo of a {}."])
    [['a photo of a cat.'], ['a photo of a dog.']]
    """
    if not templates:
        raise ConfigError("templates: expected at least one, got none")
    for template in templates:
        if template.count("{}") != 1:
            raise ConfigError(f"templates: expected '{{}}' once, where the class stands, got {template!r}")
    return [[template.replace("{}", name) for template in templates] for name in classes]


def class_weights(text_features: Float[Array, "k t d"]) -> Float[Array, "k d"]:
    """Returns the weights of k classes, of length one, from the features of their texts in t templates.

    >>> class_weights(jnp.array([[[2.0, 0.0], [0.0, 3.0]]])).round(3).tolist()
    [[0.7070000171661377, 0.7070000171661377]]
    """
    return normalize(normalize(text_features).mean(axis=1))


def zero_shot_scores(image_features: Float[Array, "b d"], weights: Float[Array, "k d"]) -> Float[Array, "b k"]:
    """Returns the cosine of each image with each class; times the scale of a model they are its logits."""
    return normalize(image_features) @ weights.T


def top_k_accuracy(scores: Float[Array, "b c"], labels: Int[Array, " b"], k: int = 1) -> Float[Array, ""]:
    """Returns the share of examples whose own class is among the k highest scores (of equal ones, the first).

    Raises:
      ConfigError: k below 1 or above the number of classes.

    >>> scores = jnp.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    >>> [float(top_k_accuracy(scores, jnp.array([0, 1]), k)) for k in (1, 2)]
    [0.5, 1.0]
    """
    if not 1 <= k <= scores.shape[-1]:
        raise ConfigError(f"k: expected 1 to {scores.shape[-1]}, the number of classes, got {k}")
    return jnp.mean(among_top(scores, labels, k).astype(scores.dtype))


def among_top(scores: Float[Array, "b c"], labels: Int[Array, " b"], k: int) -> Bool[Array, " b"]:
    """Returns whether an example's own class is among the first k of a stable sort from the highest score."""
    return jax.vmap(lambda row, label: jnp.sum(before(row, label)) < k)(scores, labels)
