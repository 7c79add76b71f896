"""Exact inference on a grid by a kernel that is a product over its axes.

The Gram matrix of the n = n_1 ... n_d points is a Kronecker product, and with equal noise everywhere its
eigen-decomposition is that of the axes (`aijax.linalg.kronecker`): `sum n_i^3 + n sum n_i` operations and O(n) memory
in place of n^3 and n^2. Saatci 2012, chapter 5.

    mean* = K* a,    var* = k(x*, x*) - sum_j (K* U)_j^2 / (lambda_j + noise)

where a row of K* is the product of rows of the axes.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, DataError
from aijax.gp.exact import draw_normal
from aijax.gp.model import GP, Evidence, prior_mean
from aijax.gp.observations import residuals
from aijax.kernels import Scaled, Sum, White, separate
from aijax.kernels.base import as_points
from aijax.kernels.products import map_points
from aijax.known import known
from aijax.linalg.kronecker import along_axis, kronecker_eigen, kronecker_log_density, kronecker_matvec
from aijax.linalg.vectors import check_count
from aijax.parameters import noun, static
from aijax.typing import Any, Array, Float, PRNGKey


@noun
class Grid:
    """Exact inference on all combinations of the points of d axes, for a kernel that is a product over the axes.

    x is `[n, d]` with the last axis running fastest, as `grid_points` makes it. Kernels: those of
    `aijax.kernels.separate`, and sums of one of them with white noise.

    Args:
      shape: how many points each axis has.
      columns: which coordinates belong to each axis; default one each, `((0,), (1,), ...)`. An axis may be of points
        of several coordinates, such as stations by time: `((0, 1), (2,))`.

    Raises:
      ConfigError: a kernel that is no such product (named), a noise that differs between points, missing targets.
      DataError: x is not such a grid; an axis with a point twice, without noise.

    Source: Saatci 2012, chapter 5.

    >>> from aijax import gp, kernels
    >>> x = grid_points(jnp.arange(3.0), jnp.arange(2.0))
    >>> float(gp.log_marginal_likelihood(gp.GP(kernels.RBF()), x, jnp.zeros(6), solver=Grid((3, 2)))) < 0
    True
    """

    shape: tuple[int, ...] = static()
    columns: tuple[tuple[int, ...], ...] | None = static(None)

    def check(self):
        shape = (self.shape,) if isinstance(self.shape, int) else tuple(self.shape)
        for size in shape:
            check_count("shape", size)
        columns = tuple((i,) for i in range(len(shape))) if self.columns is None else tuple(map(tuple, self.columns))
        every = sorted(column for group in columns for column in group)
        if len(columns) != len(shape) or every != list(range(len(every))) or not all(columns):
            raise ConfigError(
                f"columns: expected the coordinates from 0 on, each in one of {len(shape)} axes, got {self.columns!r}"
            )
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "columns", columns)

    def evidence(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> Evidence:
        data, right = self._data(gp, x, y, observed)
        value = kronecker_log_density(*data)
        converged = jnp.isfinite(value) & right
        _refuse_unless(converged)
        return Evidence(value, converged=converged)

    def condition(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> "GridPosterior":
        (factors, noise, residual), right = self._data(gp, x, y, observed)
        table, _, vectors = kronecker_eigen(factors)
        precision = 1 / (table + noise)
        turned = kronecker_matvec([vector.T for vector in vectors], residual).reshape(*self.shape, -1)
        weights = kronecker_matvec(vectors, (precision[..., None] * turned).reshape(residual.shape))
        converged = jnp.isfinite(weights).all() & (precision > 0).all() & right
        _refuse_unless(converged)
        weights = weights.reshape(*self.shape, *jnp.shape(y)[1:])
        return GridPosterior(gp, self._axes(as_points(x)), vectors, precision, weights, converged, self.columns)

    def _data(self, gp, x, y, observed):
        """Returns the factors, the noise and the residuals `[n, m]`, and whether x is a grid."""
        residual, noise, observed = residuals(gp, x, y, observed)
        if observed is not None:
            raise ConfigError("observed: Grid takes no missing targets; expected every cell, or the solver Iterative")
        if jnp.ndim(gp.noise_variance):
            raise ConfigError(
                f"gp.noise_variance: Grid takes one number for all points, got {jnp.shape(gp.noise_variance)}; "
                "expected a number, or the solver Iterative"
            )
        x = as_points(x)
        coordinates = sum(map(len, self.columns))
        if x.shape != (math.prod(self.shape), coordinates):
            raise DataError(
                f"x: expected the {math.prod(self.shape)} points of a grid of shape {self.shape} with {coordinates} "
                f"coordinates, got {x.shape}"
            )
        axes = self._axes(x)
        right = jnp.all(x == self._points(axes))
        if known(right) is False:
            raise DataError(
                f"x: not the grid of shape {self.shape} that its first rows say; expected all combinations of the "
                "points of the axes, the last axis running fastest, as grid_points(axis, ...) gives them"
            )
        kernel, white = split_white(gp.kernel)
        _refuse_twins(axes, noise[0] + white)
        factors = tuple(k(axis) for k, axis in zip(separate(kernel, self.columns), axes, strict=True))
        return (factors, noise[0] + white, residual.reshape(len(x), -1)), right

    def _axes(self, x):
        table = x.reshape(*self.shape, -1)
        lines = [table[(0,) * i + (slice(None),) + (0,) * (len(self.shape) - i - 1)] for i in range(len(self.shape))]
        return tuple(line[:, jnp.array(group)] for line, group in zip(lines, self.columns, strict=True))

    def _points(self, axes):
        joined = _combinations(axes)
        order = [column for group in self.columns for column in group]
        return joined[:, jnp.argsort(jnp.array(order))]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["gp", "axes", "vectors", "precision", "weights", "converged"],
    meta_fields=["columns"],
)
@dataclass(frozen=True)
class GridPosterior:
    """`p(f | y)`, at any points.

    Args:
      gp: the prior.
      axes: the points of each axis, `[n_i, d_i]`.
      vectors: U of each axis, `[n_i, n_i]`.
      precision: `1 / (lambda + noise)`, a table `[n_1, ..., n_d]`.
      weights: `(K + noise)^-1 (y - mean)`, `[n_1, ..., n_d]`, or with an axis of outputs more.
      converged: False where the matrix was not positive definite, or x no grid.
      columns: which coordinates belong to each axis.
    """

    gp: GP
    axes: tuple[Array, ...]
    vectors: tuple[Array, ...]
    precision: Array
    weights: Array
    converged: Array
    columns: tuple[tuple[int, ...], ...]

    def predict(self, x_new: Any, full_covariance: bool = False) -> tuple[Array, Array]:
        """Returns the mean of f at q points, and its variance `[q]`, in blocks, or its covariance `[q, q]`."""
        points = as_points(x_new)
        if points.shape[1] != (coordinates := sum(map(len, self.columns))):
            raise DataError(
                f"x_new: expected points of {coordinates} coordinates, got an array of shape {points.shape}"
            )
        if not full_covariance:
            return map_points(self._moments, x_new)
        mean, turned = self._mean(x_new)
        rows = functools.reduce(_row_products, turned)
        told = jnp.matmul(rows * self.precision.reshape(-1), rows.T, precision="highest")
        return mean, self.gp.kernel(points) - told

    def sample(self, key: PRNGKey, x_new: Any, num_samples: int) -> Array:
        """Returns functions drawn jointly at q points, `[num_samples, q]`, by a factor of their covariance."""
        return draw_normal(key, *self.predict(x_new, full_covariance=True), num_samples)

    def _moments(self, x_new):
        mean, turned = self._mean(x_new)
        told = _contract([part**2 for part in turned], self.precision)
        return mean, jnp.maximum(self.gp.kernel.diagonal(as_points(x_new)) - told, 0)

    def _mean(self, x_new):
        """Returns the mean, and for each axis K* by its eigenvectors."""
        points = as_points(x_new)
        kernel, _ = split_white(self.gp.kernel)
        parts = separate(kernel, self.columns)
        cross = [
            k(points[:, jnp.array(group)], axis) for k, group, axis in zip(parts, self.columns, self.axes, strict=True)
        ]
        mean = _contract(cross, self.weights)
        shift = prior_mean(self.gp, x_new, len(mean))
        mean = mean + (shift if shift.shape == mean.shape else shift[:, None])
        return mean, [jnp.matmul(c, u, precision="highest") for c, u in zip(cross, self.vectors, strict=True)]


def grid_points(*axes: Float[Array, "..."]) -> Float[Array, "n d"]:
    """Returns all combinations of the points of the axes, `[n, d]`, the last axis running fastest.

    Args:
      axes: the points of each, `[n_i]` or `[n_i, d_i]`.

    >>> grid_points(jnp.array([0.0, 1.0]), jnp.array([5.0, 6.0])).tolist()
    [[0.0, 5.0], [0.0, 6.0], [1.0, 5.0], [1.0, 6.0]]
    """
    return _combinations([as_points(axis) for axis in axes])


def split_white(kernel: Any) -> tuple[Any, Any]:
    """Returns a kernel without the white noise that is added to it, and the variance of that."""
    whites = [k for k in kernel.kernels if _is_white(k)] if isinstance(kernel, Sum) else []
    if not whites:
        return kernel, 0.0
    rest = [k for k in kernel.kernels if not _is_white(k)]
    if not rest:
        raise ConfigError("kernel: expected more than white noise, which says nothing of other points")
    return rest[0] if len(rest) == 1 else Sum(tuple(rest)), sum(_white_variance(k) for k in whites)


def _is_white(kernel):
    return isinstance(kernel, White) or (isinstance(kernel, Scaled) and _is_white(kernel.kernel))


def _white_variance(kernel):
    return kernel.variance * (_white_variance(kernel.kernel) if isinstance(kernel, Scaled) else 1.0)


def _refuse_unless(converged):
    if known(converged) is False:
        raise DataError(
            "gp.noise_variance: the kernel matrix is not positive definite; expected more noise, or points of the "
            "axes that do not repeat"
        )


def _refuse_twins(axes, noise):
    """Raises a `DataError` for an axis that has a point twice where there is no noise, and both are known."""
    if known(noise == 0) and not any(isinstance(axis, jax.core.Tracer) for axis in axes):
        for i, axis in enumerate(axes):
            if len(np.unique(np.asarray(axis), axis=0)) < len(axis):
                raise DataError(
                    f"x: axis {i} has a point twice and there is no noise; give gp.noise_variance, add kernels.White, "
                    "or leave one out"
                )


def _combinations(axes):
    shape = tuple(len(axis) for axis in axes)

    def spread(i, axis):
        table = axis.reshape(*(1,) * i, len(axis), *(1,) * (len(axes) - i - 1), -1)
        return jnp.broadcast_to(table, (*shape, axis.shape[1])).reshape(-1, axis.shape[1])

    return jnp.concatenate([spread(i, axis) for i, axis in enumerate(axes)], 1)


def _contract(rows, table):
    """Returns `sum_j prod_i rows_i[q, j_i] table[j_1, ..., j_d, ...]`, `[q, ...]`."""
    result = along_axis(rows[0], table, 0)
    for matrix in rows[1:]:
        result = jnp.einsum("qa,qa...->q...", matrix, result, precision="highest")
    return result


def _row_products(a, b):
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)
