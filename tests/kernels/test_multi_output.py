"""Coregionalisation: against Kronecker products, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from aijax import kernels
from aijax.errors import ConfigError
from aijax.kernels import with_all_outputs, with_output

X = np.random.default_rng(0).normal(size=(4, 2))
W, KAPPA = np.random.default_rng(1).normal(size=(3, 2)), np.array([0.1, 0.0, 2.0])


def test_all_outputs_are_a_kronecker_product():
    kernel = kernels.ICM(kernels.Matern52(), W, KAPPA)
    expected = np.kron(kernels.Matern52()(X), W @ W.T + np.diag(KAPPA))
    x = with_all_outputs(X, 3)
    np.testing.assert_allclose(kernel(x), expected, rtol=1e-12)
    np.testing.assert_allclose(kernel.diagonal(x), np.diagonal(expected), rtol=1e-12)
    np.testing.assert_allclose(kernel(with_output(X, 1), x), expected[1::3], rtol=1e-12)


def test_linear_model_is_a_sum_of_intrinsic_ones():
    terms = kernels.ICM(kernels.RBF(), W, KAPPA), kernels.ICM(kernels.Matern12(), W[:, :1], KAPPA)
    kernel = kernels.LMC((kernels.RBF(), kernels.Matern12()), (W, W[:, :1]), (KAPPA, KAPPA))
    x = with_output(X, [0, 2, 1, 1])
    np.testing.assert_allclose(kernel(x), terms[0](x) + terms[1](x), rtol=1e-13)
    np.testing.assert_allclose(kernel.diagonal(x), (terms[0] + terms[1]).diagonal(x), rtol=1e-13)


def test_gradients():
    x = with_output(X, [0, 2, 1, 1])
    cotangent = np.random.default_rng(2).normal(size=(4, 4))

    def plain(w, kappa):
        b = (w @ w.T + jnp.diag(kappa))[jnp.array([0, 2, 1, 1])][:, jnp.array([0, 2, 1, 1])]
        return jnp.sum(b * kernels.RBF()(X) * cotangent)

    def ours(w, kappa):
        return jnp.sum(kernels.ICM(kernels.RBF(), w, kappa)(x) * cotangent)

    got, expected = (jax.jit(jax.grad(f, (0, 1)))(jnp.asarray(W), jnp.asarray(KAPPA)) for f in (ours, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-12, 1e-13), got, expected)


def test_a_start_for_fits():
    kernel = kernels.multi_output(kernels.RBF(), 4, rank=2)
    assert kernel.mixing.shape == (4, 2) and isinstance(kernel, kernels.ICM)
    gradient = jax.jit(jax.grad(lambda k: jnp.sum(k(with_all_outputs(X, 4)) * np.arange(16.0))))(kernel)
    assert (gradient.mixing != 0).all() and (gradient.kappa != 0).all()
    assert len(kernels.multi_output((kernels.RBF(), kernels.Matern32()), 2).kernels) == 2


def test_outputs_known_only_inside_jit_are_left_to_checkify():
    kernel = kernels.ICM(kernels.RBF(), W, KAPPA)
    x = jnp.column_stack([X, jnp.array([0.0, 1.0, 2.0, 3.0])])
    error, _ = jax.jit(checkify.checkify(lambda x: kernel(x)))(x)
    assert "the last column of x: expected the output, 0 to 2" in error.get()
    assert jnp.isnan(jax.jit(lambda x: kernel(x))(x)[3]).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: kernels.ICM(kernels.RBF(), W, -KAPPA), "kappa: expected a number of at least 0, got -0.1"),
        (lambda: kernels.ICM(kernels.RBF(), W, KAPPA)(with_output(X, 3)), "last column of x: .* 0 to 2, got 3"),
        (lambda: kernels.ICM(kernels.RBF(), W, KAPPA)(X), "last column of x: expected the output"),
        (lambda: kernels.ICM(kernels.RBF(), W, KAPPA[:2])(with_output(X, 0)), r"kappa: .* 3 outputs, got shape \(2,\)"),
        (lambda: kernels.ICM(kernels.RBF(), W[:, 0], KAPPA)(with_output(X, 0)), r"mixing: expected \[outputs, rank\]"),
        (lambda: kernels.LMC((kernels.RBF(),), (W, W), (KAPPA,)), "one for each of 1 kernels, got 2 and 1"),
        (lambda: kernels.multi_output(kernels.RBF(), 2, rank=3), "rank: expected at most num_outputs = 2, got 3"),
        (lambda: kernels.multi_output(kernels.RBF(), 0), "num_outputs: expected a positive integer, got 0"),
        (lambda: with_output(X, 1.5), "index: expected integers"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
