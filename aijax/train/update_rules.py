"""Update rules that optax has not, or has with another meaning of a number, as optax transformations.

    sgd         d <- g + w p,  v <- m v + d,  p <- p - r v  (Nesterov: p - r (d + m v)): the decay w is that of a
                penalty w |p|^2 / 2, and so passes through the momentum
    amsgrad     Adam whose denominator never falls: s <- max(s, v),  p <- p - r (m' / (sqrt(s / (1 - b2^t)) + e) + w p)
                with v as it is accumulated, before its bias is corrected, and m' after
    adafactor   optax's, with a decay w that is multiplied by the learning rate, p <- p - r (u + w p), as of all others

Sources: S. J. Reddi, S. Kale, S. Kumar, On the convergence of Adam and beyond (2018); N. Shazeer, M. Stern, Adafactor
(2018); I. Loshchilov, F. Hutter, Decoupled weight decay regularization (2019).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from aijax.typing import Array, Params


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float | None = None,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Returns gradient descent with momentum and the gradient of an L2 penalty."""
    descent = optax.sgd(learning_rate, momentum, nesterov)
    return optax.chain(optax.add_decayed_weights(weight_decay), descent) if weight_decay else descent


def amsgrad(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Returns AdamW with the largest second moment so far in the denominator."""
    return optax.chain(
        scale_by_largest_moment(b1, b2, eps),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def adafactor(
    learning_rate: optax.ScalarOrSchedule,
    min_dim_size_to_factor: int = 128,
    decay_rate: float = 0.8,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: float | None = 1.0,
    momentum: float | None = None,
    dtype_momentum: str = "float32",
    eps: float = 1e-30,
    factored: bool = True,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Returns Adafactor: matrices keep the row and column means of their squared gradients (`optax.adafactor`)."""
    update = optax.adafactor(
        learning_rate,
        min_dim_size_to_factor,
        decay_rate,
        decay_offset,
        multiply_by_parameter_scale,
        clipping_threshold,
        momentum,
        jnp.dtype(dtype_momentum),
        eps=eps,
        factored=factored,
    )
    return optax.chain(update, decay_at_rate(learning_rate, weight_decay)) if weight_decay else update


class LargestMoment(NamedTuple):
    """Steps made, the moments, and the largest second moment so far."""

    count: Array
    first: Params
    second: Params
    largest: Params


def scale_by_largest_moment(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Returns the scaling of AMSGrad, without learning rate or decay."""

    def init(params: Params) -> LargestMoment:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return LargestMoment(jnp.zeros((), jnp.int32), zeros, zeros, zeros)

    def update(grads, state, params=None):
        count = state.count + 1
        first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.first, grads)
        second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.second, grads)
        largest = jax.tree.map(jnp.maximum, state.largest, second)

        def scaled(m, s):
            t = count.astype(m.dtype)
            return m / (1 - b1**t) / (jnp.sqrt(s / (1 - b2**t)) + eps)

        return jax.tree.map(scaled, first, largest), LargestMoment(count, first, second, largest)

    return optax.GradientTransformation(init, update)


def decay_at_rate(learning_rate: optax.ScalarOrSchedule, weight_decay: float) -> optax.GradientTransformation:
    """Returns what adds `-learning_rate * weight_decay * parameter` to updates."""

    def update(updates, count, params):
        rate = learning_rate(count) if callable(learning_rate) else learning_rate
        return jax.tree.map(lambda u, p: u - rate * weight_decay * p, updates, params), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
