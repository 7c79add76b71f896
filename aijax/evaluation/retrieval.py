"""Image-text retrieval with several captions an image: how often what is sought is among the k nearest.

    image -> text     one of the image's own captions is among its k nearest texts
    text -> image     the caption's image is among its k nearest images

An image's rank is the number of foreign texts nearer than its nearest own caption; a caption's, the number of images
nearer than its own; of two equally near the first in order is taken for the nearer. Scores are cosines, a block of rows
at a time; images without captions are left out.

Source: A. Karpathy, L. Fei-Fei, Deep visual-semantic alignments for generating image descriptions (2015), section 4.1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.losses import normalize
from aijax.typing import Array, Bool, Float, Int

BLOCK_ROWS = 512


class RetrievalRanks(NamedTuple):
    """Places, from 0, at which what is sought is found.

    Attributes:
      image_to_text: of each image's nearest own caption, `[m]`; -1 for an image without captions.
      text_to_image: of each caption's image, `[n]`.
    """

    image_to_text: Array
    text_to_image: Array


def retrieval_recall(
    image_features: Float[Array, "m d"],
    text_features: Float[Array, "n d"],
    image_of_text: Int[Array, " n"],
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, Float[Array, ""]]:
    """Returns `{"image_to_text_r1": share, ..., "text_to_image_r1": share, ...}`.

    Args:
      image_features, text_features: need not be of length one.
      image_of_text: the image that each text belongs to.
      ks: how many of the nearest are looked at.

    Raises:
      ConfigError: features of different widths, another number of texts, a k below 1.

    >>> recall = retrieval_recall(jnp.eye(3), jnp.eye(3)[jnp.array([0, 0, 2])], jnp.array([0, 1, 2]), ks=(1,))
    >>> {name: round(float(share), 2) for name, share in recall.items()}
    {'image_to_text_r1': 0.67, 'text_to_image_r1': 0.67}
    """
    ranks = retrieval_ranks(image_features, text_features, image_of_text)
    return {f"{way}_r{k}": recall_at(places, k) for way, places in ranks._asdict().items() for k in ks}


def retrieval_ranks(
    image_features: Float[Array, "m d"], text_features: Float[Array, "n d"], image_of_text: Int[Array, " n"]
) -> RetrievalRanks:
    """Returns the places of what is sought, both ways; arguments and errors as of `retrieval_recall`."""
    if image_features.shape[-1] != text_features.shape[-1] or image_of_text.shape != text_features.shape[:1]:
        raise ConfigError(
            "features: expected [m, d], [n, d] and the image of each of n texts, got "
            f"{list(image_features.shape)}, {list(text_features.shape)} and {list(image_of_text.shape)}"
        )
    images, texts = normalize(image_features), normalize(text_features)

    def of_image(row):
        image, index = row
        scores, own = texts @ image, image_of_text == index
        best = jnp.argmax(jnp.where(own, scores, -jnp.inf))
        return jnp.where(own.any(), jnp.sum(~own & before(scores, best)), -1)

    def of_text(row):
        text, index = row
        scores = images @ text
        return jnp.sum(before(scores, index))

    numbers = jnp.arange(len(images))
    return RetrievalRanks(
        jax.lax.map(of_image, (images, numbers), batch_size=BLOCK_ROWS),
        jax.lax.map(of_text, (texts, image_of_text), batch_size=BLOCK_ROWS),
    )


def before(scores: Float[Array, " n"], place: Int[Array, ""]) -> Bool[Array, " n"]:
    """Returns which scores come before that of `place` in a stable sort from the highest."""
    earlier = jnp.arange(scores.shape[-1]) < place
    return (scores > scores[place]) | (earlier & (scores == scores[place]))


def recall_at(ranks: Int[Array, " n"], k: int) -> Float[Array, ""]:
    """Returns the share of places below k; negative ones are left out.

    >>> float(recall_at(jnp.array([0, 3, -1, 1]), 1)).__round__(2)
    0.33
    """
    if k < 1:
        raise ConfigError(f"k: expected 1 or more, got {k}")
    there = ranks >= 0
    return jnp.sum(there & (ranks < k)) / jnp.sum(there)
