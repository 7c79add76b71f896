"""The factor and the inverse of a positive definite matrix by panels: nearly all of the work is matrix products.

Cholesky, panel by panel from the left, C the columns of a panel and B those before it:

    S = A[C:, C] - L[C:, B] L[C, B]^T,    L[C, C] = chol S[C],    L[>C, C] = S[>C] L[C, C]^-T

then U = L^-T, and from it A^-1 = U U^T, in the place of L:

    U[B, C] = -U[B, B] L[C, B]^T L[C, C]^-T

(Golub and Van Loan 2013, section 4.2; Du Croz and Higham 1992, IMA J. Numer. Anal. 12, whose analysis covers the use of
inverses of diagonal blocks.) On CPUs XLA's matrix product is two to three times as fast as the LAPACK that its own
Cholesky calls. On other devices the native factorisation is.
"""

import jax
import jax.numpy as jnp

from aijax.typing import Array, Float

SMALL = 1024
"""Up to this size LAPACK's factorisation is as fast."""


def cholesky(a: Float[Array, "*b n n"], diagonal: Float[Array, "*b n"]) -> Float[Array, "*b n n"]:
    """Returns L, lower triangular, with `L L^T = a + diag(diagonal)`; its diagonal has a NaN where there is none.

    a is symmetric: either triangle may be read. No derivative of its own: `cholesky_with_jitter` has it.
    """
    if a.shape[-1] <= SMALL:
        return native_cholesky(a, diagonal)
    return jax.lax.platform_dependent(a, diagonal, cpu=_cholesky_by_panels, default=native_cholesky)


def native_cholesky(a: Float[Array, "*b n n"], diagonal: Float[Array, "*b n"]) -> Float[Array, "*b n n"]:
    """Returns the same by the device's own factorisation: faster to compile, on CPUs slower to run."""
    # LAPACK reads columns: it takes the transpose as it lies in memory
    shifted = jnp.swapaxes(a, -1, -2) + diagonal[..., None] * jnp.eye(a.shape[-1], dtype=a.dtype)
    return jnp.tril(jax.lax.linalg.cholesky(shifted, symmetrize_input=False))


def folded_inverse(factor: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Returns F with `(F + F^T) / 2 = (L L^T)^-1`: all that counts in a product with a symmetric matrix.

    Above its diagonal blocks F may be 0, which takes half the work. No derivative of its own.
    """
    return jax.lax.platform_dependent(factor, cpu=_inverse_by_panels, default=_native_inverse)


def solve_lower(
    factor: Float[Array, "*b n n"], b: Float[Array, "*b n m"], *, transpose: bool = False
) -> Float[Array, "*b n m"]:
    """Returns `L^-1 b`, or `L^-T b`, for a lower triangular L."""
    # BLAS reads columns: given the transpose it needs no copy of L, which would cost more than the solve
    upper = jnp.swapaxes(factor, -1, -2)
    return jax.lax.linalg.triangular_solve(upper, b, left_side=True, lower=False, transpose_a=not transpose)


def _cholesky_by_panels(a, diagonal):
    n = a.shape[-1]
    out = jnp.zeros_like(a)
    for start, end in _panels(n, 256 if n <= 4096 else 512):
        panel = a[..., start:, start:end]
        if start:
            panel = panel - _product(out[..., start:, :start], out[..., start:end, :start])
        corner = native_cholesky(panel[..., : end - start, :], diagonal[..., start:end])
        out = _put(out, corner, start, start)
        if end < n:
            out = _put(out, _product(panel[..., end - start :, :], _triangular_inverse(corner)), end, start)
    return out


@jax.custom_batching.sequential_vmap
def _inverse_by_panels(factor):
    n = len(factor)
    width = 128 if n <= 512 else 256 if n <= SMALL else 512
    panels = _panels(n, width)
    out = factor
    for (start, end), corner in zip(panels, _corner_inverses(factor, panels), strict=True):
        out = _put(out, corner.T, start, start)
        for top, bottom in panels[: start // width]:
            rows = _product(out[top:bottom, top:start], out[start:end, top:start])
            out = _put(out, -_product(rows, corner), top, start)
    # row panel by row panel: what a panel of A^-1 overwrites of U, no later one reads
    for start, end in panels:
        out = _put(out, _product(out[start:end, start:], out[:end, start:]), start, 0)
    block = jnp.arange(n) // width
    row, column = block[:, None], block
    return jnp.where(row > column, 2 * out, jnp.where(row == column, out, 0))


def _native_inverse(factor):
    root = solve_lower(factor, jnp.eye(len(factor), dtype=factor.dtype))
    return jnp.matmul(root.T, root, precision="highest")


def _corner_inverses(factor, panels):
    """Returns the inverses of the diagonal blocks, those of one size by one program."""
    width = panels[0][1]
    blocks = [factor[start:end, start:end] for start, end in panels]
    inverses = list(_triangular_inverse(jnp.stack([block for block in blocks if len(block) == width])))
    return inverses if len(inverses) == len(blocks) else [*inverses, _triangular_inverse(blocks[-1])]


def _triangular_inverse(lower):
    n = lower.shape[-1]
    if n > 128 and n % 2 == 0:
        half = n // 2
        top, bottom = _triangular_inverse(jnp.stack([lower[..., :half, :half], lower[..., half:, half:]]))
        corner = jnp.matmul(bottom, lower[..., half:, :half], precision="highest")
        corner = -jnp.matmul(corner, top, precision="highest")
        return jnp.block([[top, jnp.zeros_like(corner)], [corner, bottom]])
    return solve_lower(lower, jnp.broadcast_to(jnp.eye(n, dtype=lower.dtype), lower.shape))


def _product(a, b):
    """Returns `a b^T`: rows with rows, which needs no transposed copy."""
    return jnp.matmul(a, jnp.swapaxes(b, -1, -2), precision="highest")


def _put(out, block, row, column):
    return jax.lax.dynamic_update_slice(out, block, (*[0] * (out.ndim - 2), row, column))


def _panels(n, width):
    return [(start, min(start + width, n)) for start in range(0, n, width)]
