"""Sharpness-aware minimisation: descend by the gradient where the loss is highest nearby.

    e = rho g(p) / |g(p)|,        p <- p - r g(p + e)

so that minima are sought whose surroundings are low too. A step costs two gradients.

Source: P. Foret et al., Sharpness-aware minimization for efficiently improving generalization (2021), algorithm 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from aijax.errors import ConfigError


def sharpness_aware(gradient: Callable, radius: float) -> Callable:
    """Returns the gradient at the worst nearby point, to first order.

    Args:
      gradient: `gradient(params, batch, key) -> (grads, metrics)`.
      radius: rho, the distance of that point, above 0; 0.05 to 0.5 are usual.

    Returns:
      `gradient(params, batch, key)`; both evaluations have the same key, and the metrics are those of the first, at
      the parameters themselves.

    Raises:
      ConfigError: a radius that is not above 0.

    >>> steep = sharpness_aware(lambda params, batch, key: (params**2, {}), 0.5)
    >>> float(steep(jnp.array(1.0), None, None)[0])
    2.25
    """
    if not radius > 0:
        raise ConfigError(f"radius: expected a distance above 0, got {radius}")

    def worst(params, batch, key):
        grads, metrics = gradient(params, batch, key)
        length = optax.tree.norm(grads)
        scale = jnp.where(length > 0, radius / jnp.where(length > 0, length, 1), 0)
        nearby = jax.tree.map(lambda p, g: p + (scale * g).astype(p.dtype), params, grads)
        return gradient(nearby, batch, key)[0], metrics

    return worst
