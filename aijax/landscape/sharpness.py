"""Sharpness: how much the loss rises near a solution.

sam         L(theta + rho g / |g|) - L(theta)                                       (Foret et al. 2021)
adaptive    L(theta + rho T^2 g / |T g|) - L(theta),      T = |theta| + eta          (Kwon et al. 2021)
average     E L(theta + sigma e) - L(theta),      e standard normal

Where the gradient is zero there is no step to take, and the first two are zero.
"""

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.landscape.operators import LossFn, mean_loss
from aijax.linalg.trace import Estimate
from aijax.linalg.vectors import norm, random_like
from aijax.typing import Any, Array, Params, PRNGKey, PyTree


def sam_sharpness(loss_fn: LossFn, params: Params, batches: Any, rho: float = 0.05) -> Array:
    """Returns the rise of the mean loss after a step of length rho along its gradient.

    Args:
      loss_fn: `(params, batch)` to the mean loss of the batch.
      params: where.
      batches: one batch, or a list of batches.
      rho: length of the step; default 0.05.

    Raises:
      ConfigError: a rho that is not positive, a loss that is no scalar.

    >>> round(float(sam_sharpness(lambda w, x: jnp.mean(x * w**2), jnp.ones(()), jnp.ones(1), 0.5)), 4)
    1.25
    """
    slope = _gradient(loss_fn, params, batches, rho)
    factor = _step_over(rho, norm(slope))
    return _rise(loss_fn, params, batches, jax.tree.map(lambda g: g * factor, slope))


def adaptive_sharpness(loss_fn: LossFn, params: Params, batches: Any, rho: float = 0.5, eta: float = 0.01) -> Array:
    """Returns the same where each parameter is measured by its own size, so that rescaled layers are as sharp.

    Args: as `sam_sharpness`; eta: added to the size of each parameter; default 0.01.

    Source: Kwon, Kim, Park and Choi 2021, equation 7, with elementwise normalisation.
    """
    slope = _gradient(loss_fn, params, batches, rho)
    sizes = jax.tree.map(lambda p: jnp.abs(p) + eta, params)
    factor = _step_over(rho, norm(jax.tree.map(jnp.multiply, sizes, slope)))
    return _rise(loss_fn, params, batches, jax.tree.map(lambda t, g: t**2 * g * factor, sizes, slope))


def average_sharpness(
    loss_fn: LossFn,
    params: Params,
    batches: Any,
    sigma: float = 0.01,
    *,
    key: PRNGKey | None = None,
    num_samples: int = 16,
    noise: PyTree | None = None,
) -> Estimate:
    """Returns the mean rise of the loss under normal noise of the parameters, with its standard error.

    Args:
      loss_fn, params, batches: as `sam_sharpness`.
      sigma: standard deviation of the noise; default 0.01.
      key: for the noise; None where it is given.
      num_samples: how many draws.
      noise: standard normal draws in place of random ones, a tree like `params` with a first axis that counts them.

    Raises:
      ConfigError: neither key nor noise.
    """
    if noise is None:
        if key is None:
            raise ConfigError("key: noise is drawn at random; give a key, such as jax.random.key(0)")
        noise = jax.vmap(lambda key: random_like(key, params))(jax.random.split(key, num_samples))
    rises = jax.lax.map(lambda e: _rise(loss_fn, params, batches, jax.tree.map(lambda leaf: sigma * leaf, e)), noise)
    return Estimate(rises.mean(), rises.std(ddof=1) / len(rises) ** 0.5)


def _gradient(loss_fn, params, batches, rho):
    if not rho > 0:
        raise ConfigError(f"rho: expected a positive length, got {rho!r}")
    return jax.grad(lambda p: mean_loss(loss_fn, p, batches))(params)


def _step_over(rho, length):
    """The factor that makes a step of length rho of a vector, 0 where it has none."""
    return jnp.where(length > 0, rho / jnp.where(length > 0, length, 1), 0)


def _rise(loss_fn, params, batches, step):
    there = jax.tree.map(jnp.add, params, step)
    return mean_loss(loss_fn, there, batches) - mean_loss(loss_fn, params, batches)
