"""The driven oscillator: reference values, all dampings, derivatives at coincident points."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import kernels
from aijax.errors import ConfigError
from aijax.kernels.oscillator import damped_waves

CASES = ["critical_like_s0", "critical_like_s1", "overdamped_s0", "underdamped_s1"]


@pytest.mark.parametrize("name", CASES)
def test_golden(golden, name):
    entry = json.loads((golden / "gp" / "temporal_cases.json").read_text())[f"temporal_sho_{name}"]
    arrays = np.load(golden / "gp" / f"temporal_sho_{name}.npz")
    s0, w0, q = (entry["params"][name] for name in ("S0", "w0", "Q"))
    kernel = kernels.SHO(angular_frequency=w0, quality=q, variance=s0 * w0 * q)
    row = kernel(jnp.zeros(1), jnp.asarray(arrays["lags"]))[0]
    np.testing.assert_allclose(row, arrays["k_of_lag"], entry["rtol"], entry["atol"])
    np.testing.assert_allclose(kernel(-jnp.asarray(arrays["lags"]), jnp.zeros(1))[:, 0], row, rtol=1e-14)


@pytest.mark.parametrize("damping", [0.01, 0.7, 0.999, 1.0, 1.001, 1.4, 30.0])
def test_waves_are_those_of_each_damping(damping):
    time = np.concatenate([[0.0], np.geomspace(1e-6, 300, 60)])
    gap = complex(damping**2 - 1) ** 0.5
    with np.errstate(all="ignore"):
        cosine = np.real(np.exp((gap - damping) * time) + np.exp((-gap - damping) * time)) / 2
        sine = time * np.exp(-damping * time)
        if abs(gap) > 0:
            sine = np.real((np.exp((gap - damping) * time) - np.exp((-gap - damping) * time)) / (2 * gap))
    got = damped_waves(jnp.asarray(time), damping)
    np.testing.assert_allclose(got[0], cosine, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(got[1], sine, rtol=1e-8, atol=1e-11)


def test_derivatives_are_right_at_critical_damping_and_where_points_coincide():
    x = jnp.array([[0.0], [0.0], [0.4], [9.0]])
    weights = jnp.arange(16.0).reshape(4, 4)
    qualities = jnp.array([0.3, 0.5, 4.0])

    def total(quality):
        return jnp.sum(kernels.SHO(1.3, quality, 0.8)(x) * weights)

    def value(a, b, quality):
        return kernels.SHO(1.3, quality, 0.8)(a[None], b[None])[0, 0]

    @jax.jit
    @jax.vmap
    def everything(quality):
        step = 1e-5
        numeric = (total(quality + step) - total(quality - step)) / (2 * step)
        first, second = jax.jvp(lambda b: jax.grad(value)(x[0], b, quality), (x[1],), (jnp.ones(1),))
        return numeric, jax.grad(total)(quality), first, second

    numeric, slope, first, second = everything(qualities)
    np.testing.assert_allclose(slope, numeric, rtol=1e-7)
    np.testing.assert_allclose(first, 0, atol=1e-15)
    np.testing.assert_allclose(second, 0.8 * 1.3**2, rtol=1e-12)


def test_gram_matrices_are_positive_semidefinite_and_finite_far_out():
    x = jnp.asarray(np.random.default_rng(0).normal(0, 30, 80))
    for quality in (0.05, 0.5, 50.0):
        gram = kernels.SHO(2.0, quality)(x)
        assert np.linalg.eigvalsh(gram).min() > -1e-12
        assert np.isfinite(kernels.SHO(2.0, quality)(x * 1e6)).all()


def test_mistakes():
    with pytest.raises(ConfigError, match=r"x: expected points of one coordinate for SHO, \[n\] or \[n, 1\]"):
        kernels.SHO()(jnp.zeros((3, 2)))
    with pytest.raises(ConfigError, match="quality: expected a positive number, got 0"):
        kernels.SHO(quality=0)
