"""Guidance against reference formulas and exact posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import (
    EDM,
    VP,
    Multistep,
    as_kind,
    classifier_free,
    classifier_free_batch,
    classifier_guidance,
    reconstruction_guidance,
    sample,
)
from aijax.diffusion.guidance import combine_guidance
from aijax.diffusion.mixture import GaussianMixture, denoiser, log_posterior, score
from aijax.errors import ConfigError


@pytest.mark.golden("guidance", where=lambda entry: entry["id"].startswith("cfg-formula"))
def test_the_golden_formula(case, arrays):
    p = case.params
    case.close(combine_guidance(arrays["cond"], arrays["uncond"], p["scale"], rescale=p["rescale"]), "out")


@pytest.mark.golden("guidance", where=lambda entry: entry["id"].startswith("classifier"))
def test_the_golden_classifier_guidance(case, arrays):
    p, x = case.params, arrays["x"]

    def log_prob(x, t):
        return log_posterior(case.mixture, x, p["alpha"], p["sigma"])[:, p["component"]]

    case.close(jax.jit(log_prob)(x, 0), "log_prob")
    score_fn = lambda x, t: score(case.mixture, x, p["alpha"], p["sigma"])  # noqa: E731
    guided = jax.jit(classifier_guidance(score_fn, log_prob, EDM(), scale=p["scale"], prediction="score"))
    case.close(guided(x, p["sigma"]), "guided_score")


def test_classifier_guidance_of_weight_1_samples_the_component(g2, float64):
    """The exact classifier of a mixture turns its denoiser into that of the component, in any kind of prediction."""
    process, t, x = VP(), jnp.asarray(0.4), jnp.array([[0.1, 0.2], [1.0, -1.0]])
    one = GaussianMixture(np.array([0.0, 1.0, 0.0]), g2.means, g2.covariances)

    def log_prob(x, t):
        return log_posterior(g2, x, process.alpha(t), process.sigma(t))[:, 1]

    for kind in ("x0", "eps", "v"):
        model = as_kind(denoiser(g2, process), process, "x0", kind)
        wanted = jax.jit(as_kind(denoiser(one, process), process, "x0", kind))(x, t)
        guided = jax.jit(classifier_guidance(model, log_prob, process, prediction=kind))
        np.testing.assert_allclose(guided(x, t), wanted, rtol=1e-8, atol=1e-9)


def test_guidance_of_scale_1_is_the_condition_and_acts_in_its_interval():
    condition, null = (lambda x, t: x + 1.0), (lambda x, t: x)
    x = jnp.zeros((2, 3))
    np.testing.assert_array_equal(classifier_free(condition, null, 1.0)(x, 0.5), x + 1)
    guided = classifier_free(condition, null, 3.0, interval=(0.2, 0.6))
    assert float(guided(x, 0.5)[0, 0]) == 3.0 and float(guided(x, 0.1)[0, 0]) == 1.0
    np.testing.assert_array_equal(guided(x, jnp.array([0.5, 0.1]))[:, 0], [3.0, 1.0])


def test_one_call_on_the_doubled_batch_is_the_same():
    model = lambda x, t, c: x + c["label"]  # noqa: E731
    condition, null = {"label": jnp.ones((2, 1))}, {"label": jnp.zeros((2, 1))}
    x = jnp.array([[1.0], [2.0]])
    batched = classifier_free_batch(model, condition, null, 2.5)(x, 0.3)
    apart = classifier_free(lambda x, t: model(x, t, condition), lambda x, t: model(x, t, null), 2.5)(x, 0.3)
    np.testing.assert_allclose(batched, apart)


def test_reconstruction_guidance_samples_the_posterior_of_a_gaussian():
    """x_0 ~ N(0, I) in two dimensions, the first of which is observed with noise."""
    process = VP()
    prior = lambda x, t: process.alpha(t) * x  # noqa: E731
    observed = jnp.full((4096, 1), 0.8)
    model = reconstruction_guidance(prior, process, lambda x0: x0[:, :1], observed, noise_std=0.5)
    x = sample(jax.random.key(0), model, process, (4096, 2), sampler=Multistep(2, eta=1.0), steps=100, grid="log_snr")
    mean, variance = 0.8 / 1.25, 0.25 / 1.25
    np.testing.assert_allclose(x.mean(0), [mean, 0.0], atol=0.04)
    np.testing.assert_allclose(x.std(0), [np.sqrt(variance), 1.0], atol=0.05)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: classifier_free(lambda x, t: x, None, 2.0), "null_fn: guidance needs a prediction without"),
        (lambda: classifier_free_batch(lambda x, t, c: x, 1.0, None, 2.0), "null: guidance needs"),
        (lambda: classifier_free(abs, abs, 2.0, rescale=1.5), "rescale: expected a number from 0 to 1"),
        (lambda: classifier_free(abs, abs, 2.0, interval=(0.6, 0.2)), "interval: expected .low, high. in order"),
        (lambda: reconstruction_guidance(abs, VP(), abs, 0, spread=0.0), "noise_std, spread: expected"),
        (
            lambda: reconstruction_guidance(lambda x, t: x, VP(), abs, jnp.ones((1, 1)))(jnp.ones((1, 2)), 0.5),
            "observed: expected the shape that the operator gives",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
