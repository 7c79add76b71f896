"""Duals of any function: against quadrature that knows the kinks, at all correlations."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from aijax.ntk.stax.bivariate_normal import orthant, orthant_bilinear, orthant_linear
from aijax.ntk.stax.dual_numerical import numerical
from aijax.ntk.stax.dual_rectified import abrelu
from aijax.ntk.stax.kinks import find_jumps

sys.path.insert(0, str(Path(__file__).parent))

from brute import pair_expectation

FUNCTIONS = {
    "tanh": (jnp.tanh, ()),
    "silu": (jax.nn.silu, ()),
    "softplus": (jax.nn.softplus, ()),
    "hard_tanh": (lambda x: jnp.clip(x, -1, 1), (-1.0, 1.0)),
    "elu": (jax.nn.elu, (0.0,)),
}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_both_duals_are_the_expectations(name, float64):
    fn, kinks = FUNCTIONS[name]
    triples = [(q, r * q * np.sqrt(s), s * q) for q in (0.3, 5.0) for r, s in ((1, 1), (1, 1.3), (-1, 1), (0.97, 1.2))]
    value, slope = jax.jit(numerical(fn).kernel)(*jnp.asarray(triples).T)
    of_slope = lambda x: np.asarray(jax.jvp(fn, (jnp.asarray(x),), (jnp.ones(len(x)),))[1])  # noqa: E731
    of_value = lambda x: np.asarray(fn(jnp.asarray(x)))  # noqa: E731
    for got, function in ((value, of_value), (slope, of_slope)):
        expected = [pair_expectation(function, *triple, kinks=kinks) for triple in triples]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("wide", "tol"), [(True, 1e-12), (False, 5e-6)])
def test_relu_agrees_with_its_closed_form(wide, tol):
    with jax.enable_x64(wide):
        q = jnp.asarray([0.0, 0.2, 1.0, 30.0])
        dual = numerical(jax.nn.relu)
        k = jnp.asarray([1.0, 0.3, -1.0])[:, None, None] * jnp.sqrt(q[:, None] * q)
        got, expected = jax.jit(dual.kernel)(q[:, None], k, q), abrelu(0, 1).kernel(q[:, None], k, q)
        np.testing.assert_allclose(got[0] / 30, expected[0] / 30, rtol=0, atol=tol)
        np.testing.assert_allclose(got[1], expected[1], rtol=0, atol=tol)
        total = lambda q: dual.kernel(q[:, None], jnp.sqrt(q[:, None] * q), q)[0].sum()  # noqa: E731
        assert np.isfinite(jax.jit(jax.grad(total))(q[1:])).all()


def test_jumps_and_kinks_are_found(float64):
    assert find_jumps(lambda x: jnp.where(x > 2, 5.0, 1.0), jnp.float64) == [(pytest.approx(2), 4.0)]
    assert find_jumps(jnp.tanh, jnp.float64) == []
    slope = lambda x: jax.jvp(jax.nn.relu6, (x,), (jnp.ones_like(x),))[1]  # noqa: E731
    assert find_jumps(slope, jnp.float64) == [(0, 1.0), (pytest.approx(6), -1.0)]


def test_no_jumps_are_looked_for_in_a_function_of_traced_values():
    found = []

    @jax.jit
    def run(a):
        found.append(find_jumps(lambda x: a * jax.nn.relu(x), jnp.float32))
        return a

    run(2.0)
    assert found == [[]]


def test_a_given_derivative_is_used(float64):
    doubled = numerical(jnp.tanh, lambda x: 2 * (1 - jnp.tanh(x) ** 2))
    np.testing.assert_allclose(doubled.diagonal(1.0)[1], 4 * numerical(jnp.tanh).diagonal(1.0)[1], rtol=1e-9)


def test_moments_above_thresholds(float64):
    rng = np.random.default_rng(0)
    for h, g, r in [(0.3, -0.7, 0.6), (1.2, 1.2, 0.999), (-0.5, 0.4, -0.9), (0.0, 0.0, 0.3), (0.0, 1.0, -1 + 1e-9)]:
        for fn, left, right in (
            (orthant, lambda x: 1.0 * (x > 0), lambda x: 1.0 * (x > 0)),
            (orthant_linear, lambda x: 1.0 * (x > 0), lambda x: np.maximum(x, 0)),
            (orthant_bilinear, lambda x: np.maximum(x, 0), lambda x: np.maximum(x, 0)),
        ):
            points, weights = np.polynomial.legendre.leggauss(400)
            # Z2 given Z1 = z is normal: the inner moment in closed form by one-dimensional quadrature on both
            z = h + 5 + 5 * points
            s = np.sqrt(1 - r * r)
            inner_points, inner_weights = np.polynomial.legendre.leggauss(400)
            low = np.maximum(g, r * z - 9 * s)
            high = np.maximum(low, r * z + 9 * s)
            y = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * inner_points
            density = np.exp(-((y - r * z[:, None]) ** 2) / (2 * s * s)) / (s * np.sqrt(2 * np.pi))
            inner = (right(y - g) * density) @ inner_weights * (high - low) / 2
            expected = 5 * weights @ (left(z - h) * inner * np.exp(-z * z / 2) / np.sqrt(2 * np.pi))
            np.testing.assert_allclose(float(fn(*map(jnp.asarray, (h, g, r)))), expected, atol=2e-5)
    h, g, r = (jnp.asarray(rng.uniform(-0.9, 0.9, 4)) for _ in range(3))
    for fn in (orthant, orthant_linear, orthant_bilinear):
        check_grads(jax.jit(fn), (h, g, r), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)
