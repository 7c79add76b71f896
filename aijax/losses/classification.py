"""Losses of logits z `[*b, k]` against classes or probabilities y, one value an example; a training loss is their mean.

    softmax cross-entropy   -sum_k y_k log softmax(z)_k,      y <- (1 - s) y + s / k with label smoothing s
    sigmoid cross-entropy   -sum_k y_k log sigmoid(z_k) + (1 - y_k) log sigmoid(-z_k)
    KL divergence            sum_k y_k (log y_k - log softmax(z / T)_k)

Sources: C. Szegedy et al., Rethinking the inception architecture (2016), section 7, label smoothing; G. Hinton et al.,
Distilling the knowledge in a neural network (2015), section 2, temperature; L. Beyer et al., Are we done with ImageNet?
(2020), sigmoid.
"""

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.indices import check_indices
from aijax.typing import Array, Float, Shaped


def softmax_cross_entropy(
    logits: Float[Array, "*b k"], targets: Shaped[Array, "..."], *, label_smoothing: float = 0.0
) -> Float[Array, "*b"]:
    """Returns `-sum_k y_k log softmax(z)_k` of each example.

    Args:
      logits: `[*b, k]`.
      targets: classes, integers `[*b]`, or probabilities `[*b, k]`.
      label_smoothing: s, the share of the target that is spread evenly over all classes, from 0 to below 1.

    Raises:
      ConfigError: a smoothing out of range; targets of another shape.

    >>> softmax_cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))
    Array([1.3862944, 1.3862944], dtype=float32)
    """
    targets = smooth(as_probabilities(targets, logits), label_smoothing)
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def sigmoid_cross_entropy(logits: Float[Array, "*b k"], targets: Shaped[Array, "..."]) -> Float[Array, "*b"]:
    """Returns the cross-entropy of k independent yes-or-no answers, summed over them, of each example.

    Args:
      logits: `[*b, k]`.
      targets: classes, integers `[*b]`, or probabilities of each answer `[*b, k]`.

    Raises:
      ConfigError: targets of another shape.

    >>> sigmoid_cross_entropy(jnp.zeros((1, 2)), jnp.array([[1.0, 1.0]]))
    Array([1.3862944], dtype=float32)
    """
    targets = as_probabilities(targets, logits)
    return jnp.sum(jax.nn.softplus(logits) - targets * logits, axis=-1)


def kl_divergence(
    targets: Float[Array, "*b k"], logits: Float[Array, "*b k"], *, temperature: float = 1.0
) -> Float[Array, "*b"]:
    """Returns `KL(y || softmax(z / T))` of each example; a probability of zero adds nothing.

    Args:
      targets: probabilities y.
      logits: z.
      temperature: T, above 0.

    Raises:
      ConfigError: a temperature that is not above 0; arrays of different shapes.

    >>> kl_divergence(jnp.array([[1.0, 0.0]]), jnp.zeros((1, 2)))
    Array([0.6931472], dtype=float32)
    """
    check_temperature(temperature)
    targets = as_probabilities(targets, logits)
    positive = targets > 0
    own = jnp.where(positive, targets * jnp.log(jnp.where(positive, targets, 1)), 0)
    return jnp.sum(own - targets * jax.nn.log_softmax(logits / temperature), axis=-1)


def distillation_loss(
    logits: Float[Array, "*b k"], teacher_logits: Float[Array, "*b k"], *, temperature: float = 1.0
) -> Float[Array, "*b"]:
    """Returns `T^2 KL(softmax(t / T) || softmax(z / T))` of each example: its gradient is of the same size at every T.

    No gradient flows into the teacher.

    Raises:
      ConfigError: a temperature that is not above 0; arrays of different shapes.

    >>> distillation_loss(jnp.ones((1, 3)), jnp.zeros((1, 3)), temperature=2.0).round(4).tolist()
    [0.0]
    """
    check_temperature(temperature)
    teacher = jax.nn.softmax(jax.lax.stop_gradient(teacher_logits) / temperature)
    return temperature**2 * kl_divergence(teacher, logits, temperature=temperature)


def as_probabilities(targets: Shaped[Array, "..."], logits: Float[Array, "*b k"]) -> Float[Array, "*b k"]:
    """Returns classes `[*b]` as probabilities `[*b, k]`; probabilities are returned as they are.

    A class that is none of the k, where classes are known only inside `jit`, gives NaN.

    Raises:
      ConfigError: targets of another shape, a class that is none of the k.
    """
    targets = jnp.asarray(targets)
    if targets.shape == logits.shape and jnp.issubdtype(targets.dtype, jnp.floating):
        return targets
    if targets.shape != logits.shape[:-1] or not jnp.issubdtype(targets.dtype, jnp.integer):
        raise ConfigError(
            f"targets: expected integers {list(logits.shape[:-1])} or probabilities {list(logits.shape)} for these "
            f"logits, got {targets.dtype} {list(targets.shape)}"
        )
    count = logits.shape[-1]
    check_indices("targets", targets, count)
    known = (targets >= 0) & (targets < count)
    return jnp.where(known[..., None], jax.nn.one_hot(targets, count, dtype=logits.dtype), jnp.nan)


def smooth(probabilities: Float[Array, "*b k"], amount: float) -> Float[Array, "*b k"]:
    """Returns probabilities of which a share `amount` is spread evenly over all classes.

    Raises:
      ConfigError: an amount out of range.
    """
    if not 0 <= amount < 1:
        raise ConfigError(f"label_smoothing: expected 0 or more and below 1, got {amount}")
    return (1 - amount) * probabilities + amount / probabilities.shape[-1]


def check_temperature(temperature: float) -> None:
    """Raises a `ConfigError` for a temperature that is not above 0."""
    if not temperature > 0:
        raise ConfigError(f"temperature: expected a number above 0, got {temperature}")
