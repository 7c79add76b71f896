"""Laplace's approximation against reference values, dense algebra in f, other optimisers, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import gp, kernels
from aijax.errors import ConfigError, DataError
from aijax.gp.fit import fit
from aijax.gp.laplace import Laplace

evidence = jax.jit(gp.evidence)
condition = jax.jit(gp.condition)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


LONGER = ("digits_1v8_fitted", "xor_matern32_fixed", "xor_rbf_fitted")
CASES = ["xor_rbf_fixed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("digits_1v8_fixed", *LONGER))]


def load(golden, name):
    case = np.load(golden / "gp" / f"gpc_{name}.npz")
    scale = 16.0 if name.startswith("digits") else 1.0
    return case, jnp.asarray(case["x"] / scale), jnp.asarray(case["z"] / scale), jnp.asarray(case["t"])


@pytest.mark.parametrize("name", CASES)
def test_golden(golden, name):
    case, x, z, t = load(golden, name)
    kind = kernels.Matern32 if "matern32" in name else kernels.RBF

    @jax.jit
    def found(log_theta, x, z, t):
        def log_evidence(log_theta):
            variance, lengthscale = jnp.exp(log_theta)
            return gp.evidence(gp.GP(kind(lengthscale, variance)), x, t, solver=Laplace(gp.Bernoulli())).value

        variance, lengthscale = jnp.exp(log_theta)
        posterior = gp.condition(gp.GP(kind(lengthscale, variance)), x, t, solver=Laplace(gp.Bernoulli()))
        return jax.value_and_grad(log_evidence)(log_theta), posterior, gp.predict(posterior, z)

    (value, slope), posterior, (mean, std) = found(jnp.log(case["theta"]), x, z, t)
    assert posterior.converged
    np.testing.assert_allclose(value, case["laplace_lml"], rtol=1e-10)
    np.testing.assert_allclose(slope, case["laplace_lml_grad"], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(posterior.mode, case["f_mode"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(mean, case["latent_mean"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(std**2, case["latent_var"], rtol=1e-8, atol=1e-9)
    probability = gp.predict_probability(posterior, z)
    np.testing.assert_allclose(probability, case["proba"], rtol=1e-8, atol=1e-8)
    log_density = gp.log_predictive_density(posterior, z, jnp.asarray(case["t_test"]))
    np.testing.assert_allclose(-log_density.mean(), case["test_nll"], rtol=1e-8)
    assert np.mean(np.asarray(probability > 0.5) == case["t_test"]) == case["test_accuracy"]


@pytest.mark.parametrize("name", ["digits_1v8_fitted", pytest.param("xor_rbf_fitted", marks=pytest.mark.slow)])
def test_golden_fits(golden, name):
    case, x, _, t = load(golden, name)
    start = gp.GP(kernels.RBF(2.0, 20.0))
    fitted = fit(start, x, t, solver=Laplace(gp.Bernoulli()), trainable="kernel.*", tolerance=1e-5)
    np.testing.assert_allclose(fitted.value, case["laplace_lml"], rtol=1e-6)
    found = (fitted.gp.kernel.variance, fitted.gp.kernel.lengthscale)
    np.testing.assert_allclose(found, case["theta"], rtol=1e-3)


@pytest.fixture(scope="module")
def data():
    """Points of two dimensions and a smooth function of them."""
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(1), (18, 2))
        return x, 1.5 * jnp.sin(2 * x[:, 0]) + x[:, 1]


def log_likelihood(likelihood, f, y):
    return likelihood.log_density(f, y).sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    "likelihood, targets",
    [
        (gp.Bernoulli("probit"), lambda f: jnp.where(f > 0.2, 1, 0)),
        (gp.Poisson(np.linspace(0.5, 2.0, 18)), lambda f: jnp.floor(jnp.exp(f))),
        (gp.StudentT(3.0, 0.2), lambda f: f + jnp.where(jnp.arange(18) % 6 == 0, 4.0, 0.1)),
    ],
    ids=["probit", "poisson", "student"],
)
def test_against_dense_algebra(data, likelihood, targets):
    """The mode is stationary, the determinant that of I + K W, the variance (K^-1 + W)^-1; the gradient in every
    parameter is that of the value."""
    x, f = data
    y = targets(f)
    model = gp.GP(kernels.Matern52(1.3, 2.0), 0.3)
    found = evidence(model, x, y, solver=Laplace(likelihood))
    posterior = condition(model, x, y, solver=Laplace(likelihood))
    assert found.converged and posterior.converged and found.jitter == 0
    gram, mode = model.kernel(x), posterior.mode
    gradient = jax.grad(log_likelihood, 1)(likelihood, mode, y)
    hessian = jax.hessian(log_likelihood, 1)(likelihood, mode, y)
    np.testing.assert_allclose(mode, 0.3 + gram @ gradient, rtol=1e-8, atol=1e-9)
    if isinstance(likelihood, gp.StudentT):
        assert (jnp.diag(hessian) > 0).any()
    _, log_determinant = jnp.linalg.slogdet(jnp.eye(18) - gram @ hessian)
    expected = log_likelihood(likelihood, mode, y) - gradient @ (mode - 0.3) / 2 - log_determinant / 2
    np.testing.assert_allclose(found.value, expected, rtol=1e-9)
    covariance = jnp.linalg.inv(jnp.linalg.inv(gram) - hessian)
    np.testing.assert_allclose(posterior.predict(x, full_covariance=True)[1], covariance, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(posterior.predict(x)[1], jnp.diag(covariance), rtol=1e-6)

    def value(model, likelihood):
        return gp.evidence(model, x, y, solver=Laplace(likelihood)).value

    slope = jax.jit(jax.grad(value, argnums=(0, 1)))(model, likelihood)
    compiled, step = jax.jit(value), 1e-3
    leaves, structure = jax.tree.flatten((model, likelihood))
    for i, by_rule in enumerate(jax.tree.leaves(slope)):
        at = [
            compiled(*structure.unflatten([*leaves[:i], leaves[i] * (1 + k * step), *leaves[i + 1 :]]))
            for k in (-2, -1, 1, 2)
        ]
        difference = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step)
        np.testing.assert_allclose(jnp.sum(by_rule * leaves[i]), difference, rtol=1e-7, atol=1e-8)


@pytest.mark.slow
def test_gaussian_noise_is_exact(data):
    x, y = data
    model = gp.GP(kernels.RBF(), 0.1, 0.3)
    solver = Laplace(gp.Gaussian(0.3))
    np.testing.assert_allclose(evidence(model, x, y, solver=solver).value, gp.log_marginal_likelihood(model, x, y))
    hessian = jax.jit(jax.hessian(lambda v: gp.log_marginal_likelihood(gp.GP(kernels.RBF(v)), x, y, solver=solver)))
    exact = jax.hessian(lambda v: gp.log_marginal_likelihood(gp.GP(kernels.RBF(v), noise_variance=0.3), x, y))
    np.testing.assert_allclose(hessian(1.2), exact(1.2), rtol=1e-7)
    for found, expected in zip(
        gp.predict(condition(model, x, y, solver=solver), x[:5] + 0.1),
        gp.predict(gp.condition(model, x, y), x[:5] + 0.1),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.slow
def test_two_classes_are_bernoulli_of_twice_the_kernel(data):
    """f_1 - f_0 has the kernel 2 k, and their sum keeps its prior: evidence, slopes and predictions agree."""
    x, f = data
    y = jnp.where(f > 0.2, 1, 0)

    def value(lengthscale, factor, solver):
        return gp.evidence(gp.GP(kernels.RBF(lengthscale, factor)), x, y, solver=solver).value

    softmax, logit = Laplace(gp.Categorical(2)), Laplace(gp.Bernoulli())
    both = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))
    of_softmax, of_logit = both(0.9, 1.5, softmax), both(0.9, 3.0, logit)
    np.testing.assert_allclose(of_softmax[0], of_logit[0], rtol=1e-10)
    np.testing.assert_allclose(of_softmax[1][0], of_logit[1][0], rtol=1e-8)
    np.testing.assert_allclose(of_softmax[1][1], 2 * of_logit[1][1], rtol=1e-8)
    first = condition(gp.GP(kernels.RBF(0.9, 1.5)), x, y, solver=softmax)
    second = condition(gp.GP(kernels.RBF(0.9, 3.0)), x, y, solver=logit)
    mean, covariance = first.latent_covariance(x[:4] + 0.2)
    difference, std = gp.predict(second, x[:4] + 0.2)
    np.testing.assert_allclose(mean[:, 1] - mean[:, 0], difference, rtol=1e-8)
    contrast = jnp.array([-1.0, 1.0])
    np.testing.assert_allclose(contrast @ covariance @ contrast, std**2, rtol=1e-8)
    probability = gp.predict_probability(first, x[:4] + 0.2)[:, 1]
    np.testing.assert_allclose(probability, gp.predict_probability(second, x[:4] + 0.2), atol=2e-3)


def test_three_classes_against_dense_algebra(data):
    x, f = data
    y = jnp.digitize(f, jnp.array([-0.7, 0.7]))
    posterior = condition(gp.GP(kernels.RBF(1.1, 2.0)), x, y, solver=Laplace(gp.Categorical(3)))
    mode, gram = posterior.mode, kernels.RBF(1.1, 2.0)(x)
    gradient = jax.nn.one_hot(y, 3) - jax.nn.softmax(mode)
    np.testing.assert_allclose(mode, gram @ gradient, atol=1e-9)
    hessian = jax.hessian(lambda f: log_likelihood(gp.Categorical(3), f, y))(mode).reshape(54, 54)
    joint = jnp.kron(gram, jnp.eye(3))
    _, log_determinant = jnp.linalg.slogdet(jnp.eye(54) - joint @ hessian)
    expected = log_likelihood(gp.Categorical(3), mode, y) - jnp.sum(gradient * mode) / 2 - log_determinant / 2
    found = evidence(gp.GP(kernels.RBF(1.1, 2.0)), x, y, solver=Laplace(gp.Categorical(3)))
    np.testing.assert_allclose(found.value, expected, rtol=1e-9)
    covariance = jnp.linalg.inv(jnp.linalg.inv(joint) - hessian).reshape(18, 3, 18, 3)
    own = jnp.stack([covariance[i, :, i] for i in range(18)])
    np.testing.assert_allclose(posterior.latent_covariance(x)[1], own, atol=1e-8)


@pytest.mark.parametrize("likelihood", [gp.Bernoulli(), gp.Categorical(3)], ids=["bernoulli", "categorical"])
def test_missing_targets_are_left_out(data, likelihood):
    x, f = data
    y = jnp.where(f > 0.2, 1, 0)
    observed = jnp.arange(18) % 3 > 0
    model, solver = gp.GP(kernels.RBF()), Laplace(likelihood)
    gaps = evidence(model, x, jnp.where(observed, y, -7), observed=observed, solver=solver).value
    np.testing.assert_allclose(gaps, evidence(model, x[observed], y[observed], solver=solver).value, rtol=1e-9)


def test_what_did_not_converge_says_so(data):
    x, f = data
    y = jnp.where(f > 0.2, 1, 0)
    assert not evidence(gp.GP(kernels.RBF(1.0, 100.0)), x, y, solver=Laplace(gp.Bernoulli(), max_steps=1)).converged
    # a target outside the support that is known only inside the compiled function
    outside = evidence(gp.GP(kernels.RBF()), x, y.at[3].set(2), solver=Laplace(gp.Bernoulli()))
    assert not outside.converged and jnp.isnan(outside.value)


def test_batches_and_float32(data):
    x, f = data
    y = jnp.where(f > 0.2, 1, 0)
    scales = jnp.array([0.5, 1.0, 30.0])

    def value(scale, x):
        return gp.evidence(gp.GP(kernels.RBF(1.0, scale)), x, y, solver=Laplace(gp.Bernoulli()))

    found = jax.jit(jax.vmap(value, (0, None)))(scales, x)
    small = jax.jit(jax.vmap(value, (0, None)))(scales.astype(jnp.float32), x.astype(jnp.float32))
    assert found.converged.all() and small.converged.all()
    assert small.value.dtype == jnp.float32
    np.testing.assert_allclose(found.value[1], jax.jit(value)(1.0, x).value, rtol=1e-12)
    np.testing.assert_allclose(small.value, found.value, rtol=1e-4)


def test_mistakes_are_told(data):
    x, f = data
    model = gp.GP(kernels.RBF())
    with pytest.raises(DataError, match=r"targets 0 or 1 .* for Bernoulli"):
        gp.condition(model, x, f, solver=Laplace(gp.Bernoulli()))
    with pytest.raises(DataError, match="x: expected 3 points"):
        gp.condition(model, x, jnp.ones(3), solver=Laplace(gp.Bernoulli()))
    with pytest.raises(ConfigError, match="likelihood: expected"):
        Laplace("bernoulli")
    with pytest.raises(ConfigError, match="one latent or Categorical, got HeteroscedasticGaussian; use Variational"):
        Laplace(gp.HeteroscedasticGaussian())
    with pytest.raises(ConfigError, match="expected a likelihood with classes, got Gaussian"):
        gp.predict_probability(gp.condition(model, x, f), x)
