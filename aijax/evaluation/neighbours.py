"""Classification by the k nearest examples in the cosine distance, 1 - n(x) . n(y).

Each neighbour votes for its class with weight 1 ("uniform"), 1 / distance ("distance": a neighbour at distance zero
outvotes all others), or exp(cosine / T) ("softmax", as in the evaluation of DINO).

Sources: T. Cover, P. Hart, Nearest neighbor pattern classification (1967); Z. Wu et al., Unsupervised feature learning
via non-parametric instance discrimination (2018), equation 7, for the last.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.indices import check_indices
from aijax.losses import normalize
from aijax.typing import Array, Float, Int

BLOCK_ROWS = 256
WEIGHTS = {"uniform": None, "distance": None, "softmax": None}


def nearest_neighbour_votes(
    train_features: Float[Array, "n d"],
    train_labels: Int[Array, " n"],
    features: Float[Array, "m d"],
    *,
    num_classes: int,
    k: int = 20,
    weights: Literal["uniform", "distance", "softmax"] = "softmax",
    temperature: float = 0.07,
) -> Float[Array, "m c"]:
    """Returns the share of the votes of the k nearest training examples that each class has; its argmax classifies.

    Args:
      train_features, train_labels: examples that vote.
      features: what is classified, `BLOCK_ROWS` rows at a time.
      num_classes: c.
      k: neighbours, 1 to n.
      weights: of a vote, see the module.
      temperature: T, for "softmax".

    Raises:
      ConfigError: k out of range, an unknown kind of weights, a temperature that is not above 0, a label that is none
        of the classes.

    >>> train = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> votes = nearest_neighbour_votes(train, jnp.array([0, 0, 1]), jnp.array([[2.0, 0.0]]), num_classes=2, k=2)
    >>> votes.tolist()
    [[1.0, 0.0]]
    """
    check_indices("train_labels", train_labels, num_classes)
    if not 1 <= k <= len(train_features):
        raise ConfigError(f"k: expected 1 to {len(train_features)}, the number of training examples, got {k}")
    choose(WEIGHTS, weights, "weights")
    if not temperature > 0:
        raise ConfigError(f"temperature: expected a number above 0, got {temperature}")
    train, train_labels = normalize(train_features), jnp.asarray(train_labels)
    near_zero = 4 * jnp.finfo(train.dtype).eps

    def weigh(cosines):
        if weights == "uniform":
            return jnp.ones_like(cosines)
        if weights == "softmax":
            return jnp.exp((cosines - cosines.max()) / temperature)
        distances = jnp.maximum(1 - cosines, 0)
        same = distances <= near_zero
        return jnp.where(same.any(), same, 1 / jnp.where(same, 1, distances))

    def vote(row):
        cosines, nearest = jax.lax.top_k(train @ row, k)
        weight = weigh(cosines)
        return jnp.zeros(num_classes, train.dtype).at[train_labels[nearest]].add(weight / weight.sum())

    return jax.lax.map(vote, normalize(features), batch_size=BLOCK_ROWS)
