"""Collapsed sparse regression against reference values, dense algebra, itself in chunks; its variance where K is
singular."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import gp, kernels
from aijax.errors import ConfigError, DataError
from aijax.gp import sparse

condition = jax.jit(gp.condition)
log_marginal_likelihood = jax.jit(gp.log_marginal_likelihood)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def model(log_params):
    """A GP of logarithms of d lengthscales, variance and noise."""
    values = jnp.exp(log_params)
    return gp.GP(kernels.RBF(values[:-2], values[-2]), noise_variance=values[-1])


@jax.jit
def bound_and_slopes(log_params, u, x, y):
    def bound(log_params, u):
        return gp.log_marginal_likelihood(model(log_params), x, y, solver=sparse.SGPR(u))

    return jax.value_and_grad(bound, argnums=(0, 1))(log_params, u)


@pytest.mark.parametrize("seed", [1, 2])
def test_golden(golden, seed):
    case = np.load(golden / "gp" / f"sparse_sgpr_s{seed}.npz")
    x, y, u, z, log_params = (jnp.asarray(case[name]) for name in ("x", "y", "u", "z", "log_params"))
    value, (slope, slope_u) = bound_and_slopes(log_params, u, x, y)
    np.testing.assert_allclose(value, case["sgpr_elbo"], rtol=1e-9)
    np.testing.assert_allclose(slope, case["sgpr_elbo_grad"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(slope_u, case["sgpr_elbo_grad_u"], rtol=1e-8, atol=1e-8)
    fitc = log_marginal_likelihood(model(log_params), x, y, solver=sparse.SGPR(u, "fitc"))
    np.testing.assert_allclose(fitc, case["fitc_lml"], rtol=1e-9)
    posterior = condition(model(log_params), x, y, solver=sparse.SGPR(u))
    assert posterior.jitter == 0
    for found, name in zip(sparse.inducing_moments(posterior), ("q_mean", "q_cov"), strict=True):
        np.testing.assert_allclose(found, case[name], rtol=1e-8, atol=1e-9)
    mean, covariance = gp.predict(posterior, z, full_covariance=True)
    np.testing.assert_allclose(mean, case["mean"], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(covariance, case["cov"], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(gp.predict(posterior, z)[1] ** 2, np.diag(case["cov"]), rtol=1e-9)


def dense(method, gram, cross, variance, noise, residual):
    """The density of the sparse model by `[n, n]` matrices."""
    low_rank = cross.T @ jnp.linalg.solve(gram, cross)
    rest = variance - jnp.diag(low_rank)
    covariance = low_rank + jnp.diag(noise + (rest if method == "fitc" else 0))
    value = jax.scipy.stats.multivariate_normal.logpdf(residual.T, jnp.zeros(len(noise)), covariance).sum()
    return value - (residual.shape[1] / 2 * jnp.sum(rest / noise) if method == "vfe" else 0)


@pytest.fixture(scope="module")
def problem():
    """Points, two outputs, inducing points, noise of each point."""
    keys = jax.random.split(jax.random.key(0), 4)
    with jax.enable_x64(True):
        x = jax.random.normal(keys[0], (23, 2))
        y = jnp.stack([jnp.sin(x[:, 0]), jnp.cos(x[:, 1])], 1) + 0.1 * jax.random.normal(keys[1], (23, 2))
        return x, y, jax.random.normal(keys[2], (5, 2)), 0.1 + 0.3 * jax.random.uniform(keys[3], (23,))


def everything(solver):
    """Parameters -> evidence, of a GP with a mean and noise of each point."""

    def evidence(lengthscale, variance, mean, noise, u, x, y, observed=None):
        model = gp.GP(kernels.Matern52(lengthscale, variance), mean, noise)
        return log_marginal_likelihood(model, x, y, observed=observed, solver=solver(u))

    return evidence


@pytest.mark.parametrize("method", ["vfe", pytest.param("fitc", marks=pytest.mark.slow)])
def test_derivatives_are_those_of_dense_algebra(problem, method):
    """In all parameters, noise of each point, inducing points, inputs and targets; chunks do not change them."""
    x, y, u, noise = problem

    def reference(lengthscale, variance, mean, noise, u, x, y):
        kernel = kernels.Matern52(lengthscale, variance)
        return dense(method, kernel(u), kernel(u, x), kernel.diagonal(x), noise, y - mean)

    arguments = (jnp.array([0.8, 1.3]), jnp.array(1.7), jnp.array(0.2), noise, u, x, y)
    expected = jax.jit(jax.value_and_grad(reference, argnums=range(7)))(*arguments)
    for chunk_size in (None, 7):
        found = jax.jit(
            jax.value_and_grad(everything(lambda u: sparse.SGPR(u, method, chunk_size)), argnums=range(7))  # noqa: B023
        )(*arguments)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, expected)


def test_second_derivatives_and_forward_mode(problem):
    x, y, u, _ = problem

    def bound(log_scale, chunk_size=None):
        model = gp.GP(kernels.RBF(jnp.exp(log_scale[0]), jnp.exp(log_scale[1])), noise_variance=jnp.exp(log_scale[2]))
        return log_marginal_likelihood(model, x, y, solver=sparse.SGPR(u, chunk_size=chunk_size))

    at, step = jnp.array([0.1, 0.3, -1.0]), 1e-5
    slope = jax.jit(jax.grad(bound))
    differences = [(slope(at + step * e) - slope(at - step * e)) / (2 * step) for e in jnp.eye(3)]
    np.testing.assert_allclose(jax.jit(jax.hessian(bound))(at), differences, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(lambda p: bound(p, 7)))(at), slope(at), rtol=1e-9)


@pytest.mark.slow
def test_missing_targets_are_left_out(problem):
    x, y, u, _ = problem
    observed = jnp.arange(23) % 3 > 0
    with_gaps = jnp.where(observed[:, None], y, jnp.nan)
    for solver in (sparse.SGPR(u), sparse.SGPR(u, "fitc", chunk_size=4)):
        few = condition(gp.GP(kernels.RBF()), x[observed], y[observed], solver=solver)
        gaps = condition(gp.GP(kernels.RBF()), x, with_gaps, observed=observed, solver=solver)
        np.testing.assert_allclose(gaps.weights, few.weights, rtol=1e-8)
        np.testing.assert_allclose(
            log_marginal_likelihood(gp.GP(kernels.RBF()), x, with_gaps, observed=observed, solver=solver),
            log_marginal_likelihood(gp.GP(kernels.RBF()), x[observed], y[observed], solver=solver),
            rtol=1e-10,
        )


def test_all_points_inducing_is_exact(problem):
    x, y, _, noise = problem
    model = gp.GP(kernels.Matern32(0.7), 0.1, noise)
    new = jnp.linspace(-2, 2, 12).reshape(6, 2)
    exact = condition(model, x, y)
    for method in ("vfe", "fitc"):
        solver = sparse.SGPR(x, method)
        value = log_marginal_likelihood(model, x, y, solver=solver)
        np.testing.assert_allclose(value, log_marginal_likelihood(model, x, y), rtol=1e-9)
        posterior = condition(model, x, y, solver=solver)
        for found, expected in zip(gp.predict(posterior, new), gp.predict(exact, new), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("noise", [1e-2, 1e-6, 1e-9])
def test_the_variance_covers_where_the_kernel_is_singular(noise):
    """Collinear inputs, a long lengthscale, noise far below any jitter one might add: 95 % intervals hold 95 %."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1200, 3))
    x = np.concatenate([x, x @ rng.normal(size=(3, 6))], 1)
    y = np.sin(x[:, 0] / 5) + (x[:, 1] / 10) ** 2 + x[:, 2] / 10 + noise**0.5 * rng.normal(size=1200)
    model = gp.GP(kernels.RBF(40.0, 4.0), noise_variance=noise)
    posterior = condition(model, x[:700], y[:700], solver=sparse.SGPR(x[:150]))
    assert posterior.converged
    mean, std = gp.predict(posterior, x[700:], include_noise=True)
    assert 0.93 <= np.mean(np.abs(y[700:] - mean) < 1.96 * std) <= 0.97


def test_split_over_devices_and_float32(problem):
    x, y, u, _ = problem
    x, y = (jnp.tile(a, (16, 1))[:320] for a in (x, y))
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    model, solver = gp.GP(kernels.RBF()), sparse.SGPR(u, chunk_size=64)
    slope = jax.jit(jax.grad(lambda model, x, y: log_marginal_likelihood(model, x, y, solver=solver)))
    split = slope(model, jax.device_put(x, rows), jax.device_put(y, rows))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), split, slope(model, x, y))
    small = slope(model, *(a.astype(jnp.float32) for a in (x, y)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3), small, split)


def test_samples_have_the_moments_of_predictions(problem):
    x, y, u, _ = problem
    posterior = condition(gp.GP(kernels.RBF()), x, y[:, 0], solver=sparse.SGPR(u))
    draws = gp.sample(jax.random.key(0), posterior, x[:3], 20000)
    mean, std = gp.predict(posterior, x[:3])
    assert draws.shape == (20000, 3)
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(draws.std(0), std, rtol=0.03)


def test_mistakes_are_told(problem):
    x, y, u, _ = problem
    with pytest.raises(ConfigError, match="method: expected 'vfe' or 'fitc', got 'dtc'"):
        sparse.SGPR(u, "dtc")
    with pytest.raises(ConfigError, match="chunk_size"):
        sparse.SGPR(u, chunk_size=0)
    with pytest.raises(ConfigError, match="noise_variance: expected a positive number for SGPR"):
        gp.log_marginal_likelihood(gp.GP(kernels.RBF(), noise_variance=0.0), x, y, solver=sparse.SGPR(u))
    with pytest.raises(ConfigError, match="x2: expected points"):
        gp.condition(gp.GP(kernels.RBF()), x, y, solver=sparse.SGPR(u[:, :1]))
    with pytest.raises(DataError, match="y: row 3"):
        gp.condition(gp.GP(kernels.RBF()), x, y.at[3].set(jnp.nan), solver=sparse.SGPR(u))
    with pytest.raises(ConfigError, match="inducing: expected a real number, got nan"):
        sparse.SGPR(u.at[0].set(jnp.nan))


def test_predictions_of_many_points_take_little_memory():
    x = np.random.default_rng(0).normal(size=(20_000, 2))
    posterior = condition(gp.GP(kernels.RBF()), x[:200], np.sin(x[:200, 0]), solver=sparse.SGPR(x[:100]))
    program = jax.jit(lambda posterior, x: posterior.predict(x)).lower(posterior, x).compile()
    assert program.memory_analysis().temp_size_in_bytes < 5e6  # k(Z, x) of all points is 16 MB
    for found, expected in zip(program(posterior, x), posterior.predict(x[-7:]), strict=True):
        np.testing.assert_allclose(found[-7:], expected, rtol=1e-10)
