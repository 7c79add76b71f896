"""Losses of examples against reference values; weightings; wrappers of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import EDM, VP, Flow, as_kind, denoising_loss, drop_condition, edm_loss, flow_matching_loss
from aijax.diffusion.losses import (
    implicit_score_matching,
    logit_normal_times,
    lognormal_times,
    sliced_score_matching,
    uniform_times,
)
from aijax.diffusion.mixture import denoiser, score
from aijax.diffusion.predictions import from_x0
from aijax.diffusion.schedules import linear_table
from aijax.errors import ConfigError

KEY = jax.random.key(0)


def starts(name):
    return lambda entry: entry["id"].startswith(name)


@pytest.mark.golden("loss", where=starts("dsm"))
def test_the_golden_score_matching(case, arrays):
    process = case.process
    score_fn = lambda x, t: score(case.mixture, x, process.alpha(t), process.sigma(t))  # noqa: E731

    @jax.jit
    def losses(x0, t, noise):
        return {
            f"{name}_{short}": denoising_loss(
                KEY, score_fn, process, x0, prediction="score", weighting=weighting, reduce=reduce, t=t, noise=noise
            )
            for name, weighting in (("dsm", "eps"), ("lik", "likelihood"))
            for short, reduce in (("mean", "mean"), ("sum", "half_sum"))
        }

    for name, value in losses(arrays["x0"], arrays["t"], arrays["noise"]).items():
        case.close(value, name)


@pytest.mark.golden("loss", where=starts("ssm"))
def test_the_golden_sliced_score_matching(case, arrays):
    score_fn = jax.jit(lambda x: score(case.mixture, x, case.params["alpha"], case.params["sigma"]))
    x, v = arrays["x"], arrays["v"]
    case.close(jax.jit(lambda x: implicit_score_matching(score_fn, x))(x), "ism")
    case.close(sliced_score_matching(KEY, score_fn, x, probes=v, variance_reduced=False), "ssm")
    case.close(sliced_score_matching(KEY, score_fn, x, probes=v), "ssm_vr")


@pytest.mark.golden("loss", where=starts("edm"))
def test_the_golden_edm_loss(case, arrays):
    p, process = case.params, EDM(1e-4, 1e4)
    t = jnp.exp(p["P_mean"] + p["P_std"] * arrays["u"])
    case.close(t, "sigma")
    model, data = denoiser(case.mixture, process), p["sigma_data"]
    loss = jax.jit(lambda x0, t, z: edm_loss(KEY, model, process, x0, sigma_data=data, t=t, noise=z))
    case.close(loss(arrays["x0"], t, arrays["noise"]), "loss")
    case.close(jax.jit(lambda d, y, t: from_x0("F", d, y, 1.0, t, sigma_data=data))(arrays["D"], arrays["y"], t), "F")


@pytest.mark.golden("loss", where=starts("flow"))
def test_the_golden_flow_matching(case, arrays):
    process = Flow()
    velocity = as_kind(denoiser(case.mixture, process), process, "x0", "velocity")
    loss = jax.jit(lambda x0, t, z: flow_matching_loss(KEY, velocity, process, x0, t=t, noise=z))
    case.close(loss(arrays["x0"], arrays["t"], arrays["noise"]), "loss")


def test_weightings_are_one_error_weighted(g2, float64):
    process, t = VP(), jnp.array([0.1, 0.5, 0.9])
    x0 = jnp.array([[1.0, 0.0], [0.5, -1.0], [0.2, 0.3]])
    noise = jax.random.normal(KEY, x0.shape)
    exact = denoiser(g2, process)
    snr = (process.alpha(t) / process.sigma(t)) ** 2

    def loss(weighting, kind="x0"):
        model = as_kind(exact, process, "x0", kind)
        return denoising_loss(KEY, model, process, x0, prediction=kind, weighting=weighting, t=t, noise=noise)

    truncated = lambda snr: jnp.maximum(snr, 1)  # noqa: E731
    names = [(name, "x0") for name in ("x0", "eps", "snr", truncated, "min_snr", "p2", "edm")]
    names += [("v", "v"), ("edm", "F")]
    values = jax.jit(lambda: [loss(*name) for name in names])()
    x0_loss, eps, by_snr, cut, min_snr, p2, edm, v, edm_of_f = values
    np.testing.assert_array_equal(by_snr, eps)
    np.testing.assert_allclose(cut, np.maximum(snr, 1) * x0_loss, rtol=1e-10)
    np.testing.assert_allclose(eps, snr * x0_loss, rtol=1e-10)
    np.testing.assert_allclose(min_snr, np.minimum(snr, 5) * x0_loss, rtol=1e-10)
    np.testing.assert_allclose(p2, eps / (1 + snr), rtol=1e-10)
    np.testing.assert_allclose(v, (snr + 1) * x0_loss, rtol=1e-10)
    np.testing.assert_allclose(edm_of_f, edm, rtol=1e-9)


def test_the_exact_denoiser_is_the_least():
    process = VP()
    x0 = jax.random.normal(KEY, (4096, 1))
    loss = lambda scale: denoising_loss(  # noqa: E731
        KEY, lambda x, t: scale * process.alpha(t)[:, None] * x, process, x0, weighting="x0"
    ).mean()
    assert abs(jax.jit(jax.grad(loss))(1.0)) < 0.03


@pytest.mark.parametrize("times", [uniform_times, lognormal_times, logit_normal_times])
def test_times_lie_within_the_process(times):
    for process in (VP(), EDM(), Flow()):
        t = times(KEY, process, 100)
        assert t.shape == (100,) and (t >= 0).all() and (t <= process.t_max).all()
    table_times = uniform_times(KEY, linear_table(10), 100)
    assert set(np.unique(table_times)) <= set(range(10))


def test_conditions_are_dropped_at_their_rate():
    labels = drop_condition(KEY, jnp.ones((2000, 3)), jnp.zeros(3), 0.1)
    assert set(np.unique(labels.sum(1))) == {0.0, 3.0}
    assert 0.07 < float((labels.sum(1) == 0).mean()) < 0.13


@pytest.mark.parametrize(
    "options, message",
    [
        ({"weighting": "snrs"}, "weighting: unknown value 'snrs'; did you mean 'snr'"),
        ({"t": jnp.array([0.5, 1.5])}, "t: expected times from 0 to 1, got 1.5"),
        ({"denoise_fn": lambda x, t: x.sum(1)}, "denoise_fn: expected an array of the shape of x"),
        ({"reduce": "sum"}, "reduce: unknown value 'sum'"),
        ({"t": jnp.ones(3)}, "t: expected one time for each of 2 examples, got shape .3."),
        ({"noise": jnp.ones((2, 4))}, "noise: expected the shape of x0"),
        ({"x0": jnp.zeros((2, 3), int)}, r"x0: expected floating point of shape .n, \.\.\.., got int"),
    ],
)
def test_mistakes_are_named(options, message):
    chosen = {"denoise_fn": lambda x, t: x, "process": VP(), "x0": jnp.zeros((2, 3))} | options
    with pytest.raises(ConfigError, match=message):
        denoising_loss(KEY, **chosen)
