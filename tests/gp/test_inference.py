"""The verbs: what they refuse before any work, and what they add to what a posterior gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from aijax import gp, kernels
from aijax.errors import ConfigError, DataError, UserError

X = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
Y = X[:, 0].copy()
MODEL = gp.GP(kernels.RBF())


def with_value(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("model", "x", "y", "observed", "words"),
    [
        (MODEL, X[:4], Y, None, r"x: expected 6 points, as many as targets in y"),
        (MODEL, X, with_value(Y, 3, np.nan), None, "y: row 3 has a value that is not finite"),
        (MODEL, X, with_value(Y, 3, np.nan), np.arange(6) != 2, "y: row 3"),
        (MODEL, with_value(X, (2, 1), np.inf), Y, None, "x: row 2 has a value that is not finite"),
        (MODEL, X, np.arange(6), None, "y: expected floating targets.*int"),
        (MODEL, np.zeros((6, 2), int), Y, None, "x: expected floating points.*int"),
        (MODEL, X, Y[:, None, None], None, r"y: expected targets \[n\] or \[n, m\]"),
        (MODEL, X, Y[:0], None, "n at least 1"),
        (MODEL, X, Y, np.ones(6), "observed: expected a mask"),
        (MODEL, X, Y, np.ones(5, bool), r"observed: expected a mask \[6\] of bool"),
        (gp.GP(kernels.RBF(), noise_variance=jnp.ones(4)), X, Y, None, "noise_variance: expected a number or one for"),
        (gp.GP(kernels.RBF(), mean=lambda x: x), X, Y, None, "mean: expected values of shape"),
        (gp.GP(kernels.RBF(jnp.ones(3))), X, Y, None, "lengthscale"),
        (gp.GP(kernels.RBF(), noise_variance=0.0), with_value(X, 4, X[1]), Y, None, "points 1 and 4 are the same"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(model, x, y, observed, words):
    for verb in (gp.evidence, gp.condition):
        with pytest.raises(UserError, match=words):
            verb(model, x, y, observed=observed)


def test_equal_points_are_fine_with_noise_of_any_kind():
    x = with_value(X, 4, X[1])
    assert jnp.isfinite(gp.log_marginal_likelihood(MODEL, x, Y))
    assert jnp.isfinite(gp.log_marginal_likelihood(gp.GP(kernels.RBF() + kernels.White(), noise_variance=0.0), x, Y))
    noise = jnp.where(jnp.arange(6) == 4, 0.1, 0.0)
    assert jnp.isfinite(gp.log_marginal_likelihood(gp.GP(kernels.Matern12(), noise_variance=noise), x, Y))


def test_noise_of_new_targets():
    posterior = gp.condition(MODEL, X, Y)
    _, std = gp.predict(posterior, X)
    _, wider = gp.predict(posterior, X, include_noise=True)
    np.testing.assert_allclose(wider**2, std**2 + 0.1, rtol=1e-5)
    _, covariance = gp.predict(posterior, X, full_covariance=True, include_noise=True)
    np.testing.assert_allclose(jnp.diagonal(covariance), wider**2, rtol=1e-5)
    each = gp.condition(gp.GP(kernels.RBF(), noise_variance=jnp.full(6, 0.1)), X, Y)
    with pytest.raises(ConfigError, match="include_noise"):
        gp.predict(each, X, include_noise=True)


def test_points_that_are_not_finite_and_covariances_that_are_none():
    with pytest.raises(DataError, match="x: row 2"):
        gp.predict(gp.condition(MODEL, X, Y), with_value(X, 2, np.nan))
    with pytest.raises(DataError, match="smallest eigenvalue"):
        gp.sample(jax.random.key(0), gp.GP(lambda a, b: -jnp.sum((a - b) ** 2)), X)


def test_new_points_that_are_not_finite_are_refused_whatever_the_solver():
    x = jnp.linspace(0.0, 1.0, 6)
    posterior = gp.condition(gp.GP(kernels.Matern32()), x, x, solver=gp.Toeplitz())
    bad = jnp.array([0.5, jnp.nan])
    for verb in (gp.predict, gp.predict_targets, lambda *args: gp.sample(jax.random.key(0), *args)):
        with pytest.raises(DataError, match="row 1"):
            verb(posterior, bad)


def test_what_is_no_solver_is_told():
    for wrong in (gp.StateSpace, gp.Bernoulli(), None):
        for verb in (gp.condition, gp.evidence, gp.fit):
            with pytest.raises(ConfigError, match="solver: expected one such as"):
                verb(gp.GP(kernels.RBF()), X, Y, solver=wrong)


def test_nothing_is_silent_under_jit():
    found = jax.jit(gp.evidence)(MODEL, X, with_value(Y, 1, np.nan))
    assert not found.converged and jnp.isnan(found.value)
    assert not jax.jit(gp.condition)(MODEL, X, with_value(Y, 1, np.nan)).converged


def test_sharded_points_give_the_same():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x, y = jax.device_put((X, Y), rows)
    found = jax.jit(gp.log_marginal_likelihood)(MODEL, x, y)
    np.testing.assert_allclose(found, gp.log_marginal_likelihood(MODEL, X, Y), rtol=1e-5)


def test_parameters_known_inside_compiled_functions_only_are_checked_by_checkify():
    def value(lengthscale):
        return gp.log_marginal_likelihood(gp.GP(kernels.RBF(lengthscale)), X, Y)

    checked = checkify.checkify(jax.jit(jax.value_and_grad(value)))
    assert "gp.kernel.lengthscale: expected a positive number" in checked(-1.0)[0].get()
    assert checked(1.0)[0].get() is None


@pytest.mark.parametrize(
    ("solver", "y"), [(gp.Laplace(gp.Bernoulli()), np.arange(4) > 1), (gp.Grid((4,)), np.arange(4.0))]
)
def test_predictions_of_many_points_are_made_in_blocks(solver, y):
    posterior = gp.condition(MODEL, np.linspace(0, 1, 4), y, solver=solver)
    z = np.linspace(-1, 2, 2050)
    mean, std = gp.predict(posterior, z)
    few, spread = gp.predict(posterior, z[1020:1030])
    np.testing.assert_allclose(mean[1020:1030], few, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std[1020:1030], spread, rtol=1e-5, atol=1e-6)
    assert "scan" in str(jax.make_jaxpr(lambda z: gp.predict(posterior, z))(z))
