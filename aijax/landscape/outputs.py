"""What a generalised Gauss-Newton matrix needs to know of a loss: its curvature in a network's outputs.

    cross_entropy           -log softmax(f)_y          d^2 = diag(p) - p p^T
    binary_cross_entropy    mean_k of -log p(y_k),     d^2 = diag(p (1 - p)) / k,      p = sigmoid(f)
    squared_error           mean_k of (f_k - y_k)^2    d^2 = 2 I / k

each a mean over examples (and over positions, where outputs are `[b, t, k]`). Read as -log p(y | f), up to a constant,
these are exponential families in natural parameters: their curvature does not depend on y, and is the Fisher
information of y (Martens 2020, J. Mach. Learn. Res. 21, section 9.2). Products with it are worked out from p; no loss
is differentiated twice.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import choose
from aijax.typing import Array, Callable, Float, PRNGKey


@dataclass(frozen=True)
class OutputLoss:
    """A loss of outputs `[..., k]`; its derivatives are those of the mean over all axes but the last.

    Attributes:
      curvature: `(outputs, u) -> d^2 loss u`, of one position's loss.
      sampled_gradient: `(key, outputs) -> d loss` at targets drawn from what the outputs say, of one position's loss.
    """

    curvature: Callable[[Array, Array], Array]
    sampled_gradient: Callable[[PRNGKey, Array], Array]


def _softmax_curvature(outputs, u):
    p = jax.nn.softmax(outputs)
    pu = p * u
    return pu - p * jnp.sum(pu, -1, keepdims=True)


def _softmax_draw(key, outputs):
    # by one uniform number a position: one for each output would take several times the memory of the outputs
    p = jax.nn.softmax(outputs)
    places = jax.random.uniform(key, (*outputs.shape[:-1], 1), outputs.dtype)
    total = jnp.cumsum(p, -1)
    drawn = jnp.sum(total < places * total[..., -1:], -1)
    return p - jax.nn.one_hot(drawn, outputs.shape[-1], dtype=outputs.dtype)


def _sigmoid_curvature(outputs, u):
    p = jax.nn.sigmoid(outputs)
    return p * (1 - p) * u / outputs.shape[-1]


def _sigmoid_draw(key, outputs):
    # the gradient of -log p is p - y; the mean over k outputs is that of a likelihood whose temperature is k
    p = jax.nn.sigmoid(outputs)
    return (p - jax.random.bernoulli(key, p)) / outputs.shape[-1] ** 0.5


def _squared_draw(key, outputs):
    return (2 / outputs.shape[-1]) ** 0.5 * jax.random.normal(key, outputs.shape, outputs.dtype)


OUTPUT_LOSSES = {
    "cross_entropy": OutputLoss(_softmax_curvature, _softmax_draw),
    "binary_cross_entropy": OutputLoss(_sigmoid_curvature, _sigmoid_draw),
    "squared_error": OutputLoss(lambda outputs, u: 2 * u / outputs.shape[-1], _squared_draw),
}


def output_curvature(loss: str, outputs: Float[Array, "... k"], u: Float[Array, "... k"]) -> Float[Array, "... k"]:
    """Returns the product of u with the second derivative of the mean loss by the outputs.

    >>> output_curvature("squared_error", jnp.zeros((2, 1)), jnp.ones((2, 1))).tolist()
    [[1.0], [1.0]]
    """
    return choose(OUTPUT_LOSSES, loss, "loss").curvature(outputs, u) / _positions(outputs)


def sampled_curvature(
    key: PRNGKey, loss: str, outputs: Float[Array, "... k"], u: Float[Array, "... k"]
) -> Float[Array, "... k"]:
    """Returns an unbiased estimate of `output_curvature`: at each position `g g^T u` for a drawn target."""
    gradient = choose(OUTPUT_LOSSES, loss, "loss").sampled_gradient(key, outputs)
    return gradient * jnp.sum(gradient * u, -1, keepdims=True) / _positions(outputs)


def _positions(outputs):
    return outputs.size // outputs.shape[-1]
