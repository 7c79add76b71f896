"""Grids: published spacings of indices and sigmas, ends, mistakes."""

import numpy as np
import pytest

from aijax.diffusion import EDM, VP, Flow, Grid, linear_table, make_grid, reverse_grid
from aijax.diffusion.grids import INDICES, consistency_indices, leading_indices
from aijax.diffusion.published import scheduler
from aijax.errors import ConfigError


@pytest.mark.golden("timesteps")
def test_the_golden_timesteps(case):
    p = case.params
    if p["spacing"] == "flow":
        grid = scheduler("FlowMatchEulerDiscrete", p, p["num_steps"]).grid
        case.close(grid.sigmas, "sigmas")
        case.close(grid.times[:-1] * p["num_train_timesteps"], "timesteps")
    elif p["spacing"] == "lcm":
        found = consistency_indices(p["num_train_timesteps"], p["num_steps"], p["original_inference_steps"])
        case.close(found, "timesteps")
    elif p["spacing"] == "leading":
        case.close(leading_indices(p["num_train_timesteps"], p["num_steps"], p["steps_offset"]), "timesteps")
    else:
        case.close(INDICES[p["spacing"]](p["num_train_timesteps"], p["num_steps"]), "timesteps")


@pytest.mark.golden("sigma_schedule")
def test_the_golden_sigmas(case):
    case.close(sigma_grid(case.params).ratios, "sigmas")


def sigma_grid(p):
    """The grid of a published schedule of sigmas."""
    if p["kind"] == "vp":
        grid = make_grid(VP(p["beta_min"], p["beta_min"] + p["beta_d"]), p["n"], t_min=p["eps_s"])
        return Grid(grid.ratios, np.ones(p["n"] + 1), grid.ratios)
    options = {"rho": p["rho"]} if "rho" in p else {}
    return make_grid(EDM(p["sigma_min"], p["sigma_max"]), p["n"], p["kind"], **options)


@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "log_snr", "karras"])
@pytest.mark.parametrize("final", ["zero", "min"])
def test_grids_fall_from_end_to_end(spacing, final):
    grid = make_grid(VP(), 10, spacing, final=final)
    assert grid.steps == 10 and (np.diff(grid.ratios) < 0).all()
    assert grid.times[0] == pytest.approx(1.0)
    assert grid.sigmas[-1] == (0 if final == "zero" else pytest.approx(VP().sigma(1e-5)))
    rising = reverse_grid(grid)
    assert (np.diff(rising.ratios) > 0).all() and rising.sigmas[0] > 0


def test_shifted_times_keep_the_start():
    grid = make_grid(Flow(), 4, shift=3.0)
    assert grid.times[0] == 1.0 and (grid.times[1:-1] > make_grid(Flow(), 4).times[1:-1]).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: make_grid(VP(), 0), "steps: expected an integer of at least 1, got 0"),
        (lambda: make_grid(VP(), 5, "karas"), "grid: unknown value 'karas'; did you mean 'karras'"),
        (lambda: make_grid(VP(), 5, t_max=2.0), "t_min, t_max: expected 0 <= t_min < t_max <= 1"),
        (lambda: make_grid(VP(), 5, rho=7.0), "grid: 'uniform' does not take all of rho"),
        (lambda: make_grid(VP(), 5, "leading"), "grid: 'leading' is of a table of levels, got VP"),
        (lambda: make_grid(linear_table(10), 11, "trailing"), "steps: expected at most the 10 levels"),
        (lambda: make_grid(Flow(), 5, "karras"), "needs a finite range"),
        (lambda: Grid([1, 2, 1], [1, 1, 1], [3, 2, 2.5]), "it does both"),
    ],
)
def test_bad_grids_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
