"""Sparse variational posteriors against reference values, the collapsed bound, and the optimum that others find."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import gp, kernels
from aijax.errors import ConfigError, DataError
from aijax.gp.svgp import SVGP, elbo, kl_divergence, latent_moments, natural_step, prior_svgp

LIKELIHOODS = {
    "gaussian": gp.Gaussian(0.06),
    "bernoulli_logit": gp.Bernoulli(),
    "bernoulli_probit": gp.Bernoulli("probit"),
    "poisson_log": gp.Poisson(),
    "student_t": gp.StudentT(4, 0.3),
}
CASES = ["bernoulli_logit_s0", "bernoulli_logit_s1", "bernoulli_probit_s0", "bernoulli_probit_s2", "gaussian_s0",
         "gaussian_s1", "poisson_log_s0", "poisson_log_s1", "student_t_s0"]  # fmt: skip


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@jax.jit
def everything(svgp, likelihood, x, y):
    mean, variance = latent_moments(svgp, x)
    expected = likelihood.expected_log_density(mean, variance, y)
    return mean, variance, expected, kl_divergence(svgp), elbo(svgp, likelihood, x, y)


@pytest.mark.parametrize("name", CASES)
def test_golden(golden, name):
    case = np.load(golden / "gp" / f"sparse_svgp_{name}.npz")
    *lengthscale, variance, _ = np.exp(case["log_params"])
    model = gp.GP(kernels.RBF(lengthscale, variance))
    svgp = SVGP(model, case["u"], case["white_mean"], case["white_root"])
    found = everything(svgp, LIKELIHOODS[name[:-3]], case["x"], case["t"])
    for value, field in zip(found, ("f_mean", "f_var", "expected_ll", "kl", "elbo"), strict=True):
        np.testing.assert_allclose(value, case[field], rtol=1e-9, atol=1e-10)


@pytest.fixture(scope="module")
def data():
    """Points of two dimensions, inducing points, a smooth function of the first."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(2))
        x = jax.random.normal(keys[0], (30, 2))
        return x, jax.random.normal(keys[1], (6, 2)), 1.5 * jnp.sin(2 * x[:, 0]) + x[:, 1]


def test_one_natural_step_is_the_collapsed_optimum(data):
    """With Gaussian noise and step 1, from anywhere: the bound of Titsias and its q(f(Z))."""
    x, u, y = data
    model = gp.GP(kernels.Matern52(), 0.2, 0.15)
    rng = np.random.default_rng(0)
    start = SVGP(model, u, rng.normal(size=6), np.tril(rng.normal(size=(6, 6))) + 2 * np.eye(6))
    svgp, indefinite = jax.jit(natural_step)(start, gp.Gaussian(0.15), x, y, 1.0)
    assert not indefinite
    solver = gp.SGPR(u)
    value = elbo(svgp, gp.Gaussian(0.15), x, y)
    np.testing.assert_allclose(value, gp.log_marginal_likelihood(model, x, y, solver=solver), rtol=1e-9)
    for full in (False, True):
        collapsed = gp.predict(gp.condition(model, x, y, solver=solver), x[:4] + 0.1, full_covariance=full)
        for found, expected in zip(gp.predict(svgp, x[:4] + 0.1, full_covariance=full), collapsed, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_minibatches_are_unbiased_and_weights_cut_to_rows(data):
    x, u, y = data
    svgp, noise = prior_svgp(gp.GP(kernels.RBF()), u), jnp.linspace(0.1, 0.5, 30)
    parts = [jnp.arange(30)[i::5] for i in range(5)]
    bounds = [elbo(svgp, gp.Gaussian(noise).at(rows), x[rows], y[rows], num_data=30) for rows in parts]
    np.testing.assert_allclose(np.mean(bounds), elbo(svgp, gp.Gaussian(noise), x, y), rtol=1e-10)


def test_a_step_without_log_concavity_stays_definite(data):
    """Outliers of a Student-t give the bound a saddle in the spread; full steps from the prior stay covariances."""
    x, u, y = data
    y = y + jnp.where(jnp.arange(30) % 3 == 0, 5.0, 0.0)
    svgp, needed, step = prior_svgp(gp.GP(kernels.RBF()), u), 0, jax.jit(natural_step)
    for _ in range(8):
        svgp, indefinite = step(svgp, gp.StudentT(2.0, 0.05), x, y, 1.0)
        needed += indefinite
        assert jnp.isfinite(svgp.white_root).all() and (jnp.diag(svgp.white_root) > 0).all()
    assert needed > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "likelihood, targets",
    [(gp.Bernoulli(), lambda f: jnp.where(f > 0, 1, 0)), (gp.Poisson(), lambda f: jnp.floor(jnp.exp(f)))],
    ids=["bernoulli", "poisson"],
)
def test_the_solver_finds_the_maximum(data, likelihood, targets):
    """Where it ends no parameter of q raises the bound; the slopes of its evidence are differences of values."""
    x, u, f = data
    y = targets(f)
    model, solver = gp.GP(kernels.RBF(1.2, 1.5), 0.1), gp.Variational(likelihood, u)
    posterior = jax.jit(gp.condition)(model, x, y, solver=solver)
    assert posterior.converged

    def bound(mean, root):
        return elbo(SVGP(model, u, mean, root), likelihood, x, y)

    slopes = jax.jit(jax.grad(bound, argnums=(0, 1)))(posterior.svgp.white_mean, posterior.svgp.white_root)
    assert jnp.abs(slopes[0]).max() < 1e-6 and jnp.abs(jnp.tril(slopes[1])).max() < 1e-6

    def value(lengthscale, u):
        return gp.evidence(gp.GP(kernels.RBF(lengthscale, 1.5), 0.1), x, y, solver=gp.Variational(likelihood, u)).value

    compiled, step = jax.jit(value), 1e-5
    by_scale, by_u = jax.jit(jax.grad(value, argnums=(0, 1)))(1.2, u)
    np.testing.assert_allclose(compiled(1.2, u), bound(posterior.svgp.white_mean, posterior.svgp.white_root))
    difference = (compiled(1.2 + step, u) - compiled(1.2 - step, u)) / (2 * step)
    np.testing.assert_allclose(by_scale, difference, rtol=1e-5)
    shift = jnp.zeros_like(u).at[2, 1].set(step)
    np.testing.assert_allclose(
        by_u[2, 1], (compiled(1.2, u + shift) - compiled(1.2, u - shift)) / (2 * step), rtol=1e-4
    )


@pytest.mark.slow
def test_the_whole_data_inducing_beats_laplace_and_fewer_points(data):
    x, u, f = data
    y = jnp.where(f > 0, 1, 0)
    observed = jnp.arange(30) % 4 > 0
    model = gp.GP(kernels.Matern52(1.0, 2.0))
    run = jax.jit(gp.evidence)
    whole, few = (run(model, x, y, solver=gp.Variational(gp.Bernoulli(), z)).value for z in (None, u))
    laplace = run(model, x, y, solver=gp.Laplace(gp.Bernoulli())).value
    assert few < whole and abs(whole - laplace) < 1
    gaps = run(model, x, jnp.where(observed, y, 9), observed=observed, solver=gp.Variational(gp.Bernoulli(), u))
    kept = run(model, x[observed], y[observed], solver=gp.Variational(gp.Bernoulli(), u))
    np.testing.assert_allclose(gaps.value, kept.value, rtol=1e-9)


@pytest.mark.slow
def test_several_latents(data):
    """Noise with a latent function of its own, and classes: the bound rises to a maximum in every latent."""
    x, u, f = data
    model, bound = gp.GP(kernels.RBF(1.0, 1.5)), jax.jit(elbo)
    for likelihood, y in (
        (gp.HeteroscedasticGaussian(), f),
        (gp.Categorical(3, num_points=16), jnp.digitize(f, jnp.array([-0.7, 0.7]))),
    ):
        posterior = jax.jit(gp.condition)(model, x, y, solver=gp.Variational(likelihood, u))
        assert posterior.converged
        start = prior_svgp(model, u, likelihood.num_latents)
        assert bound(posterior.svgp, likelihood, x, y) > bound(start, likelihood, x, y)
        mean, std = gp.predict_targets(posterior, x[:5])
        assert mean.shape == std.shape == ((5, 3) if likelihood.num_latents == 3 else (5,))
    np.testing.assert_allclose(gp.predict_probability(posterior, x[:5]).sum(1), 1, atol=1e-2)


def test_mistakes_are_told(data):
    x, u, f = data
    svgp = prior_svgp(gp.GP(kernels.RBF()), u)
    with pytest.raises(ConfigError, match="white_root: expected"):
        SVGP(gp.GP(kernels.RBF()), u, jnp.zeros(6), jnp.eye(5))
    with pytest.raises(DataError, match="num_data: expected at least the 30 points"):
        elbo(svgp, gp.Gaussian(), x, f, num_data=10)
    with pytest.raises(DataError, match="targets 0 or 1"):
        elbo(svgp, gp.Bernoulli(), x, f)
    with pytest.raises(ConfigError, match="likelihood: expected"):
        gp.Variational(None)


def test_a_second_derivative_of_the_maximum_and_noise_that_is_not_there_are_refused(data):
    x, u, f = data

    def value(lengthscale):
        model = gp.GP(kernels.RBF(lengthscale))
        return gp.evidence(model, x, f > 0, solver=gp.Variational(gp.Bernoulli(), u, max_steps=2)).value

    with pytest.raises(ConfigError, match="Variational: its gradient has no derivative"):
        jax.eval_shape(jax.hessian(value), 1.0)
    posterior = jax.jit(gp.condition)(gp.GP(kernels.RBF()), x, f > 0, solver=gp.Variational(gp.Bernoulli(), u))
    with pytest.raises(ConfigError, match="include_noise: targets come from f by Bernoulli"):
        gp.predict(posterior, x, include_noise=True)


def test_predictions_of_many_points_take_little_memory():
    x = np.random.default_rng(0).normal(size=(20_000, 2))
    posterior = prior_svgp(gp.GP(kernels.RBF()), x[:100], 2)
    program = jax.jit(lambda posterior, x: posterior.predict(x)).lower(posterior, x).compile()
    assert program.memory_analysis().temp_size_in_bytes < 5e6  # k(Z, x) of all points is 16 MB
    for found, expected in zip(program(posterior, x), posterior.predict(x[-7:]), strict=True):
        np.testing.assert_allclose(found[-7:], expected, rtol=1e-10)


def test_an_indefinite_kernel_is_named():
    x = jnp.linspace(0.0, 1.0, 6)
    posterior = prior_svgp(gp.GP(lambda a, b: jnp.sin(3 * a + 5 * b).sum() + jnp.sin(5 * a + 3 * b).sum()), x)
    with pytest.raises(DataError, match=r"kernel FunctionKernel: .* smallest eigenvalue is -"):
        posterior.predict(x + 0.1)
    with pytest.raises(DataError, match=r"kernel FunctionKernel: .* smallest eigenvalue is -"):
        elbo(posterior, gp.Bernoulli(), x, x > 0.5)
