"""Derivatives of predictions against finite differences, above all where eigenvalues are repeated or zero."""

import decimal
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.test_util import check_grads

from aijax.errors import ConfigError
from aijax.ntk import predict
from aijax.ntk.predict import spectral

RNG = np.random.default_rng(0)
ROTATION = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
Y = RNG.normal(size=(4, 2))
CROSS = RNG.normal(size=(3, 4))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def kernel(values):
    return jnp.asarray(ROTATION @ np.diag(np.asarray(values, float)) @ ROTATION.T)


SPECTRA = {
    "distinct": [1.0, 2.0, 3.0, 7.0],
    "repeated": [2.0, 2.0, 2.0, 5.0],
    "identity": [1.0, 1.0, 1.0, 1.0],
    "nearly repeated": [2.0, 2.0 + 1e-9, 2.0 + 1e-5, 9.0],
    "wide": [1e-4, 1e-4, 1.0, 50.0],
}


@functools.cache
def predictions(t_is_none):
    def predicted(k, y, cross, rate, reg, start, t):
        predict_fn = predict.gradient_descent_mse(k, y, rate, reg)
        train, test = predict_fn(None if t_is_none else t, start, start, cross)
        return jnp.sum(jnp.sin(3 * train)) + jnp.sum(jnp.cos(test))

    arguments = tuple(range(6)) if t_is_none else tuple(range(7))
    return jax.jit(predicted), jax.jit(jax.grad(predicted, arguments))


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("t", [None, 0.0, 3.0, 400.0])
def test_gradients_are_right_for_every_argument(spectrum, t):
    value, gradient = predictions(t is None)
    arguments = (kernel(SPECTRA[spectrum]), jnp.asarray(Y), jnp.asarray(CROSS), 0.7, 0.01, 0.2, 3.0 if t is None else t)
    gradients = gradient(*arguments)
    for i, slope in enumerate(gradients):
        direction = RNG.normal(size=np.shape(arguments[i]))
        if i == 0:
            direction = direction + direction.T
        if i == 6 and t == 0.0:
            direction = np.abs(direction)
        h = 1e-5 * max(1.0, t or 0.0) if i == 6 else 1e-6

        def at(step, i=i, direction=direction):
            return value(*(a + step * direction if j == i else a for j, a in enumerate(arguments)))

        if i == 6 and t == 0.0:  # no negative times: a one-sided difference of second order
            difference = (-3 * at(0.0) + 4 * at(h) - at(2 * h)) / (2 * h)
        else:
            difference = (at(h) - at(-h)) / (2 * h)
        np.testing.assert_allclose(np.sum(slope * direction), difference, rtol=2e-5, atol=1e-7)


def test_the_divided_differences_are_exact_over_many_scales():
    values = [0.0, 1e-12, 1e-6, 0.3, 0.3 + 1e-9, 0.99, 1.01, 40.0, 1e4]
    times = [1e-6, 1.0, 100.0]
    first, second = spectral._divided_differences(jnp.asarray(values), jnp.asarray(times))
    with decimal.localcontext(prec=80):
        for n, s in enumerate(map(decimal.Decimal, times)):
            decays = [(-s * x).exp() for x in map(decimal.Decimal, values)]
            integrals = [(1 - d) / decimal.Decimal(x) if x else s for d, x in zip(decays, values, strict=True)]
            for i, j in itertools.permutations(range(len(values)), 2):
                width = decimal.Decimal(values[i]) - decimal.Decimal(values[j])
                np.testing.assert_allclose(first[n, i, j], float((decays[i] - decays[j]) / width), rtol=1e-13)
                np.testing.assert_allclose(second[n, i, j], float((integrals[i] - integrals[j]) / width), rtol=1e-13)


def test_jvp_is_the_frechet_derivative_of_the_exponential():
    k = kernel(SPECTRA["repeated"])
    direction = RNG.normal(size=(4, 4))
    direction = jnp.asarray(direction + direction.T)

    def decay(k):
        return spectral.flow(k, spectral.spectrum(jax.lax.stop_gradient(k)), jnp.eye(4), jnp.array([0.5]))[0][0]

    value, slope = jax.jvp(decay, (k,), (direction,))
    expected, expected_slope = scipy.linalg.expm_frechet(-0.5 * np.asarray(k), -0.5 * np.asarray(direction))
    np.testing.assert_allclose(value, expected, atol=1e-13)
    np.testing.assert_allclose(slope, expected_slope, atol=1e-13)


@pytest.mark.parametrize("t", [*(pytest.param(t, marks=pytest.mark.slow) for t in (None, np.inf)), 5.0])
def test_gradients_on_singular_kernels_are_finite_and_follow_constant_rank(t):
    x = jnp.asarray(RNG.normal(size=(4, 2)))  # rank 2

    def score(x, y):
        train, test = predict.gradient_descent_mse(x @ x.T, y)(t, 0.1, 0.0, jnp.asarray(CROSS[:, :2]) @ x.T)
        return jnp.sum(train**2) + jnp.sum(jnp.sin(test))

    check_grads(score, (x, jnp.asarray(Y)), order=1, modes=["fwd", "rev"], atol=1e-5, rtol=1e-5)
    slope = jax.grad(lambda k: predict.gradient_descent_mse(k, jnp.asarray(Y))(t, 0.0, 0.0, k)[1].sum())(
        jnp.ones((4, 4))
    )
    assert jnp.isfinite(slope).all()


def test_infinite_times_have_no_derivative_in_time_or_rate_and_no_nan():
    k = kernel(SPECTRA["distinct"])

    def total(t, rate):
        return predict.gradient_descent_mse(k, jnp.asarray(Y), rate)(t, 0.0).sum()

    slopes = jax.grad(total, (0, 1))(jnp.inf, 0.5)
    assert slopes == (0, 0)
    mixed = jax.grad(lambda ts: total(ts, 0.5))(jnp.array([1.0, jnp.inf]))
    assert mixed[0] != 0 and mixed[1] == 0


@pytest.mark.slow
def test_hessians_where_they_are_offered_and_a_refusal_where_not():
    k, y = kernel(SPECTRA["repeated"]), jnp.asarray(Y)

    def score(k, t, y):
        return jnp.sum(jnp.sin(predict.gradient_descent_mse(k, y)(t, 0.1, 0.0, jnp.asarray(CROSS))[1]))

    check_grads(lambda t, y: score(k, t, y), (2.0, y), order=2, modes=["rev"], atol=1e-5, rtol=1e-5)
    direction = kernel([0.1, 0.4, -0.2, 0.3])
    check_grads(lambda s: score(k + s * direction, None, y), (0.5,), order=2, modes=["rev"], atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="second derivatives"):
        jax.grad(jax.grad(lambda s: score(k + s * direction, 2.0, y)))(0.5)


@pytest.mark.slow
def test_gradients_of_ensembles_and_posteriors_with_repeated_eigenvalues():
    x = jnp.asarray([[0.0, 0], [1, 0], [0, 1], [1, 1]])  # a square: its kernel has a repeated eigenvalue
    x_test, y = jnp.asarray(RNG.normal(size=(2, 2))), jnp.asarray(Y)

    def kernel_fn(lengthscale, x1, x2, get):
        x2 = x1 if x2 is None else x2
        distance = jnp.sum((x1[:, None] - x2[None]) ** 2, -1)
        kernels = {"nngp": jnp.exp(-distance / lengthscale**2), "ntk": 1 + jnp.exp(-distance / (3 * lengthscale**2))}
        return kernels[get] if isinstance(get, str) else predict_pair(**kernels)

    def score(lengthscale, reg, t):
        predict_fn = predict.gradient_descent_mse_ensemble(
            functools.partial(kernel_fn, lengthscale), x, y, diag_reg=reg
        )
        results = predict_fn(t, x_test, None, compute_cov=True), predict_fn(t, None, None, compute_cov=True)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(results))

    for t in (None, 2.0):
        jitted = jax.jit(functools.partial(score, t=t))
        check_grads(jitted, (1.1, 0.05), order=1, modes=["rev"], atol=1e-6, rtol=1e-6, eps=1e-5)


@pytest.mark.slow
def test_gradients_through_the_ode():
    k, y = kernel(SPECTRA["repeated"]), jnp.asarray(Y)

    def score(k, y, t):
        predict_fn = predict.gradient_descent(lambda f, y: 0.5 * jnp.mean((f - y) ** 2), k, y)
        return jnp.sum(jnp.sin(predict_fn(t, 0.1)))

    def closed(k, y, t):
        return jnp.sum(jnp.sin(predict.gradient_descent_mse(k, y)(t, 0.1)))

    ours, exact = (jax.jit(jax.grad(f, (0, 1, 2)))(k, y, 2.0) for f in (score, closed))
    np.testing.assert_allclose(ours[0] + ours[0].T, exact[0] + exact[0].T, atol=1e-6)
    np.testing.assert_allclose(ours[1], exact[1], atol=1e-6)
    np.testing.assert_allclose(ours[2], exact[2], atol=1e-6)


class predict_pair:
    """What a kernel function gives for several kernels: anything with these fields."""

    def __init__(self, nngp, ntk):
        self.nngp, self.ntk = nngp, ntk
