"""Processes of continuous time: tables of 50 digits, float32 at small times, inverses, rates, bad parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax.diffusion import EDM, VE, VP, Cosine, Flow, SubVP
from aijax.diffusion.samplers.adaptive import level_rates
from aijax.errors import ConfigError

PROCESSES = [VE(0.02, 40.0), VP(), SubVP(), Cosine(), EDM(), Flow()]
NAMES = [type(process).__name__ for process in PROCESSES]


def of_table(case):
    return Cosine(case.params["s"]) if case.params["sde"] == "cosine" else case.process


@pytest.mark.golden("sde_table")
def test_the_golden_tables(case):
    process, t = of_table(case), case["t"]
    functions = {
        "mean_coeff": process.alpha,
        "std": process.sigma,
        "drift_coeff": process.drift_coefficient,
        "diffusion": process.diffusion,
        "log_snr": process.log_snr,
        "alpha_bar": lambda t: process.alpha(t) ** 2,
        "beta": getattr(process, "beta", None),
        "std_exact": getattr(process, "std_from_start", None),
    }
    for name in set(case.arrays) - {"t"}:
        case.close(functions[name](t), name)


@pytest.mark.golden("sde_table")
def test_float32_is_accurate_at_small_times(case):
    process, t = of_table(case), jnp.asarray(case["t"], jnp.float32)
    exact = np.asarray(process.sigma(np.asarray(t, np.float64)))
    np.testing.assert_allclose(process.sigma(t), exact, rtol=1e-6)


@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
@given(share=st.floats(0.001, 0.999))
@settings(max_examples=20, deadline=None)
def test_time_at_inverts_the_ratio(process, share):
    t = process.t_min + share * (process.t_max - process.t_min)
    ratio = process.ratio(np.float64(t))
    np.testing.assert_allclose(process.time_at(ratio), t, rtol=1e-9)
    np.testing.assert_allclose(process.alpha_at(ratio), process.alpha(np.float64(t)), rtol=1e-9)
    np.testing.assert_allclose(process.sigma(np.float64(t)) / process.alpha(np.float64(t)), ratio, rtol=1e-9)


@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
def test_drift_and_diffusion_are_the_rates_of_the_levels(process, float64):
    t = jnp.asarray(0.3 * process.t_max)
    (alpha, alpha_rate), (sigma, sigma_rate) = level_rates(process, t)
    np.testing.assert_allclose(process.drift_coefficient(t), alpha_rate / alpha, atol=1e-10)
    variance_rate = 2 * sigma * sigma_rate - 2 * process.drift_coefficient(t) * sigma**2
    np.testing.assert_allclose(process.diffusion(t) ** 2, variance_rate, rtol=1e-9)


def test_processes_go_through_transformations():
    process = VP()
    batched = jax.vmap(lambda high: VP(0.1, high).sigma(0.5))(jnp.array([5.0, 20.0]))
    np.testing.assert_allclose(batched[1], process.sigma(0.5), rtol=1e-6)
    rate = jax.grad(lambda p: p.sigma(jnp.asarray(0.5)))(process)
    assert float(rate.beta_max) > 0
    mean, std = jax.jit(lambda p, x: p.marginal(x, jnp.array([0.1, 0.9])))(process, jnp.ones((2, 3)))
    assert mean.shape == (2, 3) and std.shape == (2,)
    assert process.prior.log_density(jnp.zeros((1, 2)))[0] == pytest.approx(-np.log(2 * np.pi))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: VE(50.0, 0.01), "sigma_min: expected a number below sigma_max"),
        (lambda: VP(20.0, 0.1), "beta_min: expected a number below beta_max"),
        (lambda: EDM(0.0, 1.0), "sigma_min: expected a positive number"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
