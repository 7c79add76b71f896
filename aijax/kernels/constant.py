"""Kernels that look at no coordinate: a constant, and white noise."""

import jax
import jax.numpy as jnp

from aijax.kernels.base import Kernel
from aijax.parameters import noun, parameter
from aijax.typing import Any


class Anywhere(Kernel):
    """A kernel of points of any kind, which only counts them."""

    def points(self, x):
        return x if isinstance(x, list) else jax.tree.map(jnp.asarray, x)

    def gram_diagonal(self, x):
        n, dtype = count(x)
        return jnp.full((n,), self.variance, dtype)


@noun
class Constant(Anywhere):
    """`variance`: a common offset of all values. variance: positive; default 1."""

    variance: Any = parameter(1.0, "positive")

    def gram(self, x1, x2=None):
        n1, dtype = count(x1)
        return jnp.full((n1, n1 if x2 is None else count(x2)[0]), self.variance, dtype)


@noun
class White(Anywhere):
    """`variance` where row and column are the same point of one set, else 0: `kernel(x)` has it on the diagonal, and
    `kernel(x1, x2)` nowhere, whatever the points. variance: positive; default 1."""

    variance: Any = parameter(1.0, "positive")
    differentiable = False

    def gram(self, x1, x2=None):
        n1, dtype = count(x1)
        return jnp.zeros((n1, count(x2)[0]), dtype) if x2 is not None else self.variance * jnp.eye(n1, dtype=dtype)


def count(x: Any) -> tuple[int, jnp.dtype]:
    """Returns how many points x are, and the dtype of a kernel of them."""
    if isinstance(x, list):
        return len(x), jnp.result_type(float)
    leaf = jax.tree.leaves(x)[0]
    return leaf.shape[0], leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.result_type(float)
