"""Why a matrix has no Cholesky factor, in a sentence: which kernel, the smallest eigenvalue, two points that are one.

Only values that are known are looked at; inside `jit` solvers report a status.
"""

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import DataError
from aijax.gp.model import GP
from aijax.kernels import Kernel
from aijax.known import known
from aijax.typing import Any, Array, Float

MOST_POINTS = 1000


def refuse_indefinite(gp: GP, matrix: Float[Array, "n n"], noise: Float[Array, " n"]) -> None:
    """Raises a `DataError` that names the kernel and the smallest eigenvalue of `matrix + diag(noise)`."""
    matrix, noise = jax.lax.stop_gradient((matrix, noise))
    finite = np.asarray(jnp.isfinite(matrix).all(1))
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(f"kernel {describe(gp.kernel)}: k(x, x) has a value that is not finite in row {row}")
    smallest = float(jnp.linalg.eigvalsh(matrix + jnp.diag(noise))[0])
    raise DataError(
        f"kernel {describe(gp.kernel)}: k(x, x) + noise of {len(noise)} points is not positive definite: its smallest "
        f"eigenvalue is {smallest:.3g}; the kernel is not positive semidefinite on these points, or their noise is "
        "too small for the rounding of its dtype"
    )


def refuse_indefinite_kernel(gp: GP, x: Any) -> None:
    """Raises a `DataError` that names the kernel and the smallest eigenvalue of `k(x, x)` where that is below 0 by more
    than rounding: why a solver failed that holds no such matrix. The first `MOST_POINTS` points stand for all."""
    if not isinstance(gp, GP) or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((gp, x))):
        return
    some = x[:MOST_POINTS] if isinstance(x, list) else jax.tree.map(lambda leaf: jnp.asarray(leaf)[:MOST_POINTS], x)
    matrix = jax.lax.stop_gradient(gp.kernel(some))
    smallest, *_, largest = np.asarray(jnp.linalg.eigvalsh(matrix)).tolist() if len(matrix) > 1 else 2 * [matrix[0, 0]]
    if smallest < -10 * len(matrix) * float(jnp.finfo(matrix.dtype).eps) * abs(largest):
        raise DataError(
            f"kernel {describe(gp.kernel)}: k(x, x) of {len(matrix)} points is not positive semidefinite: its smallest "
            f"eigenvalue is {smallest:.3g}"
        )


def refuse_twins(x: Any, matrix: Float[Array, "n n"], noise: Float[Array, " n"]) -> None:
    """Raises a `DataError` that names two points that are equal and have no noise, neither by `noise` nor by a kernel
    of white noise, so that one of their targets says nothing or contradicts the other."""
    silent = noise == 0
    if (
        not known(silent.any())
        or not hasattr(x, "ndim")
        or isinstance(x, jax.core.Tracer)
        or known(matrix[0, 0]) is None
    ):
        return
    rows = np.flatnonzero(np.asarray(silent))
    points = np.asarray(x).reshape(len(x), -1)[rows]
    _, first, group = np.unique(points, axis=0, return_index=True, return_inverse=True)
    for row, other in zip(rows, rows[first[group.reshape(-1)]], strict=True):
        if row != other and matrix[row, other] == matrix[row, row]:
            raise DataError(
                f"x: points {other} and {row} are the same and have no noise; give gp.noise_variance, add "
                "kernels.White, or leave one out"
            )


def describe(kernel: Kernel) -> str:
    """Returns the names of the kernels that `kernel` is made of, as in "Sum(RBF, Linear)".

    >>> from aijax import kernels
    >>> describe(2.0 * kernels.RBF() + kernels.Linear())
    'Sum(Scaled(RBF), Linear)'
    """
    parts = jax.tree.leaves(
        [getattr(kernel, name) for name in getattr(kernel, "__dataclass_fields__", ())],
        is_leaf=lambda node: isinstance(node, Kernel),
    )
    names = [describe(part) for part in parts if isinstance(part, Kernel)]
    return type(kernel).__name__ + (f"({', '.join(names)})" if names else "")
