"""Features whose inner products are kernels: random ones at their rate, Nystrom's, and eigenfunctions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import kernels
from aijax.errors import ConfigError

X = np.random.default_rng(0).normal(size=(12, 2))
KERNELS = {
    "rbf": kernels.RBF([0.8, 1.5], 1.3),
    "matern32": kernels.Matern32(1.2),
    "rational_quadratic": kernels.RationalQuadratic(1.1, 0.9),
    "sum": kernels.RBF(0.9) + 0.5 * kernels.Matern52(1.4),
    "product": kernels.RBF(1.2) * kernels.RBF(2.0),
}


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("name", KERNELS)
def test_random_features_come_near_the_kernel_at_the_rate_of_their_number(name, orthogonal):
    with jax.enable_x64(True):
        kernel, x = KERNELS[name], jnp.asarray(X)
        features = kernels.random_features(jax.random.key(1), kernel, 8000, x, orthogonal=orthogonal)(x)
        scale = float(kernel.diagonal(x)[0])
        assert np.abs(features @ features.T - kernel(x)).max() < 6 * scale / 4000**0.5


def test_nystrom_is_exact_at_its_landmarks_and_tells_its_error():
    with jax.enable_x64(True):
        kernel, x = kernels.Matern52(0.7), jnp.asarray(X)
        features = kernels.nystrom(kernel, x, 12)
        np.testing.assert_allclose(features(x) @ features(x).T, kernel(x), atol=1e-10)
        few = kernels.nystrom(kernel, x, 4)
        left = np.diag(kernel(x) - few(x) @ few(x).T)
        assert (left > -1e-12).all() and np.isclose(left.mean(), few.error, rtol=1e-8)


@pytest.mark.parametrize("key", [None, 0])
def test_eigenfunctions_are_orthonormal_and_sum_to_the_kernel(key):
    with jax.enable_x64(True):
        kernel, x = kernels.Matern12(0.7), jnp.asarray(X)
        search = None if key is None else jax.random.key(key)
        found = kernels.eigenfunctions(kernel, x, 5, key=search, tolerance=1e-10)
        np.testing.assert_allclose(found.values, np.linalg.eigvalsh(kernel(x) / 12)[::-1][:5], rtol=1e-8)
        np.testing.assert_allclose(found(x).T @ found(x) / 12, np.eye(5), atol=1e-7)
        whole = kernels.eigenfunctions(kernel, x, 12)
        np.testing.assert_allclose((whole(x) * whole.values) @ whole(x).T, kernel(x), atol=1e-10)


def test_mistakes():
    with pytest.raises(ConfigError, match="even"):
        kernels.random_features(jax.random.key(0), kernels.RBF(), 5, X)
    with pytest.raises(ConfigError, match="at most"):
        kernels.eigenfunctions(kernels.RBF(), jnp.zeros((3, 1)), 4)


def test_features_of_equal_kernels_share_compiled_functions():
    kernel = kernels.Columns(kernels.RBF(), (0,)) * kernels.LinearMap(kernels.Matern32(), jnp.eye(2))
    made = [kernels.random_features(jax.random.key(i), kernel, 4, jnp.asarray(X)) for i in range(2)]
    assert jax.tree.structure(made[0]) == jax.tree.structure(made[1])
