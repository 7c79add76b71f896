"""Likelihoods against reference values, adaptive quadrature and themselves: normalisation, tails, derivatives."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from aijax.errors import ConfigError, DataError
from aijax.gp.categorical import Categorical
from aijax.gp.likelihoods import Bernoulli, Gaussian, HeteroscedasticGaussian, Poisson, StudentT

GOLDEN = {
    "gaussian": Gaussian(0.06),
    "bernoulli_logit": Bernoulli(),
    "bernoulli_probit": Bernoulli("probit"),
    "poisson_log": Poisson(),
    "student_t": StudentT(4, 0.3),
}
CASES = [
    f"{name}_s{seed}"
    for name, seeds in (
        ("bernoulli_logit", "01"),
        ("bernoulli_probit", "02"),
        ("gaussian", "01"),
        ("poisson_log", "01"),
        ("student_t", "0"),
    )
    for seed in seeds
]

expected_log_density = jax.jit(lambda likelihood, mean, variance, y: likelihood.expected_log_density(mean, variance, y))
log_predictive = jax.jit(lambda likelihood, mean, variance, y: likelihood.predictive_log_density(mean, variance, y))
predict = jax.jit(lambda likelihood, mean, variance: likelihood.predict(mean, variance))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def by_quadrature(function, mean, std, around):
    """`E[function(f)]` by adaptive quadrature, the line cut at the mean and about the point `around`."""
    low, high = mean - 11 * std, mean + 11 * std
    near = [around + d for d in (-1, -0.1, -0.01, 0, 0.01, 0.1, 1)]
    edges = np.unique(np.clip([low, *near, mean - std, mean, mean + std, high], low, high))

    def integrand(f):
        return function(f) * stats.norm.pdf(f, mean, std)

    pieces = itertools.pairwise(edges)
    return sum(integrate.quad(integrand, a, b, epsabs=1e-15, epsrel=1e-12, limit=300)[0] for a, b in pieces)


def density(likelihood, y):
    """`f -> log p(y | f)` in SciPy's own formulas."""
    match likelihood:
        case Bernoulli(link="logit"):
            return lambda f: -np.logaddexp(0, -(2 * y - 1) * f)
        case Bernoulli():
            return lambda f: stats.norm.logcdf((2 * y - 1) * f)
        case Poisson():
            return lambda f: stats.poisson.logpmf(y, likelihood.exposure * np.exp(f))
        case StudentT():
            return lambda f: stats.t.logpdf(y, likelihood.df, f, likelihood.scale)
        case Gaussian():
            return lambda f: stats.norm.logpdf(y, f, likelihood.noise_variance**0.5)


@pytest.mark.parametrize("name", CASES)
def test_golden_expectations(golden, name):
    case = np.load(golden / "gp" / f"sparse_svgp_{name}.npz")
    mean, variance, targets = (jnp.asarray(case[field]) for field in ("f_mean", "f_var", "t"))
    found = expected_log_density(GOLDEN[name[:-3]], mean, variance, targets)
    np.testing.assert_allclose(found, case["expected_ll"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["digits_1v8_fitted", "digits_1v8_fixed", "xor_matern32_fixed", "xor_rbf_fitted"])
def test_golden_probabilities(golden, name):
    case = np.load(golden / "gp" / f"gpc_{name}.npz")
    probability, _ = predict(Bernoulli(), jnp.asarray(case["latent_mean"]), jnp.asarray(case["latent_var"]))
    np.testing.assert_allclose(probability, case["proba"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "likelihood, y, center",
    [
        (Bernoulli(), 1.0, 0.0),
        (Bernoulli("probit"), 0.0, 0.0),
        (Poisson(2.5), 3.0, 0.2),
        (StudentT(4, 0.01), 0.7, 0.7),
        (StudentT(1.5, 0.5), 0.7, 0.7),
        (Gaussian(0.3), 0.7, 0.7),
    ],
)
def test_expectations_by_adaptive_quadrature(likelihood, y, center):
    """From a deviation far below the width of the likelihood to one far above it."""
    log_density = density(likelihood, y)
    cases = [
        (m, s)
        for s in (0.02, 0.5, 3.0, 20.0)
        for m in (0.0, 0.7, -4.0)
        if s < 10 or not isinstance(likelihood, Poisson)
    ]
    mean, std = (jnp.asarray(column) for column in zip(*cases, strict=True))
    expected = expected_log_density(likelihood, mean, std**2, jnp.full(len(cases), y))
    predictive = log_predictive(likelihood, mean, std**2, jnp.full(len(cases), y))
    for i, (m, s) in enumerate(cases):
        np.testing.assert_allclose(expected[i], by_quadrature(log_density, m, s, center), rtol=1e-7, atol=1e-8)
        truth = by_quadrature(lambda f: np.exp(log_density(f)), m, s, center)
        if truth > 1e-10:
            np.testing.assert_allclose(np.exp(predictive[i]), truth, rtol=1e-6)


def test_predictive_densities_sum_to_one():
    mean, variance = jnp.array([0.3, -1.0]), jnp.array([0.5, 1.5])
    counts = jnp.arange(400.0)
    total = jax.vmap(lambda y: jnp.exp(Poisson(1.5).predictive_log_density(mean, variance, jnp.full(2, y))))(
        counts
    ).sum(0)
    np.testing.assert_allclose(total, 1, atol=1e-4)
    both = sum(jnp.exp(log_predictive(Bernoulli(), mean, variance, jnp.full(2, y))) for y in (0.0, 1.0))
    np.testing.assert_allclose(both, 1, atol=1e-12)
    line = jnp.linspace(-60.0, 60.0, 3001)
    for likelihood, f, v in (
        (StudentT(5, 0.5), jnp.float64(0.3), jnp.float64(0.5)),
        (HeteroscedasticGaussian(), jnp.array([0.3, -1.0]), jnp.array([0.5, 0.4])),
    ):
        values = jax.vmap(lambda y: jnp.exp(log_predictive(likelihood, f, v, y)))(line)  # noqa: B023
        np.testing.assert_allclose(values.sum() * (line[1] - line[0]), 1, atol=1e-6)
        mean_y, variance_y = predict(likelihood, f, v)
        np.testing.assert_allclose(values @ (line - mean_y) ** 2 * (line[1] - line[0]), variance_y, rtol=2e-4)


def test_moments_by_the_law_of_total_variance():
    mean, variance = jnp.array([0.3, -1.0]), jnp.array([0.5, 0.2])
    for likelihood in (Gaussian(0.3), Poisson(2.0), StudentT(5, 0.5), Bernoulli()):
        own = predict(likelihood, mean, variance)
        general = super(type(likelihood), likelihood).predict(mean, variance)
        for found, expected in zip(general, own, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_heteroscedastic_expectation_is_nested():
    mean, variance, y = jnp.array([[0.3, -1.0]]), jnp.array([[0.5, 0.4]]), jnp.array([0.7])

    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    f, g = 0.3 + 0.5**0.5 * nodes[:, None], -1.0 + 0.4**0.5 * nodes
    truth = weights @ stats.norm.logpdf(0.7, f, np.exp(g / 2)) @ weights / (2 * np.pi)
    np.testing.assert_allclose(expected_log_density(HeteroscedasticGaussian(), mean, variance, y), [truth], rtol=1e-8)


def test_two_classes_are_bernoulli_of_the_difference():
    """softmax(f)_1 = logit^-1(f_1 - f_0), whose mean and variance are known: nested sums against single ones."""
    mean = jnp.array([[0.0, 0.0], [1.0, -2.0], [4.0, 3.0]])
    variance = jnp.array([[1.0, 0.5], [0.01, 2.0], [4.0, 1.0]])
    y = jnp.array([0, 1, 1])
    softmax = Categorical(2, num_points=48)
    difference, spread = mean[:, 1] - mean[:, 0], variance.sum(1)
    probability, _ = predict(softmax, mean, variance)
    np.testing.assert_allclose(probability[:, 1], predict(Bernoulli(), difference, spread)[0], rtol=1e-8)
    np.testing.assert_allclose(
        expected_log_density(softmax, mean, variance, y),
        expected_log_density(Bernoulli(), difference, spread, y),
        rtol=1e-8,
    )
    np.testing.assert_allclose(
        log_predictive(softmax, mean, variance, y),
        log_predictive(Bernoulli(), difference, spread, y),
        rtol=1e-8,
    )
    covariance = variance[:, :, None] * jnp.eye(2)
    np.testing.assert_allclose(predict(softmax, mean, covariance)[0], probability, atol=1e-3)


def test_three_classes_on_a_grid_of_nodes():
    mean, variance = np.array([0.4, -0.3, 1.0]), np.array([0.8, 0.3, 0.5])
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    grid = np.stack(np.meshgrid(*mean[:, None] + np.sqrt(variance)[:, None] * nodes, indexing="ij"), -1)
    weight = np.einsum("i,j,k->ijk", weights, weights, weights) / (2 * np.pi) ** 1.5
    log_softmax = np.asarray(jax.nn.log_softmax(grid))
    softmax, arguments = Categorical(3, num_points=48), (jnp.asarray(mean)[None], jnp.asarray(variance)[None])
    np.testing.assert_allclose(
        predict(softmax, *arguments)[0][0], np.tensordot(weight, np.exp(log_softmax), 3), atol=1e-8
    )
    for y in range(3):
        expected = np.tensordot(weight, log_softmax[..., y], 3)
        np.testing.assert_allclose(expected_log_density(softmax, *arguments, jnp.array([y]))[0], expected, atol=1e-8)


@pytest.mark.parametrize("name", GOLDEN)
def test_gradients_are_those_of_the_expectation(name):
    """dE/dmean = E[g'], dE/dvariance = E[g'']/2, by central differences of the value."""
    likelihood, y = GOLDEN[name], jnp.array([1.0, 0.0, 1.0])
    mean, variance, step = jnp.array([0.2, -1.0, 3.0]), jnp.array([0.3, 1.0, 2.0]), 1e-5

    def total(mean, variance):
        return expected_log_density(likelihood, mean, variance, y).sum()

    slopes = jax.grad(total, argnums=(0, 1))(mean, variance)
    for i in range(3):
        shift = jnp.zeros(3).at[i].set(step)
        by_mean = (total(mean + shift, variance) - total(mean - shift, variance)) / (2 * step)
        by_variance = (total(mean, variance + shift) - total(mean, variance - shift)) / (2 * step)
        np.testing.assert_allclose([slopes[0][i], slopes[1][i]], [by_mean, by_variance], rtol=1e-6, atol=1e-8)


def test_tails_are_finite_with_their_derivatives():
    f = jnp.array([-1e4, -40.0, 40.0, 1e4], jnp.float32)
    for likelihood, y in ((Bernoulli(), 0.0), (Bernoulli(), 1.0), (Bernoulli("probit"), 1.0), (StudentT(3, 0.1), 0.0)):

        @jax.jit
        def derivatives(f, likelihood=likelihood, y=y):
            slope = jax.grad(lambda f: likelihood.log_density(f, y).sum())
            return likelihood.log_density(f, y), slope(f), jax.grad(lambda f: slope(f).sum())(f)

        for value in derivatives(f):
            assert jnp.isfinite(value).all() and value.dtype == jnp.float32
    assert jnp.isfinite(log_predictive(Bernoulli(), jnp.float64(-200.0), jnp.float64(1.0), 1.0))


def test_under_vmap_jit_and_float32():
    mean, variance, y = jnp.zeros((4, 3), jnp.float32), jnp.ones((4, 3), jnp.float32), jnp.ones((4, 3), jnp.float32)
    found = jax.jit(jax.vmap(Bernoulli().expected_log_density))(mean, variance, y)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected_log_density(Bernoulli(), 0.0, 1.0, 1.0), rtol=1e-6)


def test_parameters_of_each_point_are_cut_to_rows():
    likelihood = Gaussian([0.1, 0.2, 0.3])
    np.testing.assert_array_equal(likelihood.at(jnp.array([2, 0])).noise_variance, [0.3, 0.1])
    assert Poisson(2.0).at(jnp.array([1])).exposure == 2.0


@pytest.mark.parametrize(
    "likelihood, y, words",
    [
        (Bernoulli(), [0, 1, -1], "targets 0 or 1 .* got -1 in row 2"),
        (Poisson(), [1.0, 2.5], "counts 0, 1, 2, .* got 2.5 in row 1"),
        (Categorical(3), [0, 3], "classes 0 to 2 .* got 3 in row 1"),
        (StudentT(), [0.0, np.nan], "finite numbers"),
        (Gaussian(), [[0.0]], "targets \\[n\\]"),
    ],
)
def test_targets_outside_the_support(likelihood, y, words):
    with pytest.raises(DataError, match=words):
        likelihood.check_targets(np.array(y))


def test_parameters_out_of_range():
    with pytest.raises(ConfigError, match="link"):
        Bernoulli("logistic")
    with pytest.raises(ConfigError, match="num_classes"):
        Categorical(1)
    with pytest.raises(ConfigError, match="scale"):
        StudentT(4, -1.0)


def test_classes_of_correlated_latents():
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    grid = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1).reshape(-1, 3)
    weights = np.einsum("i,j,k->ijk", weights, weights, weights).reshape(-1) / weights.sum() ** 3
    root, mean = np.array([[1.0, 0, 0], [-1.5, 0.6, 0], [0.4, 0.9, 0.8]]), np.array([0.4, -0.3, 1.0])
    expected = weights @ special.softmax(mean + grid @ root.T, axis=1)
    found, _ = predict(Categorical(3), jnp.array(mean)[None], jnp.array(root @ root.T)[None])
    np.testing.assert_allclose(found[0], expected, atol=5e-4)
