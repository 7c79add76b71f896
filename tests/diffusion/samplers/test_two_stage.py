"""Samplers in x_0 + sigma n with churn and ancestral noise against whole reference runs, call by call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import (
    DDIM,
    DPM2,
    EDM,
    LMS,
    VP,
    DPMAdaptive,
    DPMpp2S,
    DPMppSDE,
    Euler,
    Grid,
    Heun,
    Multistep,
    fast_blocks,
    make_grid,
    sample,
)
from aijax.diffusion.mixture import denoiser
from aijax.errors import ConfigError

QUICK = {"k-heun-churn-a", "k-dpm2-b", "k-dpmpp-2s-eta0-a", "k-dpmpp-sde-b", "k-dpmpp-3m-sde-a", "k-dpm-fast-a"}


def make_sampler(name, options):
    """The sampler of a published name."""
    churn = {
        "churn": options.get("s_churn", 0.0),
        "churn_min": options.get("s_tmin", 0.0),
        "churn_max": options.get("s_tmax", np.inf),
        "noise_scale": options.get("s_noise", 1.0),
    }
    eta = options.get("eta", 1.0)
    samplers = {
        "euler": lambda: Euler(**churn),
        "heun": lambda: Heun(**churn),
        "dpm_2": lambda: DPM2(**churn),
        "lms": lambda: LMS(options.get("order", 4)),
        "euler_ancestral": lambda: DDIM(eta),
        "dpm_2_ancestral": lambda: DPM2(eta=eta),
        "dpmpp_2s_ancestral": lambda: DPMpp2S(eta),
        "dpmpp_sde": lambda: DPMppSDE(eta),
        "dpmpp_2m": lambda: Multistep(2, lower_final=False),
        "dpmpp_2m_sde": lambda: Multistep(2, rule=options.get("solver_type", "midpoint"), eta=eta, lower_final=False),
        "dpmpp_3m_sde": lambda: Multistep(3, rule="heun", eta=eta, lower_final=False),
    }
    return samplers[name]()


def make_levels(p):
    """The process, grid and sampler of a case."""
    if p["algorithm"] == "dpm_fast":
        process = EDM(p["sigma_min"], p["sigma_max"])
        return process, *fast_blocks(process, p["options"]["n"])
    schedule = p["sigma_schedule"]
    if schedule["kind"] == "vp":
        high = schedule["beta_min"] + schedule["beta_d"]
        ratios = make_grid(VP(schedule["beta_min"], high), schedule["n"], t_min=schedule["eps_s"]).ratios
        process, grid = EDM(1e-4, 1e4), Grid(ratios, np.ones_like(ratios), ratios)
    else:
        process = EDM(schedule["sigma_min"], schedule["sigma_max"])
        options = {"rho": schedule["rho"]} if "rho" in schedule else {}
        grid = make_grid(process, schedule["n"], schedule["kind"], **options)
    return process, grid, make_sampler(p["algorithm"], p["options"])


def run(case):
    p = case.params
    process, grid, sampler = make_levels(p)
    prepared = sampler.prepare(process, grid, jnp.float64)
    noise = None
    if sampler.noise_shape(prepared, case["x_init"].shape) is not None:
        noise = np.zeros(sampler.noise_shape(prepared, case["x_init"].shape))
        if "s_churn" in p["options"]:
            # drawn at the first call of each step, whether it is used or not
            firsts = range(len(noise)) if prepared.keep is None else np.flatnonzero(prepared.keep.x)
        else:
            firsts = np.flatnonzero(prepared.update.noise)
        noise[list(firsts)] = case["noise"]
    return sample(
        jax.random.key(0),
        denoiser(case.mixture, process),
        process,
        case["x_init"].shape,
        sampler=sampler,
        grid=grid,
        init=jnp.asarray(case["x_init"]),
        noise=None if noise is None else jnp.asarray(noise),
        trajectory=True,
    )


def check(case):
    x, seen = run(case)
    case.close(x, "x_out")
    case.close(seen.inputs, "call_x")
    case.close(seen.sigmas, "call_sigma")
    case.close(seen.x0, "call_denoised")


@pytest.mark.golden("sampler_karras", where=lambda e: e["params"]["algorithm"] != "dpm_adaptive" and e["id"] in QUICK)
def test_the_golden_runs(case, float64):
    check(case)


@pytest.mark.slow
@pytest.mark.golden(
    "sampler_karras", where=lambda e: e["params"]["algorithm"] != "dpm_adaptive" and e["id"] not in QUICK
)
def test_the_other_golden_runs(case, float64):
    check(case)


@pytest.mark.golden("sampler_karras", where=lambda e: e["params"]["algorithm"] == "dpm_adaptive")
def test_the_golden_adaptive_runs(case, float64):
    p = case.params
    process = EDM(p["sigma_min"], p["sigma_max"])
    x, effort = sample(
        jax.random.key(0),
        denoiser(case.mixture, process),
        process,
        case["x_init"].shape,
        sampler=DPMAdaptive(rtol=p["options"]["rtol"], atol=p["options"]["atol"]),
        grid=make_grid(process, 2, "log_snr", final="min"),
        init=jnp.asarray(case["x_init"]),
        trajectory=True,
    )
    case.close(x, "x_out")
    assert (int(effort.accepted), int(effort.rejected)) == (p["info"]["n_accept"], p["info"]["n_reject"])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Heun(churn=-1.0), "churn: expected a number of at least 0, got -1.0"),
        (lambda: Euler(churn_min=2.0, churn_max=1.0), "churn_min: expected at most churn_max"),
        (lambda: DPM2(eta=2.0), "eta: expected a number from 0 to 1, got 2.0"),
        (lambda: fast_blocks(EDM(), 0), "calls: expected an integer of at least 1"),
    ],
)
def test_bad_samplers_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
