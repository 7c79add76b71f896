"""Linear algebra that several sciences share: solvers, eigenvalues, traces and factors of symmetric operators.

An operator is a function `matvec(v) -> A v`. A vector is an array or any tree of arrays, so that a kernel on 10^5
points and a Hessian in the parameters of a network are the same kind of thing. Nothing here holds a matrix unless it is
given one.
"""

from aijax.linalg.cholesky import cholesky_with_jitter
from aijax.linalg.conjugate_gradients import CGResult, cg
from aijax.linalg.eigen import Eigenpairs, eigsh
from aijax.linalg.estimators import estimate_diagonal, estimate_frobenius_norm, estimate_trace
from aijax.linalg.kronecker import kronecker_log_density, kronecker_matvec
from aijax.linalg.lanczos import FunctionResult, Lanczos, apply_function, lanczos
from aijax.linalg.pivoted_cholesky import PivotedCholesky, pivoted_cholesky
from aijax.linalg.toeplitz import durbin_levinson, toeplitz_log_density, toeplitz_matvec, toeplitz_solve
from aijax.linalg.trace import Estimate, hutchinson_trace, log_determinant, quadrature, slq

__all__ = [
    "CGResult", "Eigenpairs", "Estimate", "FunctionResult", "Lanczos", "PivotedCholesky", "apply_function", "cg",
    "cholesky_with_jitter", "durbin_levinson", "eigsh", "estimate_diagonal", "estimate_frobenius_norm",
    "estimate_trace", "hutchinson_trace", "kronecker_log_density", "kronecker_matvec", "lanczos", "log_determinant",
    "pivoted_cholesky", "quadrature", "slq", "toeplitz_log_density", "toeplitz_matvec", "toeplitz_solve",
]  # fmt: skip
