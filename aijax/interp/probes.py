"""Probes: what can be read off activations, and how much of that is the probe's own doing.

    logistic          sum_i -log p(y_i | x_i) + |W|^2 / (2 C) least, the bias free; of two classes one weight vector
    ridge             |T - X W - b|^2 + l2 |W|^2 least, T one row of 0 and a 1 for each label
    mean difference   w = mean(x | 1) - mean(x | 0)
    LDA               w = S^-1 (mean(x | 1) - mean(x | 0)), S the covariance within classes, over n less their number
    MLP               a hidden layer of relu, by full-batch L-BFGS: what is there, but not linearly

A probe that is accurate may have learnt the task by itself. Its selectivity is its accuracy less that of the same probe
trained on control labels: labels drawn at random, one for each type of input (J. Hewitt and P. Liang, Designing and
interpreting probes with control tasks (2019), sections 2 and 3).

Linear probes are those of `aijax.evaluation`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from aijax import losses
from aijax.errors import ConfigError, DataError
from aijax.evaluation.linear_probe import LinearProbe, check, logistic_probe, probe_scores, ridge_probe
from aijax.indices import check_indices
from aijax.lbfgs import lbfgs
from aijax.linalg.vectors import check_count
from aijax.typing import Any, Array, Bool, Callable, Float, Int, PRNGKey


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MLPProbe:
    """A network of one hidden layer on standardised activations, `relu((x - mean) / deviation V + a) W + b`.

    Args:
      mean, deviation: of the activations, `[d]`.
      hidden: V and a.
      output: W and b.
    """

    mean: Array
    deviation: Array
    hidden: LinearProbe
    output: LinearProbe


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Selectivity:
    """Accuracies of a probe on held-out examples.

    Args:
      accuracy: on the labels.
      control_accuracy: of the same probe on control labels.
      selectivity: the first less the second.
    """

    accuracy: Array
    control_accuracy: Array
    selectivity: Array


def probe_logits(probe: LinearProbe | MLPProbe, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
    """Returns the scores of the classes; of logistic and MLP probes their softmax is the probability."""
    if isinstance(probe, LinearProbe):
        return probe_scores(probe, x)
    hidden = jax.nn.relu(probe_scores(probe.hidden, (x - probe.mean) / probe.deviation))
    return probe_scores(probe.output, hidden)


def fit_logistic(
    x: Float[Array, "n d"], labels: Int[Array, " n"], *, num_classes: int, C: float = 1.0, **options: Any
) -> LinearProbe:
    """Returns the logistic regression.

    Args:
      x: activations.
      labels: 0 to `num_classes - 1`.
      num_classes: k; of two, the penalty is that of the one vector `W_1 - W_0`, as in scikit-learn.
      C: the inverse strength of the penalty, beside the sum over examples.
      options: of `aijax.lbfgs.lbfgs`.

    Raises:
      ConfigError: a strength that is not positive, labels that are not one for each row or outside of the classes;
        inside of `jit` these give NaN.
    """
    _check(x, labels, num_classes)
    if isinstance(C, int | float) and not C > 0:
        raise ConfigError(f"C: expected a number above 0, got {C}")
    # of two classes W_1 = -W_0 at the minimum, and |W_1 - W_0|^2 = 2 (|W_0|^2 + |W_1|^2)
    l2 = (2 if num_classes == 2 else 1) / C
    return logistic_probe(x, labels, l2, num_classes=num_classes, **options)


def fit_ridge(x: Float[Array, "n d"], labels: Int[Array, " n"], *, num_classes: int, l2: float = 1.0) -> LinearProbe:
    """Returns the ridge regression to 0 and 1, one against all.

    Raises: as `fit_logistic`.

    >>> probe = fit_ridge(jnp.array([[0.0], [1.0]]), jnp.array([0, 1]), num_classes=2, l2=1e-6)
    >>> probe_logits(probe, jnp.array([[1.0]])).round(3).tolist()
    [[0.0, 1.0]]
    """
    _check(x, labels, num_classes)
    signed = ridge_probe(x, labels, l2, num_classes=num_classes)  # to -1 and 1
    return LinearProbe(signed.kernel / 2, (signed.bias + 1) / 2)


def mean_difference(
    x: Float[Array, "n d"], labels: Int[Array, " n"], *, num_classes: int = 2, classes: tuple[int, int] = (0, 1)
) -> Float[Array, " d"]:
    """Returns the direction from the mean of the first class to that of the second, NaN where one has no rows.

    Raises: as `fit_logistic`.

    >>> mean_difference(jnp.array([[0.0, 1.0], [2.0, 1.0]]), jnp.array([0, 1])).tolist()
    [2.0, 0.0]
    """
    _check(x, labels, num_classes)
    means, _ = _class_means(x, labels, num_classes)
    return means[classes[1]] - means[classes[0]]


def lda_direction(
    x: Float[Array, "n d"], labels: Int[Array, " n"], *, num_classes: int = 2, classes: tuple[int, int] = (0, 1)
) -> Float[Array, " d"]:
    """Returns the direction of linear discriminant analysis between two of the classes; the covariance is that within
    all classes, `sum_i (x_i - mean_(y_i))(x_i - mean_(y_i))' / (n - num_classes)`.

    Raises: as `fit_logistic`; a covariance without inverse gives what is not finite.
    """
    _check(x, labels, num_classes)
    means, own = _class_means(x, labels, num_classes)
    covariance = (x - own).T @ (x - own) / (len(x) - num_classes)
    return jnp.linalg.solve(covariance, means[classes[1]] - means[classes[0]])


def fit_mlp(
    key: PRNGKey,
    x: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    num_classes: int,
    width: int = 64,
    l2: float = 1.0,
    **options: Any,
) -> MLPProbe:
    """Returns a network of one hidden layer.

    Args:
      key: of the weights at the start.
      x: activations.
      labels: 0 to `num_classes - 1`.
      num_classes: k.
      width: hidden units: fewer make the probe more selective.
      l2: of the penalty `l2 (|V|^2 + |W|^2) / 2` beside the sum over examples.
      options: of `aijax.lbfgs.lbfgs`, such as `max_steps` (default 200).

    Raises: as `fit_logistic`.
    """
    _check(x, labels, num_classes)
    check_count("width", width)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation = jnp.where(deviation > 0, deviation, 1)
    hidden_key, output_key = jax.random.split(key)

    def layer(key, d_in, d_out):
        kernel = jax.random.normal(key, (d_in, d_out), x.dtype) * jnp.sqrt(2 / d_in).astype(x.dtype)
        return LinearProbe(kernel, jnp.zeros(d_out, x.dtype))

    def build(layers):
        return MLPProbe(mean, deviation, *layers)

    def objective(layers):
        data = losses.softmax_cross_entropy(probe_logits(build(layers), x), labels).sum()
        return (data + 0.5 * l2 * sum(jnp.sum(one.kernel**2) for one in layers)) / len(x)

    start = layer(hidden_key, x.shape[1], width), layer(output_key, width, num_classes)
    return build(lbfgs(objective, start, **{"max_steps": 200, **options}).x)


def control_labels(key: PRNGKey, types: Int[Array, " n"], *, num_types: int, num_classes: int) -> Int[Array, " n"]:
    """Returns control labels: each type of input, such as a word, has one label, drawn uniformly.

    Args:
      key: of the labels.
      types: 0 to `num_types - 1`; `jnp.arange(n)` draws one for each example.
      num_types: how many.
      num_classes: k.

    >>> labels = control_labels(jax.random.key(0), jnp.array([0, 1, 0]), num_types=2, num_classes=10)
    >>> bool(labels[0] == labels[2])
    True
    """
    check_indices("types", types, num_types)
    return jax.random.randint(key, (num_types,), 0, num_classes).at[types].get(mode="fill", fill_value=-1)


def selectivity(
    fit: Callable[[Array, Array], LinearProbe | MLPProbe],
    x: Float[Array, "n d"],
    labels: Int[Array, " n"],
    control: Int[Array, " n"],
    train: Bool[Array, " n"],
) -> Selectivity:
    """Returns how much better a probe is at its task than at a control task.

    Args:
      fit: `fit(x, labels) -> probe`, such as `functools.partial(fit_logistic, num_classes=3)`.
      x: activations.
      labels: of the task.
      control: control labels, as from `control_labels`.
      train: which examples to fit on; accuracies are those on the others. Known outside of `jit`.

    Raises:
      DataError: no example to fit on or none to measure on.
    """
    train = np.asarray(train, bool)
    if train.all() or not train.any():
        raise DataError(f"train: expected some examples of {train.size} to fit on and some not, got {train.sum()}")

    def accuracy(labels):
        return probe_accuracy(fit(x[train], labels[train]), x[~train], labels[~train])

    real, random = accuracy(labels), accuracy(control)
    return Selectivity(real, random, real - random)


def probe_accuracy(probe: LinearProbe | MLPProbe, x: Float[Array, "n d"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Returns the share of rows whose largest score is that of their label."""
    return jnp.mean(jnp.argmax(probe_logits(probe, x), axis=-1) == labels)


def _check(x, labels, num_classes):
    check_count("num_classes", num_classes, least=2)
    check(x, labels, num_classes)


def _class_means(x, labels, num_classes):
    """Returns the mean of each class, and that of each row's class, NaN for labels that are none of the classes."""
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=x.dtype)
    means = one_hot.T @ x / one_hot.sum(axis=0)[:, None]
    return means, means.at[labels].get(mode="fill", fill_value=jnp.nan)
