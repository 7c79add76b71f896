"""Conversions of predictions: preconditioning tables, the exact mixture's own, round trips in float32."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion.mixture import log_density, posterior_mean, ring, sample_mixture, score
from aijax.diffusion.predictions import consistency_scalings, convert, edm_scalings, from_x0, to_eps, to_x0
from aijax.diffusion.samplers.sample import KINDS
from aijax.errors import ConfigError


@pytest.mark.golden("preconditioning")
def test_the_golden_scalings(case):
    p = case.params
    if p["kind"] == "edm":
        found = dict(
            zip(("c_skip", "c_out", "c_in", "c_noise"), edm_scalings(case["sigma"], p["sigma_data"]), strict=True)
        )
        found["weight"] = 1 / found["c_out"] ** 2
    else:
        found = dict(
            zip(("c_skip", "c_out"), consistency_scalings(case["sigma"], p["sigma_data"], p["eps"]), strict=True)
        )
    for name, value in found.items():
        case.close(value, name)


@pytest.mark.golden("gmm_exact")
def test_the_golden_mixtures(case, arrays):
    for name, value in exact(case.mixture, arrays["x"], case.params["alpha"], case.params["sigma"]).items():
        case.close(value, name)


@jax.jit
def exact(mixture, x, *level):
    """What a perfect network would predict of each kind."""
    x0 = posterior_mean(mixture, x, *level)
    found = {kind: from_x0(kind, x0, x, *level) for kind in ("eps", "v", "velocity")}
    return found | {"x0": x0, "logp": log_density(mixture, x, *level), "score": score(mixture, x, *level)}


def test_conversions_round_trip_in_float32():
    ratio = jnp.geomspace(0.002, 80.0, 24)
    alpha = 1 / jnp.sqrt(1 + ratio**2)
    keys = jax.random.split(jax.random.key(0))
    x0, noise = jax.random.normal(keys[0], (24, 3)), jax.random.normal(keys[1], (24, 3))
    levels = (alpha[:, None] * (x0 + ratio[:, None] * noise), alpha, alpha * ratio)
    pairs = list(itertools.product(KINDS, KINDS))

    @jax.jit
    def there_and_back(noise, levels):
        found = []
        for source, target in pairs:
            there = convert(convert(noise, "eps", source, *levels), source, target, *levels)
            found.append((to_x0(target, there, *levels), to_eps(target, there, *levels)))
        return found

    # an error of eps weighs ratio times in x_0, and one of x_0 1/ratio times in eps
    tolerance = 2e-5 * np.maximum(ratio, 1 / ratio)[:, None]
    for pair, values in zip(pairs, there_and_back(noise, levels), strict=True):
        for value, wanted in zip(values, (x0, noise), strict=True):
            assert (np.abs(np.asarray(value) - np.asarray(wanted)) < tolerance).all(), pair


def test_the_score_is_the_gradient_of_the_log_density(g2, float64):
    x = jnp.array([[0.3, -0.2], [1.0, 2.0]])
    gradient = jax.jit(jax.grad(lambda x: log_density(g2, x, 0.8, 0.6).sum()))(x)
    np.testing.assert_allclose(exact(g2, x, 0.8, 0.6)["score"], gradient, rtol=1e-10)


def test_a_ring_has_its_radius():
    x = jax.jit(lambda key: sample_mixture(key, ring(8, radius=2.0, std=0.05), 2000))(jax.random.key(0))
    np.testing.assert_allclose(jnp.linalg.norm(x, axis=1).mean(), 2.0, atol=0.02)


def test_unknown_kinds_are_named():
    with pytest.raises(ConfigError, match="prediction: unknown value 'epsilon'; did you mean 'eps'"):
        to_x0("epsilon", jnp.zeros((1, 1)), jnp.zeros((1, 1)), 1.0, 1.0)
