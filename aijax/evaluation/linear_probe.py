"""Linear probes: how well classes can be told apart by a linear function of given features, s = x W + b.

Ridge regression to targets t = +1 for the class and -1 for the others has W in closed form. With the means taken off
features and targets (so that b is free), and X the features [n, d]:

    W = (X'X + l2 I)^-1 X'T = X'(XX' + l2 I)^-1 T,       |T - XW|^2 + l2 |W|^2 least

One eigendecomposition, of the smaller of X'X and XX', serves all values of l2: few-shot probes choose it on other
examples. Logistic regression minimises, by L-BFGS,

    sum_i -log softmax(x_i W + b)_y_i + l2 |W|^2 / 2

Sources: A. Dosovitskiy et al., An image is worth 16 x 16 words (2021), appendix D.1.1, few-shot by least squares;
A. Radford et al. (2021), section 3.2, logistic regression.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aijax import losses
from aijax.errors import ConfigError
from aijax.indices import check_indices
from aijax.lbfgs import lbfgs
from aijax.typing import Any, Array, ArrayLike, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """A linear function of features, or several with a first axis of l2.

    Args:
      kernel: W, `[d, k]` or `[l, d, k]`.
      bias: b, `[k]` or `[l, k]`.
    """

    kernel: Array
    bias: Array


def probe_scores(probe: LinearProbe, features: Float[Array, "n d"]) -> Float[Array, "... n k"]:
    """Returns `x W + b`; of several probes, with their axis first."""
    return features @ probe.kernel + probe.bias[..., None, :]


def ridge_probe(
    features: Float[Array, "n d"], labels: Int[Array, " n"], l2: ArrayLike | Sequence[float], *, num_classes: int
) -> LinearProbe:
    """Returns the ridge regression to +1 and -1; for several values of l2, one for each, at the cost of one.

    Args:
      features: `[n, d]`.
      labels: 0 to `num_classes - 1`.
      l2: above 0, a number or `[l]`.
      num_classes: k.

    Raises:
      ConfigError: features and labels of different numbers, a label that is none of the classes.

    >>> probe = ridge_probe(jnp.array([[0.0], [1.0]]), jnp.array([0, 1]), 1e-6, num_classes=2)
    >>> probe_scores(probe, jnp.array([[0.0], [1.0]])).round(3).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    check(features, labels, num_classes)
    targets = 2 * jax.nn.one_hot(labels, num_classes, dtype=features.dtype) - 1
    mean, target_mean = features.mean(axis=0), targets.mean(axis=0)
    x, t = features - mean, targets - target_mean
    n, d = x.shape
    l2 = jnp.asarray(l2, features.dtype)[..., None, None]
    values, vectors = jnp.linalg.eigh(x.T @ x if d <= n else x @ x.T)
    # W = V (values + l2)^-1 V' X'T, or X' V (values + l2)^-1 V' T
    right = vectors.T @ (x.T @ t if d <= n else t)
    kernel = vectors @ (right / (jnp.maximum(values, 0)[:, None] + l2))
    kernel = kernel if d <= n else x.T @ kernel
    return LinearProbe(kernel, target_mean - mean @ kernel)


def logistic_probe(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    l2: ArrayLike = 1.0,
    *,
    num_classes: int,
    **options: Any,
) -> LinearProbe:
    """Returns the multinomial logistic regression; its bias is free.

    Args:
      features: `[n, d]`.
      labels: 0 to `num_classes - 1`.
      l2: of the penalty beside the sum over examples, 1 / C in scikit-learn.
      num_classes: k.
      **options: of `aijax.lbfgs.lbfgs`, such as `max_steps` (default 500) and `tolerance` (default 1e-9).

    Raises:
      ConfigError: features and labels of different numbers, a label that is none of the classes.

    >>> probe = logistic_probe(jnp.array([[0.0], [1.0]]), jnp.array([0, 1]), 0.1, num_classes=2)
    >>> probe_scores(probe, jnp.array([[0.0], [1.0]])).argmax(axis=1).tolist()
    [0, 1]
    """
    check(features, labels, num_classes)
    # of standardised features the problem is better conditioned; the penalty is that of the kernel as it is used
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = jnp.where(deviation > 0, deviation, 1)
    x = (features - mean) / deviation

    def objective(probe):
        data = losses.softmax_cross_entropy(probe_scores(probe, x), labels).sum()
        return (data + 0.5 * l2 * jnp.sum((probe.kernel / deviation[:, None]) ** 2)) / len(x)

    zeros = LinearProbe(jnp.zeros((x.shape[1], num_classes), features.dtype), jnp.zeros(num_classes, features.dtype))
    found = lbfgs(objective, zeros, **{"max_steps": 500, "tolerance": 1e-9, **options}).x
    kernel = found.kernel / deviation[:, None]
    return LinearProbe(kernel, found.bias - mean @ kernel)


def check(features: Array, labels: Array, num_classes: int) -> None:
    """Raises a `ConfigError` for features and labels of different numbers, and a label that is none of the classes."""
    check_indices("labels", labels, num_classes)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ConfigError(f"labels: expected one for each row of features {list(features.shape)}, got {labels.shape}")
