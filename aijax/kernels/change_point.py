"""A kernel that changes along one coordinate."""

import jax

from aijax.errors import ConfigError
from aijax.kernels.base import Kernel
from aijax.parameters import noun, parameter, static
from aijax.typing import Any


@noun
class ChangePoint(Kernel):
    """`(1 - s) k_before (1 - s') + s k_after s'`, `s = sigmoid(steepness (x_column - location))`.

    For several changes put one into another.

    Args:
      before, after: kernels of the same points.
      location: where on the coordinate the change is; default 0.
      steepness: how sudden it is, positive, per unit of the coordinate; default 1.
      column: the coordinate; default 0.

    Source: Lloyd, Duvenaud, Grosse, Tenenbaum and Ghahramani 2014, appendix A; Saatci, Turner and Rasmussen 2010.
    """

    before: Kernel
    after: Kernel
    location: Any = parameter(0.0)
    steepness: Any = parameter(1.0, "positive")
    column: int = static(0)

    def gram(self, x1, x2=None):
        early1, late1 = self._weights(x1)
        early2, late2 = (early1, late1) if x2 is None else self._weights(x2)
        before, after = self.before(x1, x2), self.after(x1, x2)
        return early1[:, None] * before * early2 + late1[:, None] * after * late2

    def gram_diagonal(self, x):
        early, late = self._weights(x)
        return early**2 * self.before.diagonal(x) + late**2 * self.after.diagonal(x)

    def _weights(self, x):
        if not 0 <= self.column < x.shape[1]:
            raise ConfigError(f"column: expected one of the {x.shape[1]} coordinates from 0 on, got {self.column!r}")
        reach = self.steepness * (x[:, self.column] - self.location)
        return jax.nn.sigmoid(-reach), jax.nn.sigmoid(reach)
