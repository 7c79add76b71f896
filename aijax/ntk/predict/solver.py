"""One face for a training kernel that is a matrix and for one that is only a product with vectors.

Both offer `limit(R) -> (E R, F R)` at infinite time and `flow(R, s)` at given times (see `spectral` for E and F), on
columns `[p, c]`. A matrix is factorised when it is first needed and the factors are kept, so that a predictor that is
called again only multiplies. A product needs no matrix: infinite time is a solve by conjugate gradients, and given
times are Lanczos processes, one for each column, with `max_iterations` products and vectors held. What did not converge
is told: by a `RunError` where values are at hand, and where they are not (inside `jax.jit`) by NaN in place of the
result.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, RunError
from aijax.linalg import apply_function, cg
from aijax.ntk.arguments import check_flag, nonnegative, rate
from aijax.ntk.predict import spectral
from aijax.ntk.predict.layout import Layout, check_image, on_columns, train_matrix
from aijax.typing import Array

_LANCZOS_STEPS = 100

_spectrum = jax.jit(spectral.spectrum)
_factorise = jax.jit(spectral.factorise)
_flow = jax.jit(spectral.flow)
_limit = jax.jit(spectral.limit)


@dataclass(frozen=True)
class MatrixSolver:
    """Flow under a matrix `[p, p]`, regularised."""

    matrix: Array
    kept: dict = field(default_factory=dict)

    def limit(self, columns: Array) -> tuple[Array, Array]:
        factors = remember(self.kept, "factors", _factorise, self.matrix)
        return _limit(self.matrix, factors, columns)

    def flow(self, columns: Array, times: Array) -> tuple[Array, Array]:
        eigen = remember(self.kept, "spectrum", _spectrum, self.matrix)
        return _flow(self.matrix, eigen, columns, times)


@dataclass(frozen=True)
class OperatorSolver:
    """Flow under a product with columns `[p, c]`, regularised."""

    apply: Callable[[Array], Array]
    tolerance: float | None
    max_iterations: int | None

    def limit(self, columns: Array) -> tuple[Array, Array]:
        """Returns zeros and the solution: the operator is taken to be positive definite on what it is given."""
        tolerance = self._tolerance(columns)
        result = cg(self.apply, columns, tolerance=tolerance, max_iterations=self.max_iterations, columns=True)
        solved = tell(
            result.solution, result.converged, result.residual, tolerance, "conjugate gradients", "diag_reg or "
        )
        return jnp.zeros_like(columns), solved

    def flow(self, columns: Array, times: Array) -> tuple[Array, Array]:
        tolerance = self._tolerance(columns)
        steps = min(len(columns), _LANCZOS_STEPS if self.max_iterations is None else self.max_iterations)

        def both(values):
            values = jnp.maximum(values, 0)
            return jnp.stack([spectral.decay(values, times), spectral.integral(values, times)])

        result = apply_function(both, self.apply, columns, steps=steps, columns=True)
        # the scale of E R is that of R; F R is judged by its own
        size = jnp.stack(
            [
                jnp.broadcast_to(jnp.linalg.norm(columns, axis=0), result.error.shape[1:]),
                jnp.linalg.norm(result.value[1], axis=1),
            ]
        )
        error = result.error / jnp.where(size > 0, size, 1)
        decayed, integrated = tell(result.value, error <= tolerance, error, tolerance, "the Lanczos process", "")
        return decayed, integrated

    def _tolerance(self, columns):
        return float(jnp.finfo(columns.dtype).eps) ** 0.5 if self.tolerance is None else self.tolerance


def make_solver(
    name: str,
    kernel: Array | Callable[[Array], Array],
    layout: Layout,
    dtype,
    diag_reg: float,
    absolute: bool,
    tolerance: float | None = None,
    max_iterations: int | None = None,
) -> MatrixSolver | OperatorSolver:
    """Returns the solver of a kernel plus its regularisation: `diag_reg`, times the mean of the diagonal if relative.

    Raises:
      ConfigError: the kernel does not fit the layout, or is a product and the regularisation is relative.
    """
    check_regularisation(diag_reg, absolute)
    if tolerance is not None:
        nonnegative("tolerance", tolerance)
    if not callable(kernel):
        matrix = train_matrix(name, kernel, layout).astype(dtype)
        shift = diag_reg if absolute else diag_reg * jnp.mean(jnp.diagonal(matrix))
        return MatrixSolver(matrix + (shift * jnp.eye(len(matrix), dtype=dtype)).astype(dtype))
    if not absolute and not (isinstance(diag_reg, (int, float)) and diag_reg == 0):
        raise ConfigError(
            "diag_reg: a kernel given as a product has no diagonal to be relative to; "
            "say diag_reg_absolute_scale=True and give diag_reg in the kernel's units"
        )
    check_image(name, kernel, layout, dtype)
    product = on_columns(kernel, layout)
    return OperatorSolver(lambda columns: product(columns) + diag_reg * columns, tolerance, max_iterations)


def check_regularisation(diag_reg, absolute) -> None:
    """Raises a `ConfigError` for a regularisation that is no number of 0 or more, or a scale that is no flag."""
    rate("diag_reg", diag_reg)
    check_flag("diag_reg_absolute_scale", absolute)


def keep(kept: dict, name: str, value):
    """Returns `value`, kept under `name` for later calls unless it belongs to a trace that will end."""
    if not _traced(value.matrix if isinstance(value, MatrixSolver) else value):
        kept[name] = value
    return value


def remember(kept: dict, name: str, function: Callable, *arguments):
    """Returns `function(*arguments)`, worked out once where the arguments are values, even inside a trace."""
    if _traced(arguments):
        return function(*arguments)
    if name not in kept:
        with jax.ensure_compile_time_eval():
            kept[name] = function(*arguments)
    return kept[name]


def tell(value: Array, good: Array, error: Array, tolerance: float, what: str, remedy: str) -> Array:
    """Returns `value` if all is good; else raises, or gives NaN where `good` is not yet known."""
    good = jnp.all(good)
    if isinstance(good, jax.core.Tracer):
        return jnp.where(good, value, jnp.nan)
    if not good:
        raise RunError(
            f"predict: {what} stopped at a relative error of {float(jnp.max(error)):.1e}, above the tolerance "
            f"{tolerance:.1e}; raise {remedy}max_iterations, or the tolerance"
        )
    return value


def _traced(tree) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))
