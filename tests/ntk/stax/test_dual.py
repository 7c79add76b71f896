"""Duals in closed form: against quadrature, against each other, and at the ends of the range of correlations."""

import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from aijax.errors import ConfigError
from aijax.ntk.stax import dual_polynomial as polynomials
from aijax.ntk.stax import dual_rectified as rectified
from aijax.ntk.stax import dual_smooth as smooth
from aijax.ntk.stax.arcsine import angle, arcsine_of_root
from aijax.ntk.stax.dual_given import given

sys.path.insert(0, str(Path(__file__).parent))

from brute import pair_expectation

KINKED = {
    "relu": lambda: rectified.abrelu(0, 1),
    "abrelu": lambda: rectified.abrelu(-0.5, 1.5),
    "abs": lambda: rectified.abrelu(-1, 1),
    "rectified1": lambda: rectified.rectified_monomial(1),
    "rectified2": lambda: rectified.rectified_monomial(2),
    "rectified3": lambda: rectified.rectified_monomial(3),
    "rectified5": lambda: rectified.rectified_monomial(5),
}
SMOOTH = {
    "erf": lambda: smooth.erf(1.3, 0.7, 0.2),
    "gelu": lambda: smooth.gelu(),
    "sin": lambda: smooth.sin(1.2, 0.8, 0.3),
    "cos": lambda: smooth.cos(0.9, 1.1, 0.4),
    "rbf": lambda: smooth.rbf(0.7),
    "exp": lambda: smooth.exp(1.1, 0.6),
    "gaussian": lambda: smooth.gaussian(1.5, -0.4),
    "gabor": lambda: smooth.gabor(),
    "hermite4": lambda: polynomials.hermite(4),
    "monomial6": lambda: polynomials.monomial(6),
    "polynomial": lambda: polynomials.polynomial((0.1, 0.5, -0.2, 0.05)),
}
STEPS = {"step": lambda: rectified.rectified_monomial(0), "sign": rectified.sign}
ALL = {**KINKED, **SMOOTH, **STEPS}
TRIPLES = [(1.0, 0.3, 1.0), (0.4, -0.6, 2.0), (1.7, 1.6, 1.8), (0.8, -0.79, 0.8), (2.5, 2.5, 2.5), (1.5, 0.0, 0.2)]


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def slope_of(fn):
    return lambda x: jax.jvp(fn, (x,), (jnp.ones_like(x),))[1]


def in_numpy(fn):
    return lambda x: np.asarray(fn(jnp.asarray(x)), np.float64)


@pytest.mark.parametrize("name", [*KINKED, *SMOOTH])
def test_both_duals_are_the_expectations(name, float64):
    dual = ALL[name]()
    kinks = (0.0,) if name in KINKED else ()
    value, slope = jax.jit(dual.kernel)(*jnp.asarray(TRIPLES).T)
    for i, triple in enumerate(TRIPLES):
        for fn, got in ((dual.fn, value[i]), (slope_of(dual.fn), slope[i])):
            expected = pair_expectation(in_numpy(fn), *triple, kinks=kinks)
            scale = dual.kernel(2.0, 2.0, 2.0)[0 if fn is dual.fn else 1]
            np.testing.assert_allclose(float(got), expected, rtol=1e-9, atol=1e-10 * float(scale), err_msg=str(triple))


@pytest.mark.parametrize("name", list(STEPS))
def test_a_step_has_the_arcsine_kernel_and_no_slope(name, float64):
    value, slope = ALL[name]().kernel(1.0, jnp.asarray([1.0, 0.5, -1.0]), 1.0)
    expected = {"sign": [1, 1 / 3, -1], "step": [0.5, 1 / 3, 0]}[name]
    np.testing.assert_allclose(value, expected, atol=1e-15)
    assert not slope.any()


@pytest.mark.parametrize("name", list(ALL))
def test_symmetry_bounds_and_the_diagonal_as_limit(name, float64):
    dual = ALL[name]()
    q = jnp.asarray([0.3, 1.0, 2.2])
    s = jnp.sqrt(q[:, None] * q)
    for r in (1.0, 0.6, 0.0, -1.0):
        value, slope = dual.kernel(q[:, None], r * s, q)
        np.testing.assert_allclose(value, value.T, rtol=1e-12, atol=1e-14)
        own, own_slope = dual.diagonal(q)
        assert np.all(value**2 <= np.outer(own, own) * (1 + 1e-12) + 1e-14)
        if r == 1:
            np.testing.assert_allclose(jnp.diag(value), own, rtol=1e-12)
            np.testing.assert_allclose(jnp.diag(slope), own_slope, rtol=1e-12)


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("wide", [False, True])
def test_gradients_are_finite_at_coincident_opposite_and_zero_inputs(name, wide):
    with jax.enable_x64(wide):
        dual = ALL[name]()
        x = jnp.asarray([[1.0, 2.0], [1.0, 2.0], [-1.0, -2.0], [2.0, 4.0], [0.0, 0.0], [1e-8, 2e-8]])

        def total(x):
            q = jnp.sum(x * x, 1)
            value, slope = dual.kernel(q[:, None], x @ x.T, q)
            return value.sum() + slope.sum()

        value, gradient = jax.value_and_grad(total)(x)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", [*KINKED, *SMOOTH])
def test_the_slope_is_the_derivative_in_the_covariance(name, float64):
    dual = ALL[name]()
    q1, k, q2 = (jnp.asarray(x) for x in zip(*[t for t in TRIPLES if t[1] ** 2 < 0.95 * t[0] * t[2]], strict=True))
    derivative = jax.grad(lambda k: dual.kernel(q1, k, q2)[0].sum())(k)
    np.testing.assert_allclose(derivative, dual.kernel(q1, k, q2)[1], rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_derivatives_of_relu_moments_agree_with_finite_differences(float64):
    for n in range(4):

        def moment(q1, k, q2, n=n):
            return rectified.rectified_moments(n, q1, k, q2)[0]

        check_grads(moment, (1.3, 0.4, 0.9), order=2, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


def test_relu_is_exact_on_the_diagonal_and_zero_for_zero_vectors():
    q = jnp.asarray([0.1, 1 / 3, 7.7])
    value, slope = rectified.abrelu(0, 1).kernel(q, q, q)
    assert (value == q / 2).all() and (slope == 0.5).all()
    value, slope = rectified.abrelu(0, 1).kernel(0.0, 0.0, q)
    assert (value == 0).all() and (slope == 0.25).all()


def test_float32_keeps_its_digits_near_parallel():
    theta = np.geomspace(1e-2, 3.1, 200)
    k = np.cos(theta).astype(np.float32)
    exact = np.arccos(k.astype(np.float64))
    slope = rectified.abrelu(0, 1).kernel(np.float32(1), jnp.asarray(k), np.float32(1))[1]
    np.testing.assert_allclose(slope, (np.pi - exact) / (2 * np.pi), atol=2e-7)


def test_the_arcsine_is_exact_to_rounding():
    for wide, dtype in ((False, np.float32), (True, np.float64)):
        with jax.enable_x64(wide):
            w = np.linspace(0, 0.5, 20001).astype(dtype)
            got = np.asarray(jax.jit(arcsine_of_root)(jnp.asarray(w * w)))
            np.testing.assert_allclose(got, np.arcsin(w.astype(np.float64)), rtol=4 * np.finfo(dtype).eps)
            x = np.concatenate([-np.geomspace(1e-6, 1e3, 200), [0], np.geomspace(1e-6, 1e3, 200)]).astype(dtype)
            got = np.asarray(angle(jnp.asarray(x), jnp.ones(len(x), dtype)))
            np.testing.assert_allclose(got, np.arctan2(x, 1).astype(np.float64), rtol=8 * np.finfo(dtype).eps)


def test_hermite_has_powers_for_unit_variance(float64):
    k = jnp.linspace(-1, 1, 7)
    value, slope = polynomials.hermite(5).kernel(1.0, k, 1.0)
    np.testing.assert_allclose(value, k**5, atol=1e-14)
    np.testing.assert_allclose(slope, 5 * k**4, atol=1e-13)


def arccosine(k, q1, q2):
    s = jnp.sqrt(q1 * q2)
    return s / (2 * jnp.pi) * (jnp.sqrt(1 - (k / s) ** 2) + (jnp.pi - jnp.arccos(k / s)) * k / s)


def williams(k, q1, q2):
    return 2 / jnp.pi * jnp.arcsin(2 * k / jnp.sqrt((1 + 2 * q1) * (1 + 2 * q2)))


@pytest.mark.parametrize(("covariance", "exact"), [(arccosine, KINKED["relu"]), (williams, smooth.erf)])
@pytest.mark.parametrize(("wide", "tol"), [(True, 1e-9), (False, 1e-5)])
@pytest.mark.slow
def test_a_given_covariance_map_is_differentiated_up_to_the_diagonal(covariance, exact, wide, tol):
    with jax.enable_x64(wide):
        q = jnp.asarray([0.3, 1.0, 6.0])
        for dual_slope in (None, lambda k, q1, q2: exact().kernel(q1, k, q2)[1]):
            dual = given(None, covariance, dual_slope)
            for r in (1.0, 0.7, -1.0):
                k = r * jnp.sqrt(q[:, None] * q)
                got, expected = dual.kernel(q[:, None], k, q), exact().kernel(q[:, None], k, q)
                for a, b in zip(got, expected, strict=True):
                    np.testing.assert_allclose(a, b, rtol=tol, atol=tol)
            gradient = jax.grad(lambda q, dual=dual: dual.diagonal(q)[0].sum())(q)
            np.testing.assert_allclose(gradient, jax.grad(lambda q: exact().diagonal(q)[0].sum())(q), atol=1e2 * tol)


@pytest.mark.parametrize("make", [polynomials.monomial, polynomials.hermite, rectified.rectified_monomial])
@pytest.mark.parametrize("degree", [-1, 1.5, True])
def test_a_degree_that_is_none_is_refused(make, degree):
    with pytest.raises(ConfigError, match="degree"):
        make(degree)


def test_a_polynomial_needs_a_coefficient():
    with pytest.raises(ConfigError, match="coef"):
        polynomials.polynomial(())


def test_normalised_exponential_knows_only_its_kernel():
    dual = smooth.exp_normalized(0.8)
    assert math.isclose(float(dual.diagonal(2.0)[0]), 2.0, rel_tol=1e-6)
    with pytest.raises(NotImplementedError):
        dual.fn(jnp.ones(2))
