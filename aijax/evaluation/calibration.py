"""Calibration: whether a classifier that says 80 % is right 80 times of 100.

Examples are put into bins by their confidence p_i, the probability of the predicted class. With the n_b examples of
bin b, their share of right answers a_b and their mean confidence p_b,

    ECE = sum_b (n_b / n) |a_b - p_b|

A temperature T > 0 makes softmax(z / T) honest without changing an answer: the one of least log loss.

Source: C. Guo et al., On calibration of modern neural networks (2017), equation 3 and section 4.2.
"""

import dataclasses

import jax
import jax.numpy as jnp

from aijax import losses
from aijax.errors import ConfigError
from aijax.lbfgs import lbfgs
from aijax.typing import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reliability:
    """Examples by their confidence, in bins of equal width from 0 to 1: the points of a reliability diagram.

    Args:
      count: examples in each bin, `[bins]`.
      accuracy: their share of right answers; 0 in an empty bin.
      confidence: their mean confidence; 0 in an empty bin.
    """

    count: Array
    accuracy: Array
    confidence: Array


def expected_calibration_error(
    probabilities: Float[Array, "n k"], labels: Int[Array, " n"], *, bins: int = 15
) -> Float[Array, ""]:
    """Returns the mean distance of confidence and accuracy, `sum_b (n_b / n) |a_b - p_b|`.

    Args:
      probabilities: of the classes, rows that sum to one.
      labels: the right classes.
      bins: of equal width from 0 to 1; a bin has its upper end.

    Raises:
      ConfigError: no bins.

    >>> expected_calibration_error(jnp.array([[0.75, 0.25], [0.75, 0.25]]), jnp.array([0, 1])).tolist()
    0.25
    """
    table = reliability(probabilities, labels, bins=bins)
    return jnp.sum(table.count * jnp.abs(table.accuracy - table.confidence)) / jnp.sum(table.count)


def reliability(probabilities: Float[Array, "n k"], labels: Int[Array, " n"], *, bins: int = 15) -> Reliability:
    """Returns accuracy and confidence by bins of confidence; arguments as of `expected_calibration_error`."""
    if bins < 1:
        raise ConfigError(f"bins: expected 1 or more, got {bins}")
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(confidence.dtype)
    place = jnp.clip(jnp.ceil(confidence * bins) - 1, 0, bins - 1).astype(jnp.int32)
    count, rights, total = (
        jnp.zeros(bins, confidence.dtype).at[place].add(x) for x in (jnp.ones_like(right), right, confidence)
    )
    some = jnp.maximum(count, 1)
    return Reliability(count, rights / some, total / some)


def fit_temperature(logits: Float[Array, "n k"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Returns the temperature of least log loss, found by L-BFGS in its logarithm, from exp(-10) to exp(10).

    Args:
      logits: of examples that were not trained on.
      labels: the right classes.

    >>> float(fit_temperature(jnp.array([[4.0, 0.0]] * 4), jnp.array([0, 0, 0, 1]))).__round__(3)
    3.641
    """
    limit = jnp.asarray(10.0, logits.dtype)
    found = lbfgs(
        lambda log_t: negative_log_likelihood(logits * jnp.exp(-log_t), labels),
        jnp.zeros((), logits.dtype),
        lower=-limit,
        upper=limit,
    )
    return jnp.exp(found.x)


def negative_log_likelihood(logits: Float[Array, "n k"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Returns the mean log loss of the right classes."""
    return losses.softmax_cross_entropy(logits, labels).mean()
