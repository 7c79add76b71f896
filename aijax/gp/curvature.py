"""The curvature W of a log likelihood, and solves with it that never invert the kernel matrix K.

What Laplace's method needs of W = -d2 log p(y | f) / df2 is R = (K + W^-1)^-1 = W (I + K W)^-1 and log det(I + K W).

One latent a point, W diagonal (Rasmussen and Williams 2006, section 3.4.3):

    B = I + W^1/2 K W^1/2,    R = W^1/2 B^-1 W^1/2,    log det(I + K W) = log det B

Where the likelihood is not log-concave W is a difference W_+ - W_- of diagonal matrices, neither negative. With R_+ and
S = K - K R_+ K from W_+ as above (Vanhatalo, Jylanki and Vehtari 2009):

    C = I - W_-^1/2 S W_-^1/2,    R = R_+ - (I - R_+ K) W_-^1/2 C^-1 W_-^1/2 (I - K R_+)
    log det(I + K W) = log det B + log det C

C is positive definite where f is at a maximum of the posterior.

Softmax of c classes, W = diag(pi) - Pi Pi^T with Pi the diagonal blocks diag(pi_k) above each other (section 3.5):

    B_k = I + pi_k^1/2 K pi_k^1/2,    E_k = pi_k^1/2 B_k^-1 pi_k^1/2,    E = sum_k E_k
    R = blockdiag(E_k) - (E_k E^-1 E_l)_kl,    log det(I + K W) = sum_k log det B_k + log det E
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.linalg.gaussian import gaussian_log_density
from aijax.typing import Any, Array, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiagonalCurvature:
    """`w = w_+ - w_-`, `[n]`, and the factors of B and, where the likelihood is not log-concave, of C."""

    root: Array
    factor: Array
    minus_root: Any
    minus_factor: Any

    @property
    def definite(self) -> Array:
        """Whether I + K W has positive eigenvalues only, as at a maximum."""
        return True if self.minus_factor is None else jnp.isfinite(self.minus_factor).all()

    def times(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns `W v`."""
        return (self.root**2 - (0 if self.minus_root is None else self.minus_root**2)) * v

    def solve(self, gram: Float[Array, "n n"], v: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns `(K + W^-1)^-1 v`."""
        result = self._plus(v)
        if self.minus_root is None:
            return result
        rest = self.minus_root * (v - _product(gram, result))
        rest = self.minus_root * jax.scipy.linalg.cho_solve((self.minus_factor, True), rest)
        return result - rest + self._plus(_product(gram, rest))

    def halves(self, gram: Any, cross: Float[Array, "n t"]) -> tuple[Array, Any]:
        """Returns F and G with `cross^T R cross = F^T F - G^T G`; where there is no W_-, G is None and K not used."""
        half = _solve(self.factor, self.root[:, None] * cross)
        if self.minus_root is None:
            return half, None
        back = jax.lax.linalg.triangular_solve(self.factor, half, left_side=True, lower=True, transpose_a=True)
        rest = cross - _product(gram, self.root[:, None] * back)
        return half, _solve(self.minus_factor, self.minus_root[:, None] * rest)

    def _plus(self, v):
        return self.root * jax.scipy.linalg.cho_solve((self.factor, True), self.root * v)


def diagonal_curvature(gram: Float[Array, "n n"], w: Float[Array, " n"], log_concave: bool) -> DiagonalCurvature:
    """Returns the factors for a diagonal W; C is left out where w is known to have no negative entry."""
    identity = jnp.eye(len(w), dtype=w.dtype)
    root = _safe_root(w)
    factor = _cholesky(identity + root[:, None] * gram * root)
    if log_concave:
        return DiagonalCurvature(root, factor, None, None)
    minus = _safe_root(-w)
    return DiagonalCurvature(root, factor, minus, _cholesky(identity - _shrink(gram, root, factor, minus)))


def positive_part(curvature: DiagonalCurvature) -> DiagonalCurvature:
    """Returns the curvature W_+."""
    return DiagonalCurvature(curvature.root, curvature.factor, None, None)


def half_log_determinant(gram: Float[Array, "n n"], w: Float[Array, " n"], log_concave: bool) -> Float[Array, ""]:
    """Returns `1/2 log det(I + K W)` for a diagonal W, to be differentiated; NaN where it is not positive definite."""
    root = _safe_root(w)
    result = _half_log_determinant_beyond_identity(root[:, None] * gram * root)
    if log_concave:
        return result
    factor = _cholesky(jnp.eye(len(w), dtype=w.dtype) + root[:, None] * gram * root)
    return result + _half_log_determinant_beyond_identity(-_shrink(gram, root, factor, _safe_root(-w)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SoftmaxCurvature:
    """The probabilities `[n, c]`, E_k `[c, n, n]` and the factor of their sum."""

    probability: Array
    blocks: Array
    factor: Array

    definite = True

    def times(self, v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Returns `W v`."""
        weighted = self.probability * v
        return weighted - self.probability * jnp.sum(weighted, 1, keepdims=True)

    def solve(self, gram: Float[Array, "n n"], v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Returns `(K + W^-1)^-1 v`."""
        image = jnp.einsum("kij,jk->ik", self.blocks, v, precision="highest")
        rest = jax.scipy.linalg.cho_solve((self.factor, True), jnp.sum(image, 1))
        return image - jnp.einsum("kij,j->ik", self.blocks, rest, precision="highest")

    def reduction(self, cross: Float[Array, "n t"]) -> Float[Array, "t c c"]:
        """Returns `cross_i^T R_kl cross_i` for every column i of cross."""
        images = jnp.einsum("kij,jt->ikt", self.blocks, cross, precision="highest")
        own = jnp.einsum("it,ikt->tk", cross, images, precision="highest")
        halves = _solve(self.factor, images.reshape(len(cross), -1)).reshape(images.shape)
        joint = jnp.einsum("ikt,ilt->tkl", halves, halves, precision="highest")
        return own[:, :, None] * jnp.eye(own.shape[1], dtype=own.dtype) - joint


def softmax_curvature(gram: Float[Array, "n n"], probability: Float[Array, "n c"]) -> SoftmaxCurvature:
    """Returns the factors for the softmax."""
    blocks = jax.lax.map(lambda pi: _block(gram, pi)[0], probability.T)
    return SoftmaxCurvature(probability, blocks, _sum_factor(blocks, probability))


def softmax_half_log_determinant(gram: Float[Array, "n n"], probability: Float[Array, "n c"]) -> Float[Array, ""]:
    """Returns `1/2 log det(I + K W)` for the softmax, to be differentiated."""
    blocks, values = jax.lax.map(lambda pi: _block(gram, pi), probability.T)
    return jnp.sum(values) + jnp.sum(jnp.log(jnp.diagonal(_sum_factor(blocks, probability))))


def _sum_factor(blocks, probability):
    """Returns the Cholesky factor of E. A point that was not observed has no probabilities: its row is the
    identity's."""
    return _cholesky(jnp.sum(blocks, 0) + jnp.diag(1.0 * (jnp.sum(probability, 1) == 0)))


def _safe_root(w: Array) -> Array:
    """Returns sqrt(max(w, 0)), with a derivative that is finite where w is 0."""
    return jnp.sqrt(jnp.maximum(w, jnp.finfo(w.dtype).tiny))


def _block(gram, probability):
    """Returns E_k and 1/2 log det B_k."""
    root = _safe_root(probability)
    factor = _cholesky(jnp.eye(len(root), dtype=root.dtype) + root[:, None] * gram * root)
    half = _solve(factor, jnp.diag(root))
    return _product(half.T, half), jnp.sum(jnp.log(jnp.diagonal(factor)))


def _half_log_determinant_beyond_identity(matrix):
    """Returns `1/2 log det(I + matrix)`."""
    n = len(matrix)
    nothing, ones = jnp.zeros((n, 1), matrix.dtype), jnp.ones(n, matrix.dtype)
    return -gaussian_log_density(matrix, ones, nothing)[0] - n / 2 * math.log(2 * math.pi)


def _shrink(gram, root, factor, minus_root):
    """Returns `W_-^1/2 S W_-^1/2`."""
    half = _solve(factor, root[:, None] * gram)
    return minus_root[:, None] * (gram - _product(half.T, half)) * minus_root


def _cholesky(matrix):
    return jnp.tril(jax.lax.linalg.cholesky(matrix, symmetrize_input=False))


def _solve(factor, right):
    return jax.lax.linalg.triangular_solve(factor, right, left_side=True, lower=True)


def _product(a, b):
    return jnp.matmul(a, b, precision="highest")
