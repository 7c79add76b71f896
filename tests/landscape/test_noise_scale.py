"""Gradient noise and sharpness against reference values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import landscape
from aijax.errors import ConfigError


@pytest.mark.parametrize("name", ["gns_softplus_mse", pytest.param("gns_gelu_ce_init", marks=pytest.mark.slow)])
def test_noise_scales_are_those_of_references(read_case, name):
    case = read_case(name)
    arrays = {key: np.asarray(a) for key, a in case.arrays.items()}
    found = landscape.exact_noise_scale(case.loss_fn, case.params, case.batch)
    pairs = {
        "grad_sq": found.gradient_square, "trace_sigma": found.trace, "b_simple": found.simple,
        "b_simple_unbiased": found.unbiased, "gHg": found.curvature, "trace_HSigma": found.curvature_trace,
        "b_noise": found.noise, "eps_max": found.largest_step,
    }  # fmt: skip
    for key, value in pairs.items():
        np.testing.assert_allclose(value, arrays[key], rtol=1e-8, err_msg=key)
    small, n = int(arrays["small_batch"]), len(case.batch[0])
    parts = jax.tree.map(lambda leaf: leaf.reshape(-1, small, *leaf.shape[1:]), case.batch)
    slopes = jax.vmap(lambda batch: jax.grad(case.loss_fn)(case.params, batch))(parts)
    squares = np.sum(case.flat(slopes) ** 2, axis=1)
    two = landscape.noise_scale(squares, arrays["grad_sq"], small, n)
    np.testing.assert_allclose(two.gradient_square, arrays["est_grad_sq"], rtol=1e-8)
    np.testing.assert_allclose(two.trace, arrays["est_trace_sigma"], rtol=1e-8)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    dimension, small, large, gradient = 50, 4, 64, 0.5
    truth = dimension / (dimension * gradient**2)
    rng = np.random.default_rng(0)

    def squares(size, count):
        draws = gradient + rng.normal(size=(count, dimension)) / size**0.5
        return jnp.asarray(np.sum(draws**2, 1))

    found = [landscape.noise_scale(squares(small, 40), squares(large, 10), small, large) for _ in range(200)]
    inside = np.mean([bool(one.low <= truth <= one.high) for one in found])
    assert 0.88 <= inside <= 0.99
    drowned = landscape.noise_scale(jnp.array([4.0, 5.0]), jnp.array([0.5, 0.6]), 1, 4)
    assert drowned.gradient_square < 0 and np.isnan(drowned.value) and np.isinf(drowned.high)
    with pytest.raises(ConfigError, match="the first below the second, got 4 and 4"):
        landscape.noise_scale(1.0, 1.0, 4, 4)


@pytest.mark.parametrize("name", ["sharp_softplus_mse", pytest.param("sharp_gelu_ce", marks=pytest.mark.slow)])
def test_sharpness_is_that_of_references(read_case, name):
    case = read_case(name)
    arrays, given = case.arrays, (case.loss_fn, case.params, case.batch)
    for rho, sam, adaptive in zip(arrays["rhos"], arrays["sam_increase"], arrays["asam_increase"], strict=True):
        assert landscape.sam_sharpness(*given, rho) == pytest.approx(sam, rel=1e-7)
        assert landscape.adaptive_sharpness(*given, rho) == pytest.approx(adaptive, rel=1e-7)
    noise = case.vector(arrays["noise"])
    for sigma, rise in zip(arrays["sigmas"], arrays["avg_increase"], strict=True):
        assert landscape.average_sharpness(*given, sigma, noise=noise).value == pytest.approx(rise, rel=1e-7)
    with pytest.raises(ConfigError, match="rho: expected a positive length, got 0"):
        landscape.sam_sharpness(*given, 0)
    with pytest.raises(ConfigError, match="key: noise is drawn at random"):
        landscape.average_sharpness(*given)


def test_where_the_gradient_is_zero_no_step_makes_the_loss_rise():
    given = lambda w, x: jnp.mean(x * w**2), jnp.zeros(2), jnp.ones((3, 2))
    assert landscape.sam_sharpness(*given) == 0 == landscape.adaptive_sharpness(*given)
