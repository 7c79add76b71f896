"""Tables: published betas, posteriors, forward process, discrete sdes; respacing and times."""

import numpy as np
import pytest

from aijax.diffusion import VP, add_noise, discretise, linear_table, make_table, respace, zero_terminal_snr
from aijax.diffusion.losses import MIN_SNR
from aijax.diffusion.predictions import from_x0
from aijax.diffusion.published import scheduler
from aijax.diffusion.schedules import Table, index_of_time, posterior, snr, time_of_index
from aijax.errors import ConfigError


def table_of(params):
    return scheduler("DDPM", {key: value for key, value in params.items() if key != "rescale"}, 1).process


@pytest.mark.golden("beta_schedule")
def test_the_golden_tables(case):
    table = table_of(case.params)
    if "rescale" in case.params:
        table = zero_terminal_snr(table)
    coefficients = posterior(table)
    found = {
        "betas": table.betas,
        "alphas_cumprod": table.alpha_bars(),
        "posterior_variance": coefficients["variance"],
        "posterior_mean_x0_coef": coefficients["x0"],
        "posterior_mean_xt_coef": coefficients["xt"],
        "log_snr": np.log(snr(table)) if "log_snr" in case else None,
    }
    for name in case.arrays:
        case.close(found[name], name)


@pytest.mark.golden("forward_process")
def test_the_golden_forward_process(case, arrays):
    table = table_of(case.params)
    t, x0, noise = case["t"].astype(float), arrays["x0"], arrays["noise"]
    x = add_noise(table, x0, t, noise)
    case.close(x, "xt")
    case.close(from_x0("v", x0, x, table.alpha(t), table.sigma(t)), "velocity")
    # the reference made these in float32; as weights of the errors of eps, x_0 and v
    ratio = snr(table)[case["t"]]
    weight = np.minimum(ratio, MIN_SNR)
    found = {"snr": ratio, "minsnr_eps": weight / ratio, "minsnr_x0": weight, "minsnr_v": weight / (ratio + 1)}
    for name, value in found.items():
        np.testing.assert_allclose(value, case[name], rtol=3e-7)


@pytest.mark.golden("sde_discrete")
def test_the_golden_discrete_sdes(case):
    p = case.params
    if p["sde"] == "vp":
        table = linear_table(p["N"], p["beta_min"] / p["N"], p["beta_max"] / p["N"])
        case.close(table.betas, "betas")
        case.close(table.alpha_bars(), "alphas_cumprod")
        case.close(np.sqrt(1 - table.betas) - 1, "f_coeff")
        case.close(np.sqrt(table.betas), "G")
        case.close(-np.expm1(table.log_alpha_bars()), "one_minus_alphas_cumprod")
    else:
        sigmas = np.exp(np.linspace(np.log(p["sigma_min"]), np.log(p["sigma_max"]), p["N"]))
        before = np.append(0.0, sigmas[:-1])
        case.close(sigmas, "sigmas")
        case.close(np.sqrt(sigmas**2 - before**2), "G")
        case.close(before * np.sqrt(1 - (before / sigmas) ** 2), "ancestral_std")


def test_a_respaced_table_passes_through_the_levels():
    table = linear_table(1000)
    short = respace(table, [9, 499, 999])
    np.testing.assert_allclose(short.alpha_bars(), table.alpha_bars()[[9, 499, 999]], rtol=1e-12)


def test_discrete_and_continuous_times_meet():
    process = VP()
    table = discretise(process, 1000)
    index = np.array([0.0, 10.5, 500.0, 999.0])
    t = time_of_index(table, index, process)
    np.testing.assert_allclose(index_of_time(process, t, table), index, atol=1e-8)
    np.testing.assert_allclose(t[[0, 2, 3]], [0.001, 0.501, 1.0], rtol=1e-9)


def test_zero_terminal_snr_ends_in_noise():
    table = zero_terminal_snr(make_table("scaled_linear"))
    assert table.alpha(999) == 0 and table.sigma(999) == 1 and table.alpha(998.0) > 0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Table(np.array([0.1, 1.5])), "betas: expected numbers between 0 and 1, got 1.5 at index 1"),
        (
            lambda: Table(np.array([0.1, 0.3, 0.2])),
            "betas: .* do not fall .*, got 0.2 after 0.3 at index 2",
        ),
        (lambda: make_table("liner"), "schedule: unknown value 'liner'; did you mean 'linear'"),
        (lambda: linear_table(1000, 0.1, 0.01), "beta_end: expected a number from beta_start"),
        (lambda: linear_table(1), "num_levels: expected an integer of at least 2"),
        (lambda: respace(linear_table(10), [3, 2]), "indices: expected increasing indices"),
        (lambda: respace(linear_table(10), [3, 12]), "indices: expected indices below 10, got 12"),
    ],
)
def test_bad_tables_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
