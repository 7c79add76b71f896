"""Tables and grids of published schedulers: what the fields of a `scheduler_config.json` say of betas and of times.

Ratios are sigma / alpha. A spacing is "leading", "trailing" or "linspace" in the indices of the table, or Karras',
exponential or that of quantiles of a beta distribution in the ratios.
"""

import math

import numpy as np
from scipy.special import betaincinv

from aijax.diffusion import schedules
from aijax.diffusion.grids import INDICES, Grid, trailing_indices
from aijax.errors import ConfigError, choose

ZERO_SNR = 2.0**-24
"""The last alpha_bar of a table of zero terminal SNR for samplers that divide by it."""


def table_of(config, *, divides=False, beta_start=1e-4, beta_end=0.02, beta_schedule="linear"):
    """Returns the table of betas of a config; with `divides` one whose last alpha_bar can be divided by."""
    if config.get("trained_betas") is not None:
        table = schedules.Table(np.asarray(config["trained_betas"], float), monotone=False)
    else:
        names = {"squaredcos_cap_v2": "cosine", "exp": "exponential"}
        name = config.get("beta_schedule", beta_schedule)
        name = names.get(name, name)
        ends = {
            "beta_start": config.get("beta_start", beta_start),
            "beta_end": config.get("beta_end", beta_end),
        }
        takes_ends = name in ("linear", "scaled_linear", "sigmoid")
        num_levels = config.get("num_train_timesteps", 1000)
        table = schedules.make_table(name, num_levels, **(ends if takes_ends else {}))
    if config.get("rescale_betas_zero_snr", False):
        table = schedules.zero_terminal_snr(table)
        if divides:
            betas = np.array(table.betas)
            betas[-1] = 1 - ZERO_SNR / table.alpha_bars()[-2]
            table = schedules.Table(betas, monotone=False)
    return table


def indices_of(table, config, steps, default):
    """Returns the time indices of a config's spacing, from the largest to the smallest."""
    spacing = config.get("timestep_spacing", default)
    indices = choose(INDICES, spacing, "timestep_spacing")(table.num_levels, steps)
    return indices + config.get("steps_offset", 0) if spacing == "leading" else indices


def fractional_indices(table, config, steps):
    """Returns time indices that are linearly spaced without rounding, where the config spaces so."""
    if config.get("timestep_spacing", "linspace") == "linspace":
        return np.linspace(0, table.num_levels - 1, steps)[::-1]
    return indices_of(table, config, steps, "leading").astype(float)


def exponential_grid(table, config, steps, last, *, nearest=True):
    """Returns the grid of exponential samplers, which ends with `last`, or on the last level again where it is None."""
    lowest = config.get("lambda_min_clipped", -math.inf)
    levels = -np.log(table.ratio(np.arange(table.num_levels)))
    top = table.num_levels - int(np.searchsorted(levels[::-1], lowest))
    spacing = config.get("timestep_spacing", "linspace")
    if spacing == "linspace":
        times = np.round(np.linspace(0, top - 1, steps + 1))[::-1][:-1]
    elif spacing == "leading":
        times = np.arange(steps + 1)[::-1][:-1] * (top // (steps + 1)) + config.get("steps_offset", 0)
    elif spacing == "trailing":
        times = trailing_indices(table.num_levels, steps)
        times = times if top == table.num_levels else np.round(np.arange(top, 0, -table.num_levels / steps)) - 1
    else:
        raise ConfigError(f"timestep_spacing: expected linspace, leading or trailing, got {spacing!r}")
    ratios = table.ratio(times)
    spaced = respaced(config, table.ratio(table.num_levels - 1), table.ratio(0), steps)
    if spaced is not None:
        times, ratios = table.time_at(spaced), spaced
        # networks are told whole indices: on Karras' levels the nearest, on others the one below
        times = np.round(times) if nearest and config.get("use_karras_sigmas", False) else np.floor(times + 1e-9)
    return grid_of(np.append(times, 0.0), np.append(ratios, ratios[-1] if last is None else last))


def respaced(config, high, low, steps):
    """Returns the ratios of a config that spaces them by itself, between `high` and `low`, or None."""
    ramp = np.linspace(0, 1, steps)
    if config.get("use_karras_sigmas", False):
        ends = high ** (1 / 7), low ** (1 / 7)
        return (ends[0] + ramp * (ends[1] - ends[0])) ** 7
    if config.get("use_exponential_sigmas", False):
        return np.exp(np.log(high) + ramp * (np.log(low) - np.log(high)))
    if config.get("use_beta_sigmas", False):
        # quantiles of Beta(0.6, 0.6): Lee et al. 2024, Beta sampling is all you need
        return low + betaincinv(0.6, 0.6, 1 - ramp) * (high - low)
    return None


def index_grid(table, indices, last=0.0):
    """Returns the grid of indices of a table, which ends with the ratio `last`."""
    return grid_of(np.append(indices, 0), np.append(table.ratio(indices), last))


def grid_of(times, ratios):
    """Returns the grid of ratios sigma / alpha, which may begin with infinity."""
    with np.errstate(divide="ignore", invalid="ignore"):
        alphas = 1 / np.sqrt(1 + ratios**2)
        sigmas = np.where(np.isinf(ratios), 1.0, ratios * alphas)
    return Grid(times, alphas, sigmas)


def final_ratio(table, config, to_one):
    """Returns the ratio at the end: 0, or that of the first entry of the table."""
    return 0.0 if config.get("set_alpha_to_one", to_one) else float(table.ratio(0))


def last_ratio(table, kind):
    """Returns the ratio at the end of exponential samplers by the name of its kind."""
    return choose({"zero": 0.0, "sigma_min": float(table.ratio(0))}, kind, "final_sigmas_type")
