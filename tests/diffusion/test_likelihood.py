"""Log-likelihoods, codes and bits per dimension against reference paths and known densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import (
    VP,
    Flow,
    Grid,
    ProbabilityFlow,
    as_kind,
    bits_per_dim,
    dequantise,
    interpolate,
    log_likelihood,
    sample,
)
from aijax.diffusion.mixture import denoiser, log_density
from aijax.errors import ConfigError, DataError

KEY = jax.random.key(0)
QUICK = {"lik-ve-g2"}


def check(case, arrays):
    options = {"t_min": case.params["t_eps"], "rtol": 1e-9, "atol": 1e-9}
    model = denoiser(case.mixture, case.process)

    @jax.jit
    def both(x, probe):
        exact = log_likelihood(KEY, model, case.process, x, divergence="exact", **options)
        return exact, log_likelihood(KEY, model, case.process, x, probes=probe, **options)

    exact, probed = both(arrays["x"], arrays["probe"])
    assert bool(exact.finished) and bool(probed.finished)
    case.close(exact.code, "z")
    case.close(exact.change, "delta_logp")
    case.close(exact.log_prob, "logp_ode")
    case.close(exact.log_prob - exact.change, "prior_logp")
    case.close(
        exact.change + log_density(case.mixture, exact.code, case.process.alpha(1.0), case.process.sigma(1.0)),
        "exact_logp",
    )
    case.close(probed.change, "hutchinson_delta")
    case.close(bits_per_dim(exact.log_prob, arrays["x"].shape[1]), "bpd")


@pytest.mark.golden("likelihood", where=lambda entry: entry["id"] in QUICK)
def test_the_golden_likelihoods(case, arrays):
    check(case, arrays)


@pytest.mark.slow
@pytest.mark.golden("likelihood", where=lambda entry: entry["id"] not in QUICK)
def test_the_other_golden_likelihoods(case, arrays):
    check(case, arrays)


@pytest.mark.golden("pf_ode")
def test_the_golden_flows(case, arrays):
    process, t = case.process, case["t"]
    _, seen = sample(
        KEY, denoiser(case.mixture, process), process, case["x"].shape[1:],
        sampler=ProbabilityFlow(case.params["method"]), grid=Grid(t, process.alpha(t), process.sigma(t)),
        init=arrays["x"][0], trajectory=True,
    )  # fmt: skip
    stages = len(seen.times) // (len(t) - 1)
    case.close(seen.states[stages - 1 :: stages], case["x"][1:])


@pytest.mark.slow
def test_several_probes_have_a_standard_error(g2):
    process, x = VP(), jnp.array([[0.5, 0.5], [-1.0, 0.4]])
    model = denoiser(g2, process)
    found = jax.jit(lambda x: log_likelihood(KEY, model, process, x, num_probes=32, solver="tsit5"))(x)
    assert (jnp.abs(found.log_prob - log_density(g2, x)) < 5 * found.standard_error + 2e-3).all()
    assert (found.standard_error > 0).all()


@pytest.mark.slow
def test_the_ends_of_an_interpolation_are_the_data(g2):
    process = Flow()
    model = as_kind(denoiser(g2, process), process, "x0", "velocity")
    x = jnp.array([[0.5, 0.5], [-1.0, 0.4]])
    options = {"prediction": "velocity", "t_max": 0.999, "solver": "tsit5"}
    between = jax.jit(lambda x: interpolate(model, process, x[0], x[1], jnp.array([0.0, 0.5, 1.0]), **options))(x)
    np.testing.assert_allclose(between[jnp.array([0, 2])], x, atol=5e-3)


def test_bits_of_uniform_data_are_those_of_their_levels():
    x = dequantise(KEY, jnp.arange(256), levels=256)
    np.testing.assert_array_equal(jnp.floor((x + 1) / 2 * 256), jnp.arange(256))
    uniform = -jnp.log(2.0) * jnp.ones(1)
    np.testing.assert_allclose(bits_per_dim(uniform, 1, levels=16), 4.0, rtol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"divergence": "trace"}, "divergence: unknown value 'trace'"),
        ({"num_probes": 0}, "num_probes: expected at least 1"),
        ({"t_max": 2.0}, "t_max: expected times from 0 to 1, got 2"),
        ({"solver": "rk45"}, "solver: unknown value 'rk45'"),
        ({"t_min": 0.5, "t_max": 0.2}, "t_min: expected a time below t_max = 0.2, got 0.5"),
        ({"rtol": 0.0}, "rtol: expected a positive number, got 0.0"),
        ({"probes": jnp.ones((3, 2))}, r"probes: expected the shape of x, \(1, 2\)"),
        ({"denoise_fn": lambda x, t: x[:, :1]}, "denoise_fn: expected an array of the shape of x"),
        ({"x": jnp.zeros((1, 2), int)}, "x0: expected floating point"),
    ],
)
def test_mistakes_are_named(options, message):
    chosen = {"denoise_fn": lambda x, t: x, "process": VP(), "x": jnp.zeros((1, 2))} | options
    with pytest.raises(ConfigError, match=message):
        log_likelihood(KEY, **chosen)


def test_levels_that_cannot_be_are_named():
    with pytest.raises(DataError, match="x: expected numbers from 0 to 15, got 0 to 16"):
        dequantise(KEY, jnp.array([0, 16]), levels=16)
    with pytest.raises(ConfigError, match="size: expected at least 1 dimension"):
        bits_per_dim(jnp.zeros(1), 0)
    with pytest.raises(ConfigError, match="low: expected a number below high"):
        bits_per_dim(jnp.zeros(1), 1, low=1.0, high=0.0)
