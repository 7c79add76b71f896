"""Matrix-free inference: exact at the whole rank, within its own bound below it, the same on a mesh, and honest."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import gp, kernels
from aijax.errors import ConfigError, RunError
from aijax.parallel import make_mesh

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 2))
Y = np.sin(X[:, 0]) + 0.1 * RNG.normal(size=70)
NEW = RNG.normal(size=(9, 2))
MODEL = gp.GP(kernels.RBF([0.9, 1.4], 1.2), mean=0.3, noise_variance=0.05)
WHOLE = gp.Iterative(num_probes=4, tolerance=1e-10)
SOME = gp.Iterative(rank=12, num_probes=64, tolerance=1e-9)
CASES = {
    "plain": (MODEL, Y, None),
    "noise of each": (gp.GP(MODEL.kernel, noise_variance=np.linspace(0.02, 0.2, 70)), Y, None),
    "missing": (MODEL, np.where(np.arange(70) % 5, Y, np.nan), np.arange(70) % 5 > 0),
    "outputs": (MODEL, np.stack([Y, Y**2], 1), None),
    "white": (gp.GP(kernels.Matern32(0.8) + kernels.White(0.1), noise_variance=0.02), Y, None),
}
LONGER = [pytest.param(name, marks=pytest.mark.slow) for name in ("noise of each", "white")]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def value_and_grad(model, y, observed, solver):
    def value(model):
        return gp.log_marginal_likelihood(model, X, y, observed=observed, solver=solver, key=KEY)

    return jax.jit(jax.value_and_grad(value))(model)


def assert_same(found, expected, rtol=1e-7):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", ["plain", "outputs", pytest.param("missing", marks=pytest.mark.slow), *LONGER])
def test_at_the_whole_rank_it_is_exact(name):
    model, y, observed = CASES[name]
    assert_same(value_and_grad(model, y, observed, WHOLE), value_and_grad(model, y, observed, gp.Exact()))
    posteriors = [gp.condition(model, X, y, observed=observed, solver=solver) for solver in (WHOLE, gp.Exact())]
    for full_covariance in (False, True):
        found, exact = (gp.predict(posterior, NEW, full_covariance=full_covariance) for posterior in posteriors)
        assert_same(found, exact, 1e-6)


def test_below_it_value_and_gradient_lie_within_what_is_told():
    found, estimate = gp.evidence_and_gradient(KEY, MODEL, X, Y, solver=SOME)
    value, gradient = value_and_grad(MODEL, Y, None, gp.Exact())
    assert found.converged and found.iterations > 0 and found.residual < 1e-9
    assert 0 < found.standard_error < 1 and abs(found.value - value) < 4 * found.standard_error
    assert_same(estimate.gradient, value_and_grad(MODEL, Y, None, SOME)[1])
    errors = jax.tree.map(lambda a, b: np.abs(a - b), estimate.gradient, gradient)
    for error, bound in zip(jax.tree.leaves(errors), jax.tree.leaves(estimate.bound), strict=True):
        assert (error <= bound + 1e-8).all()


@pytest.mark.slow
def test_eight_devices_give_the_same():
    one = gp.Iterative(rank=20, num_probes=2, tolerance=1e-10, block_size=4)
    eight = dataclasses.replace(one, mesh=make_mesh())
    assert_same(value_and_grad(MODEL, Y, None, eight), value_and_grad(MODEL, Y, None, one))
    found, expected = (gp.predict(gp.condition(MODEL, X, Y, solver=solver), NEW) for solver in (eight, one))
    assert_same(found, expected)


def test_single_precision_stays_and_has_its_digits():
    model = jax.tree.map(np.float32, MODEL)
    solver = gp.Iterative(num_probes=4)
    found = gp.evidence(model, np.float32(X), np.float32(Y), solver=solver, key=KEY)
    exact = gp.log_marginal_likelihood(MODEL, X, Y)
    assert found.value.dtype == jnp.float32 and abs(found.value - exact) < 1e-3 * abs(exact)


def test_what_does_not_converge_is_told():
    solver = gp.Iterative(rank=1, num_probes=4, max_iterations=2, tolerance=1e-8)
    found = gp.evidence(MODEL, X, Y, solver=solver, key=KEY)
    assert not found.converged and found.residual > 1e-8 and found.iterations == 2
    with pytest.raises(RunError, match="log_marginal_likelihood: Iterative did not converge"):
        gp.log_marginal_likelihood(MODEL, X, Y, solver=solver, key=KEY)
    with pytest.raises(RunError, match="condition: Iterative did not converge"):
        gp.condition(MODEL, X, Y, solver=solver)
    assert not jax.jit(lambda: gp.condition(MODEL, X, Y, solver=solver).converged)()


def test_mistakes_are_told():
    with pytest.raises(ConfigError, match="key"):
        gp.evidence(MODEL, X, Y, solver=SOME)
    with pytest.raises(ConfigError, match="noise_variance: expected a positive number"):
        gp.evidence(gp.GP(kernels.RBF(), noise_variance=0.0), X, Y, solver=SOME, key=KEY)
    with pytest.raises(ConfigError, match="tolerance"):
        gp.Iterative(tolerance=2.0)
    with pytest.raises(ConfigError, match="second derivatives"):
        jax.hessian(lambda s: gp.log_marginal_likelihood(gp.GP(kernels.RBF(s)), X, Y, solver=SOME, key=KEY))(1.0)
