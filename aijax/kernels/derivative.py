"""Observations of derivatives: the covariance of values and partial derivatives of f, for any kernel.

    cov(df(x)/dx_a, f(z)) = dk(x, z)/dx_a,    cov(df(x)/dx_a, df(z)/dz_b) = d2 k(x, z) / dx_a dz_b

Row i of a Gram matrix depends on point i alone. So two nested derivatives of the whole matrix, along the direction of
what was observed at each row and at each column, give all four blocks at once, whatever the kernel is made of.
Rasmussen and Williams 2006, section 9.4; Solak et al. 2003.
"""

import dataclasses

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.kernels.base import Kernel, as_points
from aijax.kernels.indexed import split_index, with_index
from aijax.parameters import noun
from aijax.typing import Any, Array, Float, Int


@noun
class Derivative(Kernel):
    """The kernel of values and partial derivatives of a function that has `kernel`.

    Points are `[n, d + 1]`: the last column says what was observed there, 0 for the value, i from 1 to d for the
    partial derivative along coordinate i. `with_derivative` and `with_all_derivatives` make them.

    Args:
      kernel: of points `[n, d]`; its samples must have derivatives, so Matern12 and the like are refused.

    Raises:
      ConfigError: a kernel without derivatives, or a last column that says something else.

    >>> from aijax import kernels
    >>> kernel = kernels.Derivative(kernels.Matern32(lengthscale=2.0))
    >>> kernel.diagonal(kernels.with_all_derivatives(jnp.zeros((1, 2)))).round(6).tolist()
    [1.0, 0.75, 0.75]
    """

    kernel: Kernel

    def check(self):
        rough = _rough(self.kernel)
        if rough is not None:
            raise ConfigError(f"kernel: expected one whose samples have derivatives, got {type(rough).__name__}")

    def gram(self, x1, x2=None):
        points1, index1, toward1 = self._observed(x1)
        points2, index2, toward2 = (points1, index1, toward1) if x2 is None else self._observed(x2)
        (k, d1), (d2, d12) = _with_derivatives(self.kernel, points1, points2, toward1, toward2)
        row, column = (index1 > 0)[:, None], index2 > 0
        return jnp.where(row, jnp.where(column, d12, d1), jnp.where(column, d2, k))

    def _observed(self, x):
        """Returns the points, what was observed at each, and the direction in which that is a derivative."""
        points, index = split_index(x, x.shape[1], "the value (0) or a partial derivative (1 to d)")
        return points, index, jax.nn.one_hot(index - 1, points.shape[1], dtype=x.dtype)


def with_derivative(x: Float[Array, "n d"], index: Int[Array, "n"] | int) -> Float[Array, "n d+1"]:
    """Returns points for `Derivative`: x and one more column, what is observed there: 0 the value, i the partial
    derivative along coordinate i (from 1 on). index: one for all, or `[n]`."""
    x = as_points(x)
    return with_index(x, index, x.shape[1] + 1)


def with_all_derivatives(x: Float[Array, "n d"]) -> Float[Array, "n*(d+1) d+1"]:
    """Returns points for `Derivative` where everything is observed: value, then partial derivatives, of each point.

    >>> with_all_derivatives(jnp.array([5.0, 6.0])).tolist()
    [[5.0, 0.0], [5.0, 1.0], [6.0, 0.0], [6.0, 1.0]]
    """
    x = as_points(x)
    observed = x.shape[1] + 1
    return with_derivative(jnp.repeat(x, observed, 0), jnp.tile(jnp.arange(observed), len(x)))


@jax.jit
def _with_derivatives(kernel, x1, x2, toward1, toward2):
    def along_rows(x2):
        return jax.jvp(lambda x1: kernel(x1, x2), (x1,), (toward1,))

    return jax.jvp(along_rows, (x2,), (toward2,))


def _rough(node: Any) -> Kernel | None:
    """Returns a kernel within `node` whose samples have no derivatives."""
    if isinstance(node, tuple):
        return next((found for child in node if (found := _rough(child)) is not None), None)
    if not isinstance(node, Kernel):
        return None
    return _rough(tuple(getattr(node, f.name) for f in dataclasses.fields(node))) if node.differentiable else node
