"""What may be done to a prediction of x_0 in mid-run, where the data are known to be bounded."""

import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.parameters import noun, static
from aijax.typing import Array


@noun
class Clip:
    """Static thresholding: x_0 is clipped to [-limit, limit].

    >>> Clip()(jnp.array([[2.0, 0.5]])).tolist()
    [[1.0, 0.5]]
    """

    limit: float = static(1.0)

    def check(self):
        if not self.limit > 0:
            raise ConfigError(f"limit: expected a positive number, got {self.limit}")

    def __call__(self, x0: Array) -> Array:
        return jnp.clip(x0, -self.limit, self.limit)


@noun
class DynamicThreshold:
    """Each sample is clipped to [-s, s] and divided by s, the `quantile` of its absolute values held within [1, limit].

    Args:
      quantile: default 0.995.
      limit: the greatest s, default 1.

    Source: Saharia et al. 2022, Imagen, section 2.3.

    >>> DynamicThreshold(1.0, 4.0)(jnp.array([[2.0, -1.0]])).tolist()
    [[1.0, -0.5]]
    """

    quantile: float = static(0.995)
    limit: float = static(1.0)

    def check(self):
        if not 0 < self.quantile <= 1:
            raise ConfigError(f"quantile: expected a number above 0, at most 1, got {self.quantile}")
        if not self.limit >= 1:
            raise ConfigError(f"limit: expected a number of at least 1, got {self.limit}")

    def __call__(self, x0: Array) -> Array:
        size = jnp.quantile(jnp.abs(x0).reshape(len(x0), -1), self.quantile, axis=1)
        size = jnp.clip(size, 1, self.limit).reshape(-1, *[1] * (x0.ndim - 1))
        return jnp.clip(x0, -size, size) / size
