"""Spectra of tangent kernels from products against those of the matrix."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

from aijax import parallel
from aijax.errors import ConfigError
from aijax.ntk import factored_ntk, kernel_blocks, spectrum


def mlp(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def cnn(params, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.nn.relu(jax.lax.conv_general_dilated(x, params["w"], (1, 1), "SAME", dimension_numbers=numbers))
    return x.mean((1, 2)) @ params["v"]


def eigenvalues_of(apply_fn, params, x):
    jacobian = jax.jacobian(apply_fn)(params, x)
    flat = np.concatenate([j.reshape(j.shape[0] * j.shape[1], -1) for j in jax.tree.leaves(jacobian)], 1, dtype=float)
    return np.linalg.eigvalsh(flat @ flat.T)[::-1]


@pytest.fixture(scope="module", params=[mlp, cnn], ids=["in loops", "outside of loops"])
def case(request):
    """A network, its parameters, 20 examples, and the 40 eigenvalues of its kernel."""
    keys = jax.random.split(jax.random.key(0), 3)
    shape, w = ((20, 5), (5, 8)) if request.param is mlp else ((20, 4, 4, 2), (3, 3, 2, 8))
    params = {"w": jax.random.normal(keys[0], w), "v": jax.random.normal(keys[1], (8, 2))}
    x = jax.random.normal(keys[2], shape)
    return request.param, params, x, eigenvalues_of(request.param, params, x)


KEY = jax.random.key(1)


def test_the_largest_eigenvalues(case):
    apply_fn, params, x, exact = case
    pairs = spectrum.top_eigenvalues(KEY, apply_fn, params, x, 3, batch_size=8)
    np.testing.assert_allclose(pairs.values, exact[:3], rtol=1e-4)
    assert pairs.vectors.shape == (3, 20, 2)


def test_the_exact_trace(case):
    apply_fn, params, x, exact = case
    for batch_size in (None, 8):
        np.testing.assert_allclose(
            spectrum.trace(apply_fn, params, np.asarray(x), batch_size=batch_size), exact.sum(), rtol=1e-4
        )


@pytest.fixture(scope="module")
def small():
    """A perceptron, its parameters, 12 examples, and the 24 eigenvalues of its kernel."""
    keys = jax.random.split(jax.random.key(3), 3)
    params = {"w": jax.random.normal(keys[0], (5, 8)) / 2, "v": jax.random.normal(keys[1], (8, 2))}
    x = jax.random.normal(keys[2], (12, 5))
    return params, x, eigenvalues_of(mlp, params, x)


def test_estimates_lie_within_their_standard_errors(small):
    params, x, exact = small
    estimate = spectrum.estimate_trace(KEY, mlp, params, x, 32)
    assert abs(estimate.value - exact.sum()) < 4 * estimate.standard_error
    ridge = 0.1 * exact.mean()
    estimate = spectrum.log_determinant(KEY, mlp, params, x, ridge, num_samples=32, steps=24)
    assert abs(estimate.value - np.log(exact + ridge).sum()) < 4 * estimate.standard_error


def test_effective_ranks(small):
    params, x, exact = small
    rank = spectrum.effective_rank(KEY, mlp, params, x, num_samples=8)
    assert abs(rank.value - exact.sum() ** 2 / (exact**2).sum()) < 4 * rank.standard_error < 0.1 * rank.value
    ridge = float(exact.mean())
    rank = spectrum.effective_rank(KEY, mlp, params, x, ridge, num_samples=64, steps=24)
    assert abs(rank.value - (exact / (exact + ridge)).sum()) < 4 * rank.standard_error < 0.2 * rank.value


def test_zeros_of_a_kernel_of_more_outputs_than_parameters_are_exact():
    keys = jax.random.split(jax.random.key(4), 3)
    params = {"w": jax.random.normal(keys[0], (5, 2)), "v": jax.random.normal(keys[1], (2, 2))}
    x = 30 * jax.random.normal(keys[2], (100, 5))
    exact = eigenvalues_of(mlp, params, x)  # 200, at most 14 of them not zero
    rank = spectrum.effective_rank(KEY, mlp, params, x, batch_size=32)
    np.testing.assert_allclose(rank.value, exact.sum() ** 2 / (exact**2).sum(), rtol=1e-4)
    ridge = 1e-6 * float(exact.max())  # with 200 x 200 numbers of 32 bits, zeros would be seen as 1e-7 of the largest
    exact = np.maximum(exact, 0)
    found = spectrum.log_determinant(KEY, mlp, params, x, ridge, batch_size=32)
    assert abs(found.value - np.log(exact + ridge).sum()) < 4 * found.standard_error + 0.1
    found = spectrum.effective_rank(KEY, mlp, params, x, ridge, batch_size=32)
    assert abs(found.value - (exact / (exact + ridge)).sum()) < 4 * found.standard_error + 0.1


def test_data_on_the_host_and_meshes(small, tmp_path):
    params, x, _ = small
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_allclose(
        spectrum.estimate_trace(KEY, mlp, params, mapped, 2, batch_size=8).value,
        spectrum.estimate_trace(KEY, mlp, params, x, 2, batch_size=8, mesh=parallel.make_mesh()).value,
        rtol=1e-4,
    )


@pytest.mark.slow
def test_an_eigenvalue_has_a_derivative_in_the_parameters(small):
    params, x, _ = small

    def largest(params):
        return spectrum.top_eigenvalues(KEY, mlp, params, x, 1, subspace=12).values[0]

    def largest_of_the_matrix(params):
        jacobian = jax.jacobian(mlp)(params, x)
        flat = jnp.concatenate([j.reshape(24, -1) for j in jax.tree.leaves(jacobian)], axis=1)
        return jnp.linalg.eigvalsh(flat @ flat.T)[-1]

    found, expected = jax.jit(jax.grad(largest))(params), jax.grad(largest_of_the_matrix)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=2e-2), found, expected)


def test_a_ridge_is_positive():
    for function in (spectrum.log_determinant, spectrum.effective_rank):
        with pytest.raises(ConfigError, match="ridge"):
            function(KEY, mlp, {"w": jnp.ones((5, 8)), "v": jnp.ones((8, 2))}, jnp.ones((3, 5)), 0.0)


@pytest.mark.slow
def test_the_largest_eigenvalues_of_ten_thousand_outputs_without_their_matrix():
    widths = (784, 512, 512, 512, 512, 10)
    shapes = list(itertools.pairwise(widths))
    weights = [
        jax.random.normal(key, shape) * (2 / shape[0]) ** 0.5
        for key, shape in zip(jax.random.split(KEY, len(shapes)), shapes, strict=True)
    ]

    def network(weights, x):
        for w in weights[:-1]:
            x = jax.nn.relu(x @ w)
        return x @ weights[-1]

    x = np.random.default_rng(0).standard_normal((1000, 784), np.float32)
    found = spectrum.top_eigenvalues(KEY, network, weights, jnp.asarray(x), 10).values
    kernel = kernel_blocks(factored_ntk(network), x, kernel_args=(weights,), block_size=100)
    matrix = kernel.transpose(0, 2, 1, 3).reshape(10**4, 10**4).astype(np.float64)
    expected = scipy.sparse.linalg.eigsh(matrix, k=10, tol=1e-8, return_eigenvectors=False)
    np.testing.assert_allclose(found, np.sort(expected)[::-1], rtol=1e-5)
