"""Acquisitions against reference values, quadrature and Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from aijax.errors import ConfigError
from aijax.gp import acquisition

batch = jax.jit(acquisition.batch_expected_improvement)
log_batch = jax.jit(acquisition.log_batch_expected_improvement)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", ["acquisition_ei_s0", "acquisition_ei_s2"])
def test_golden_improvement(golden, name):
    case = np.load(golden / "gp" / f"{name}.npz")
    mean, std, best = (jnp.asarray(case[key]) for key in ("mean", "std", "best"))
    near = {"rtol": 1e-9, "atol": 1e-290}
    np.testing.assert_allclose(acquisition.expected_improvement(mean, std, best), case["ei"], **near)
    np.testing.assert_allclose(acquisition.log_expected_improvement(mean, std, best), case["log_ei"], **near)
    np.testing.assert_allclose(acquisition.log_probability_of_improvement(mean, std, best), case["log_pi"], **near)
    np.testing.assert_allclose(acquisition.probability_of_improvement(mean, std, best), norm.cdf((mean - best) / std))
    slope = jax.vmap(jax.grad(acquisition.log_expected_improvement), (0, 0, None))(mean, std, best)
    np.testing.assert_allclose(slope, case["dlogei_dmean"], **near)


@pytest.mark.parametrize("name", ["acquisition_qei2_s0", "acquisition_qei2_s2"])
def test_golden_batch(golden, name):
    case = np.load(golden / "gp" / f"{name}.npz")
    arguments = (*(jnp.asarray(case[key]) for key in ("mean", "cov", "best")), acquisition.normal_cubature(512, 1))
    value = batch(*arguments)
    np.testing.assert_allclose(value, case["qei"], rtol=1e-5)
    smooth = log_batch(*arguments)
    np.testing.assert_allclose(jnp.exp(smooth), case["qei"], rtol=1e-3)
    swapped = batch(arguments[0][::-1], arguments[1][::-1, ::-1], *arguments[2:])
    np.testing.assert_allclose(swapped, case["qei"], rtol=1e-5)


def test_the_tail_joins_the_middle_and_keeps_in_float32():
    z = jnp.linspace(-9, -4, 101)
    direct = jnp.log(norm.pdf(z) + z * norm.cdf(z))
    np.testing.assert_allclose(acquisition.log_h(z), direct, rtol=1e-12, atol=3e-12)
    z = jnp.linspace(-1000, 8, 2001)
    slope = jax.jit(jax.vmap(jax.grad(acquisition.log_h)))
    np.testing.assert_allclose(acquisition.log_h(z.astype(jnp.float32)), acquisition.log_h(z), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(slope(z.astype(jnp.float32)), slope(z), rtol=1e-4)
    curvature = jax.jit(jax.vmap(jax.grad(jax.grad(acquisition.log_h))))(jnp.array([-30.0, -6.0, 1.0]))
    step = 1e-5
    points = jnp.array([-30.0, -6.0, 1.0])
    np.testing.assert_allclose(curvature, (slope(points + step) - slope(points - step)) / (2 * step), rtol=1e-6)


def test_more_points_against_monte_carlo():
    rng = np.random.default_rng(0)
    for q, atol in ((3, 4e-3), (5, 1.2e-2)):
        mean, root = rng.normal(size=q), rng.normal(size=(q, q)) / q**0.5
        covariance = root @ root.T + 0.1 * np.eye(q)
        draws = mean + rng.normal(size=(200_000, q)) @ np.linalg.cholesky(covariance).T
        expected = np.maximum(draws.max(1) - 0.5, 0).mean()
        arguments = (jnp.asarray(mean), jnp.asarray(covariance), 0.5, acquisition.normal_cubature(512, q - 1))
        np.testing.assert_allclose(batch(*arguments), expected, atol=atol)
        np.testing.assert_allclose(jnp.exp(log_batch(*arguments)), expected, atol=2 * atol)


def test_equal_points_are_worth_one_and_far_ones_have_slopes():
    cubature = acquisition.normal_cubature(256, 1)
    twice = batch(jnp.zeros(2), jnp.ones((2, 2)), 0.3, cubature)
    np.testing.assert_allclose(twice, acquisition.expected_improvement(0.0, 1.0, 0.3), rtol=1e-4)
    far = jax.jit(jax.grad(acquisition.log_batch_expected_improvement))(
        jnp.array([-80.0, -90.0]), jnp.eye(2), 0.0, cubature
    )
    assert jnp.isfinite(far).all() and (far > 0).all()


def test_knowledge_gradient_against_quadrature():
    rng = np.random.default_rng(0)
    z = np.linspace(-9, 9, 40001)
    gain_and_slope = jax.jit(jax.value_and_grad(acquisition.knowledge_gradient, 1))
    for _ in range(4):
        mean, slope = rng.normal(size=12), rng.normal(size=12)
        slope[-1] = slope[0]  # parallel lines
        lines = (mean + slope * z[:, None]).max(1)
        expected = np.sum(lines * norm.pdf(z)) * (z[1] - z[0]) - mean.max()
        value, slopes = gain_and_slope(mean, slope)
        np.testing.assert_allclose(value, expected, atol=1e-7)
        difference = (gain_and_slope(mean, slope + 1e-6 * (np.arange(12) == 1))[0] - value) / 1e-6
        np.testing.assert_allclose(slopes[1], difference, atol=1e-5)
    assert gain_and_slope(mean, np.zeros(12))[0] == 0


def test_knowledge_gradient_of_several_points_against_drawn_observations():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(7, 7)) / 2
    mean, covariance, noise = rng.normal(size=7), root @ root.T, 0.3 * np.eye(3)
    # the mean after three observations at the last points, by the textbook update, over draws of what is observed
    seen = covariance[-3:, -3:] + noise
    observed = rng.normal(size=(400_000, 3)) @ np.linalg.cholesky(seen).T
    gains = (mean + observed @ np.linalg.solve(seen, covariance[-3:])).max(1) - mean.max()
    slopes = np.linalg.solve(np.linalg.cholesky(seen), covariance[-3:]).T
    value = acquisition.batch_knowledge_gradient(mean, slopes, acquisition.normal_cubature(512, 2))
    assert abs(value - gains.mean()) < 4 * gains.std() / np.sqrt(len(gains)) + 2e-4
    one = acquisition.batch_knowledge_gradient(mean, slopes[:, :1], None)
    assert one == acquisition.knowledge_gradient(mean, slopes[:, 0]) and one < value


def test_cubature_is_exact_where_it_should_be():
    for dimension in (1, 2, 4):
        points, weights = acquisition.normal_cubature(512, dimension)
        np.testing.assert_allclose(weights.sum(), 1)
        np.testing.assert_allclose(weights @ points, 0, atol=0.02)
        np.testing.assert_allclose(points.T @ (weights[:, None] * points), np.eye(dimension), atol=0.06)
    with pytest.raises(ConfigError, match="expected a power of two, got 500"):
        acquisition.normal_cubature(500, 1)
