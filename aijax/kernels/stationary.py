"""Kernels of the distance between two points."""

import jax.numpy as jnp

from aijax.kernels.base import Kernel
from aijax.parameters import noun, parameter
from aijax.typing import Any


@noun
class RBF(Kernel):
    """`variance exp(-r^2 / 2)`, `r = |(x - x') / lengthscale|`."""

    lengthscale: Any = parameter(1.0, "positive")
    variance: Any = parameter(1.0, "positive")

    def gram(self, x1, x2=None):
        x2 = x1 if x2 is None else x2
        difference = (x1[:, None] - x2[None]) / self.lengthscale
        return self.variance * jnp.exp(-0.5 * jnp.sum(difference**2, -1))

    def diagonal(self, x):
        x = self.points(x)
        return self.variance * jnp.ones(x.shape[:1], x.dtype)
