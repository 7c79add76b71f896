"""The factor and the inverse of a positive definite matrix by panels, so that nearly all of the work is matrix products.

Cholesky, panel by panel from the left, C the columns of a panel and B those before it:

    S = A[C:, C] - L[C:, B] L[C, B]^T,    L[C, C] = chol S[C],    L[>C, C] = S[>C] L[C, C]^-T

then U = L^-T, of which `A^-1 = U U^T`, each by panels of the same kind:

    U[B, C] = -U[B, B] L[C, B]^T L[C, C]^-T

(Golub and Van Loan 2013, section 4.2; Du Croz and Higham 1992, IMA J. Numer. Anal. 12, whose analysis covers the use of
inverses of diagonal blocks.) On CPUs XLA's matrix product is two to three times as fast as the LAPACK that its own
Cholesky calls. On other devices the native factorisation is.
"""

import jax
import jax.numpy as jnp

from aijax.typing import Array, Float


def cholesky(a: Float[Array, "*b n n"], diagonal: Float[Array, "*b n"]) -> Float[Array, "*b n n"]:
    """Returns L, lower triangular, with `L L^T = a + diag(diagonal)`; its diagonal has a NaN where there is none.

    Only the lower triangle of a is read. No derivative of its own: `cholesky_with_jitter` has it.
    """
    return jax.lax.platform_dependent(a, diagonal, cpu=_cholesky_by_panels, default=native_cholesky)


def native_cholesky(a, diagonal):
    """Returns the same by the device's own factorisation: faster to compile, on CPUs slower to run."""
    shifted = a + diagonal[..., None] * jnp.eye(a.shape[-1], dtype=a.dtype)
    return jnp.tril(jax.lax.linalg.cholesky(shifted, symmetrize_input=False))


def inverse_root(factor: Float[Array, "*b n n"]) -> Float[Array, "*b n n"]:
    """Returns U = L^-T, upper triangular."""
    return jax.lax.platform_dependent(factor, cpu=_root_by_panels, default=_root_native)


def folded_inverse(root: Float[Array, "*b n n"]) -> Float[Array, "*b n n"]:
    """Returns F with `(F + F^T) / 2 = U U^T`: what counts in a product with a symmetric matrix, at half the work."""
    return jax.lax.platform_dependent(root, cpu=_fold_by_panels, default=lambda u: _product(u, u))


def _cholesky_by_panels(a, diagonal):
    n = a.shape[-1]
    if n <= 1024:
        return native_cholesky(a, diagonal)
    out = jnp.zeros_like(a)
    for start, end in _panels(n, 256 if n <= 4096 else 512):
        panel = a[..., start:, start:end]
        if start:
            panel = panel - _product(out[..., start:, :start], out[..., start:end, :start])
        corner = native_cholesky(panel[..., : end - start, :], diagonal[..., start:end])
        out = _put(out, corner, start, start)
        if end < n:
            out = _put(out, _product(panel[..., end - start :, :], _inverse(corner)), end, start)
    return out


def _root_by_panels(factor):
    n = factor.shape[-1]
    panels = _panels(n, 256 if n <= 1024 else 512)
    whole = [factor[..., start:end, start:end] for start, end in panels if end - start == panels[0][1]]
    corners = [*jnp.unstack(_inverse(jnp.stack(whole)))]
    if len(corners) < len(panels):
        start, _ = panels[-1]
        corners.append(_inverse(factor[..., start:, start:]))
    out = jnp.zeros_like(factor)
    for index, (start, end) in enumerate(panels):
        out = _put(out, _transpose(corners[index]), start, start)
        for top, bottom in panels[:index]:
            rows = _product(out[..., top:bottom, top:start], factor[..., start:end, top:start])
            out = _put(out, -_product(rows, corners[index]), top, start)
    return out


def _fold_by_panels(root):
    n = root.shape[-1]
    out = jnp.zeros_like(root)
    for start, end in _panels(n, 256 if n <= 1024 else 512):
        rows = _product(root[..., start:end, start:], root[..., :end, start:])
        out = _put(out, rows * jnp.where(jnp.arange(end) < start, 2, 1).astype(root.dtype), start, 0)
    return out


def _root_native(factor):
    return _transpose(_inverse(factor))


def _inverse(lower):
    n = lower.shape[-1]
    if n > 256 and n % 2 == 0:
        half = n // 2
        diagonal = jnp.stack([lower[..., :half, :half], lower[..., half:, half:]])
        top, bottom = _inverse(diagonal)
        corner = -(bottom @ (lower[..., half:, :half] @ top))
        return jnp.block([[top, jnp.zeros_like(corner)], [corner, bottom]])
    eye = jnp.broadcast_to(jnp.eye(n, dtype=lower.dtype), lower.shape)
    return jax.lax.linalg.triangular_solve(lower, eye, left_side=True, lower=True)


def _product(a, b):
    """Returns `a b^T`: rows with rows, which needs no transposed copy."""
    return jnp.matmul(a, _transpose(b), precision="highest")


def _transpose(a):
    return jnp.swapaxes(a, -1, -2)


def _put(out, block, row, column):
    return jax.lax.dynamic_update_slice(out, block, (*[0] * (out.ndim - 2), row, column))


def _panels(n, width):
    return [(start, min(start + width, n)) for start in range(0, n, width)]
