"""Losses of pairs of features (x_i, y_i), i = 1..b: each x is to be nearest to its own y, and each y to its own x.

With the logits `l_ij = scale x_i . y_j + bias`:

    softmax   (1/2b) sum_i [-log softmax_j(l_ij)_i - log softmax_j(l_ji)_i]      (Radford et al. 2021, CLIP, figure 3)
    sigmoid   (1/b) sum_ij -log sigmoid(s_ij l_ij),   s_ii = 1, s_ij = -1        (Zhai et al. 2023, SigLIP, equation 1)

A bias moves no softmax. The scale is the inverse temperature; both are learned, the scale by its logarithm. Features
are taken as they are given: `normalize` them first. Here the b x b logits are held whole, on one device;
`aijax.losses.ring` holds a block of them at a time.
"""

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.typing import Array, ArrayLike, Float

INITIAL_SOFTMAX_SCALE = 1 / 0.07
"""The scale that CLIP begins with (Radford et al. 2021, section 2.5)."""
INITIAL_SIGMOID_SCALE, INITIAL_SIGMOID_BIAS = 10.0, -10.0
"""The scale and the bias that SigLIP begins with (Zhai et al. 2023, section 3.2)."""


def softmax_contrastive_loss(
    image: Float[Array, "b d"], text: Float[Array, "b d"], scale: Float[ArrayLike, ""] = 1.0
) -> Float[Array, ""]:
    """Returns the loss of CLIP: the mean cross-entropy of finding the text of each image and the image of each text.

    Args:
      image, text: features, row i of one belonging to row i of the other.
      scale: inverse temperature.

    Raises:
      ConfigError: features that are not pairs.

    >>> softmax_contrastive_loss(jnp.eye(2), jnp.eye(2), 100.0).tolist()
    0.0
    """
    check_pairs(image, text)
    logits = scale * image @ text.T
    found_text = jax.nn.logsumexp(logits, axis=1)
    found_image = jax.nn.logsumexp(logits, axis=0)
    return jnp.mean(0.5 * (found_text + found_image) - jnp.diagonal(logits))


def sigmoid_contrastive_loss(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    scale: Float[ArrayLike, ""] = 1.0,
    bias: Float[ArrayLike, ""] = 0.0,
) -> Float[Array, ""]:
    """Returns the loss of SigLIP: whether each image belongs to each text, summed over texts, its mean over images.

    Args:
      image, text: features, row i of one belonging to row i of the other.
      scale: inverse temperature.
      bias: of the logits; -10 at first, since most pairs do not belong together.

    Raises:
      ConfigError: features that are not pairs.

    >>> sigmoid_contrastive_loss(jnp.eye(2), jnp.eye(2), 200.0, -100.0).tolist()
    0.0
    """
    check_pairs(image, text)
    logits = scale * image @ text.T + bias
    apart = 1 - 2 * jnp.eye(len(image), dtype=logits.dtype)
    return jnp.sum(jax.nn.softplus(apart * logits)) / len(image)


def normalize(features: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Returns features of length one; features of zero stay zero, and so does their gradient.

    >>> normalize(jnp.array([[0.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    squared = jnp.sum(features**2, axis=-1, keepdims=True)
    return jnp.where(squared > 0, features * jax.lax.rsqrt(jnp.where(squared > 0, squared, 1)), 0)


def check_pairs(image: Float[Array, "b d"], text: Float[Array, "b d"]) -> None:
    """Raises a `ConfigError` for features that are not pairs."""
    if image.ndim != 2 or image.shape != text.shape:
        raise ConfigError(f"features: expected pairs of shape [b, d], got {list(image.shape)} and {list(text.shape)}")
