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
@pytest.mark.slow
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


@pytest.mark.slow
def test_a_given_derivative_is_used(float64):
    doubled = numerical(jnp.tanh, lambda x: 2 * (1 - jnp.tanh(x) ** 2))
    np.testing.assert_allclose(doubled.diagonal(1.0)[1], 4 * numerical(jnp.tanh).diagonal(1.0)[1], rtol=1e-9)


def test_moments_above_thresholds(float64):
    points = [(0.3, -0.7, 0.6), (1.2, 1.2, 0.999), (-0.5, 0.4, -0.9), (0.0, 0.0, 0.3), (0.0, 1.0, -1 + 1e-9)]
    step, ramp = lambda x: 1.0 * (x > 0), lambda x: np.maximum(x, 0)
    moments = ((orthant, step, step), (orthant_linear, step, ramp), (orthant_bilinear, ramp, ramp))
    got = jax.jit(lambda *triple: [fn(*triple) for fn, _, _ in moments])(*jnp.asarray(points).T)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    for i, (h, g, r) in enumerate(points):
        z, s = h + 5 + 5 * nodes, np.sqrt(1 - r * r)
        low = np.maximum(g, r * z - 9 * s)
        high = np.maximum(low, r * z + 9 * s)
        y = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * nodes
        density = np.exp(-((y - r * z[:, None]) ** 2) / (2 * s * s)) / (s * np.sqrt(2 * np.pi))
        for (_, left, right), values in zip(moments, got, strict=True):
            inner = (right(y - g) * density) @ weights * (high - low) / 2
            expected = 5 * weights @ (left(z - h) * inner * np.exp(-z * z / 2) / np.sqrt(2 * np.pi))
            np.testing.assert_allclose(values[i], expected, atol=2e-5)


def test_moments_above_thresholds_have_their_derivatives(float64):
    h, g, r = (jnp.asarray(x) for x in ([0.3, -0.8], [0.1, 0.5], [-0.4, 0.7]))
    every = jax.jit(lambda *x: orthant(*x) + 2 * orthant_linear(*x) + 3 * orthant_bilinear(*x))
    check_grads(every, (h, g, r), order=1, modes=("rev",), atol=1e-6, rtol=1e-6)
