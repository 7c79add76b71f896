"""Kernels of transformed points, `k(g(x), g(x'))`: a linear map, some columns, or any function (deep kernels)."""

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.kernels.base import Kernel
from aijax.parameters import noun, parameter, static
from aijax.typing import Any, Callable


@noun
class LinearMap(Kernel):
    """`k(M x, M x')`; with `M = diag(1 / lengthscale)` it is what ARD does, and with fewer rows than columns an
    active subspace.

    Args:
      kernel: of points `[n, e]`.
      matrix: M, `[e, d]`.

    >>> from aijax.kernels.stationary import RBF
    >>> LinearMap(RBF(), [[1.0, -1.0]])(jnp.array([[1.0, 1.0], [2.0, 2.0]])).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """

    kernel: Kernel
    matrix: Any = parameter()

    def gram(self, x1, x2=None):
        return self.kernel(self._map(x1), None if x2 is None else self._map(x2))

    def gram_diagonal(self, x):
        return self.kernel.diagonal(self._map(x))

    def _map(self, x):
        matrix = jnp.asarray(self.matrix, x.dtype)
        if matrix.ndim != 2 or matrix.shape[1] != x.shape[1]:
            raise ConfigError(f"matrix: expected [e, {x.shape[1]}] for points of {x.shape}, got {matrix.shape}")
        return jnp.matmul(x, matrix.T, precision="highest")


@noun
class Columns(Kernel):
    """`k(x_columns, x'_columns)`: a kernel that looks at some coordinates only. columns: indices from 0 on.

    >>> from aijax.kernels.stationary import RBF, Matern32
    >>> additive = Columns(RBF(), (0, 1)) + Columns(Matern32(), (2,))
    >>> additive(jnp.zeros((4, 3))).shape
    (4, 4)
    """

    kernel: Kernel
    columns: tuple[int, ...] = static()

    def check(self):
        columns = (self.columns,) if isinstance(self.columns, int) else tuple(self.columns)
        if not columns or not all(isinstance(c, int) and c >= 0 for c in columns) or len(set(columns)) < len(columns):
            raise ConfigError(f"columns: expected distinct indices from 0 on, got {self.columns!r}")
        object.__setattr__(self, "columns", columns)

    def gram(self, x1, x2=None):
        return self.kernel(self._select(x1), None if x2 is None else self._select(x2))

    def gram_diagonal(self, x):
        return self.kernel.diagonal(self._select(x))

    def _select(self, x):
        if max(self.columns) >= x.shape[1]:
            raise ConfigError(f"columns: expected some of the {x.shape[1]} coordinates from 0 on, got {self.columns}")
        return x[:, jnp.array(self.columns)]


@noun
class Warped(Kernel):
    """`k(g(x), g(x'))` for any function g: a deep kernel where g is a network and `params` its parameters.

    Args:
      kernel: of what `fn` returns.
      fn: `fn(params, x)`, or `fn(x)` where there are no parameters, of a batch of points: each row of its result is a
        function of that row of x. It is fixed: a new function compiles anew.
      params: any tree of arrays, which a fit may change; a noun where some are constrained; None where there are none.

    Source: Wilson, Hu, Salakhutdinov and Xing 2016, equation 5.

    >>> from aijax.kernels.stationary import RBF
    >>> Warped(RBF(), lambda params, x: jnp.tanh(x @ params), jnp.ones((2, 1)))(jnp.zeros((3, 2))).shape
    (3, 3)
    """

    kernel: Kernel
    fn: Callable[..., Any] = static()
    params: Any = None

    def points(self, x):
        return jax.tree.map(jnp.asarray, x)

    def gram(self, x1, x2=None):
        return self.kernel(self._warp(x1), None if x2 is None else self._warp(x2))

    def gram_diagonal(self, x):
        return self.kernel.diagonal(self._warp(x))

    def _warp(self, x):
        return self.fn(x) if self.params is None else self.fn(self.params, x)
