"""Samplers as published checkpoints describe them: from the fields of a `scheduler_config.json` to nouns of here.

A config names a class, a table of betas, the spacing of its time steps and what the network predicts. `scheduler`
returns the process, sampler, grid, prediction and constraint that do the same. Classes whose state is x_0 + sigma n
("Euler", "Heun", "LMS", "KDPM2") run here in the coordinates of the process, x / sqrt(1 + rho^2), and give the same
samples.

Five things are not the same. DDIM and PNDM with "linspace" or "trailing" spacing step to the next time of their grid,
where the published classes subtract T // N whatever the grid. PNDM of a network that predicts v mixes the eps of its
last calls, where the class mixes v and turns the mixture into eps by the newest x alone, which is of order 1. And a
Runge-Kutta step of PNDM over an odd number of indices goes to the index in its middle that the network is told, where
the class first goes to the one after it. From an image, PNDM tells the network the level of each state, where the
published pipeline tells it the next lower one from the third call on. And Euler's method with churn asks the network
after the noise is added (Karras et al. 2022, algorithm 2), where the classes ask before and read v at the level before.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aijax.diffusion.editing import Resampling, resampling_steps
from aijax.diffusion.grids import (
    Grid,
    check_steps,
    consistency_indices,
    leading_indices,
    make_grid,
    shift_times,
)
from aijax.diffusion.process import Process
from aijax.diffusion.published_grids import (
    exponential_grid,
    final_ratio,
    fractional_indices,
    grid_of,
    index_grid,
    indices_of,
    last_ratio,
    respaced,
    table_of,
)
from aijax.diffusion.samplers.base import Sampler
from aijax.diffusion.samplers.multistep import LMS, Multistep, UniPC
from aijax.diffusion.samplers.one_step import DDIM, DDPM, LCM, TCD, Consistency
from aijax.diffusion.samplers.pndm import PNDM
from aijax.diffusion.samplers.singlestep import Singlestep, block_orders
from aijax.diffusion.samplers.two_stage import DPM2, Euler, Heun
from aijax.diffusion.sde import EDM, Flow
from aijax.diffusion.thresholds import Clip, DynamicThreshold
from aijax.errors import ConfigError, choose
from aijax.typing import Any

PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow_prediction": "velocity"}


@dataclass(frozen=True)
class Scheduler:
    """What `sample` needs: `process`, `sampler`, `grid`, `prediction`, `sigma_data` and `constraint` (or None)."""

    process: Process
    sampler: Sampler
    grid: Grid
    prediction: str
    constraint: Any = None
    sigma_data: float = 0.5


def scheduler(name: str, config: Mapping[str, Any], steps: int, **options: Any) -> Scheduler:
    """Returns the published sampler of `steps` steps.

    Args:
      name: the class of the config (`_class_name`), with or without "Scheduler", such as "DDIM".
      config: its fields; those left out have their published defaults.
      steps: how many are asked for, at least 1.
      **options: of each step or call: `eta` of DDIM and TCD; `use_clipped_model_output` of DDIM; `s_churn`, `s_tmin`,
        `s_tmax`, `s_noise` of Euler and EDM; `original_inference_steps` of LCM and TCD.

    Raises:
      ConfigError: a class or a value that is not known.

    >>> scheduler("DDIMScheduler", {"clip_sample": False}, 4).grid.times.astype(int).tolist()
    [750, 500, 250, 0, 0]
    """
    check_steps(steps)
    name = name.removesuffix("Scheduler")
    make = choose(CLASSES, name, "_class_name")
    for field, usual in (UNSUPPORTED | UNSUPPORTED_BY.get(name, {})).items():
        if config.get(field, usual) not in (usual, None):
            raise ConfigError(f"{field}: expected {usual!r}, got {config[field]!r}, which is not done here")
    return make(dict(config), steps, options)


def repaint_resampling(
    config: Mapping[str, Any], steps: int, jump_length: int = 10, jump_samples: int = 10
) -> tuple[Process, Grid, Resampling]:
    """Returns table, grid and way of the published RePaint class, for `aijax.diffusion.editing.repaint`.

    Its way back from the level below index t multiplies the T // N betas that begin at t, one stride above those that
    lead back; `make_resampling` has the latter.
    """
    table = table_of(config)
    grid = index_grid(table, leading_indices(table.num_levels, steps))
    stride = table.num_levels // steps
    order, back = resampling_steps(steps, jump_length, jump_samples)
    scales, noises = np.ones(len(order)), np.zeros(len(order))
    logs = np.append(0.0, table.log_alpha_bars())
    for call, levels in enumerate(back):
        if levels:
            first = int(grid.times[order[call]])
            scales[call] = np.exp((logs[first + levels * stride] - logs[first]) / 2)
            noises[call] = np.sqrt(-np.expm1(2 * np.log(scales[call])))
    return table, grid, Resampling(np.array(order), scales, noises)


def _ddpm(config, steps, options):
    table = table_of(config)
    names = {
        "fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "fixed_large_log": "large",
        "learned_range": "learned",
    }  # fmt: skip
    variance = choose(names, config.get("variance_type", "fixed_small"), "variance_type")
    grid = index_grid(table, indices_of(table, config, steps, "leading"))
    # the class leaves noise out at index 0 alone, which a grid may not reach; the smaller variance is 0 there anyway
    noise_last = variance == "large" and grid.times[-2] > 0
    sampler = DDPM(variance, noise_last=bool(noise_last))
    return Scheduler(table, sampler, grid, _prediction(config), _threshold(config, clips=True))


def _ddim(config, steps, options):
    table = table_of(config)
    grid = index_grid(table, indices_of(table, config, steps, "leading"), final_ratio(table, config, True))
    sampler = DDIM(float(options.get("eta", 0.0)), reuse_eps=not options.get("use_clipped_model_output", False))
    return Scheduler(table, sampler, grid, _prediction(config), _threshold(config, clips=True))


def _ddim_inverse(config, steps, options):
    table = table_of(config)
    spacing = config.get("timestep_spacing", "leading")
    indices = indices_of(table, config, steps, spacing)[::-1]
    # the network is told the index that a step leads to
    before = np.minimum(indices - table.num_levels // steps, table.num_levels - 1)
    start = final_ratio(table, config, True)
    ratios = np.where(before >= 0, table.ratio(np.maximum(before, 0)), start)
    ratios = np.append(ratios, table.ratio(indices[-1]))
    grid = grid_of(np.append(indices, indices[-1]), ratios)
    return Scheduler(table, DDIM(), grid, _prediction(config), _threshold(config, clips=True))


def _pndm(config, steps, options):
    table = table_of(config)
    grid = index_grid(table, indices_of(table, config, steps, "leading"), final_ratio(table, config, False))
    sampler = PNDM(runge_kutta=not config.get("skip_prk_steps", False))
    return Scheduler(table, sampler, grid, _prediction(config))


def _lcm(config, steps, options):
    table = table_of(config, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    original = options.get("original_inference_steps", config.get("original_inference_steps", 50))
    grid = index_grid(table, consistency_indices(table.num_levels, steps, original))
    sampler = LCM(time_scale=float(config.get("timestep_scaling", 10.0)))
    return Scheduler(table, sampler, grid, _prediction(config), _threshold(config, clips=False))


def _tcd(config, steps, options):
    table = table_of(config, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    original = options.get("original_inference_steps", config.get("original_inference_steps", 50))
    grid = index_grid(table, consistency_indices(table.num_levels, steps, original), table.ratio(0))
    return Scheduler(table, TCD(float(options.get("eta", 0.3))), grid, _prediction(config))


def _dpm_multistep(config, steps, options):
    table = table_of(config, divides=True)
    last = config.get("final_sigmas_type", "zero")
    nearest = config.get("beta_schedule") != "squaredcos_cap_v2"
    grid = exponential_grid(table, config, steps, table.ratio(0) if last == "sigma_min" else 0.0, nearest=nearest)
    sampler = _multistep(config, grid.steps, last)
    return Scheduler(table, sampler, grid, _prediction(config), _threshold(config, clips=False))


def _multistep(config, steps, last):
    kind = config.get("algorithm_type", "dpmsolver++")
    of, eta = choose(
        {
            "dpmsolver++": ("x0", 0.0),
            "sde-dpmsolver++": ("x0", 1.0),
            "dpmsolver": ("eps", 0.0),
            "sde-dpmsolver": ("eps", 1.0),
        },
        kind,
        "algorithm_type",
    )
    order = config.get("solver_order", 2)
    short = config.get("lower_order_final", True) and steps < 15
    orders = [min(order, i + 1) for i in range(steps)]
    if short and steps > 1:
        orders[-2] = min(orders[-2], 2)
    if short or last == "zero" or config.get("euler_at_final", False):
        orders[-1] = 1
    rule = config.get("solver_type", "midpoint")
    if (kind, order, rule) == ("sde-dpmsolver++", 3, "midpoint"):
        rule = "published"
    return Multistep(order, of, rule, eta, orders=tuple(orders))


def _dpm_singlestep(config, steps, options):
    table = table_of(config)
    last = config.get("final_sigmas_type", "zero")
    spaced = {key: value for key, value in config.items() if key not in ("timestep_spacing", "steps_offset")}
    grid = exponential_grid(table, spaced, steps, table.ratio(0) if last == "sigma_min" else 0.0)
    kinds = {"dpmsolver++": ("x0", 0.0), "sde-dpmsolver++": ("x0", 1.0), "dpmsolver": ("eps", 0.0)}
    of, eta = choose(kinds, config.get("algorithm_type", "dpmsolver++"), "algorithm_type")
    order = config.get("solver_order", 2)
    if config.get("lower_order_final", False) or steps % order or last == "zero":
        orders = block_orders(steps, order)
        orders = (*orders[:-1], 1) if last == "zero" else orders
    else:
        orders = tuple(range(1, order + 1)) * (steps // order)
    sampler = Singlestep(order, of, config.get("solver_type", "midpoint"), eta, orders)
    return Scheduler(table, sampler, grid, _prediction(config), _threshold(config, clips=False))


def _unipc(config, steps, options):
    table = table_of(config, divides=True)
    last = config.get("final_sigmas_type", "zero")
    respaced = any(config.get(f"use_{name}_sigmas", False) for name in ("karras", "exponential", "beta"))
    grid = exponential_grid(table, config, steps, None if respaced and last == "sigma_min" else last_ratio(table, last))
    sampler = UniPC(
        config.get("solver_order", 2),
        "x0" if config.get("predict_x0", True) else "eps",
        config.get("solver_type", "bh2"),
        config.get("lower_order_final", True),
        tuple(config.get("disable_corrector", ())),
    )
    return Scheduler(table, sampler, grid, _prediction(config), _threshold(config, clips=False))


def _deis(config, steps, options):
    table = table_of(config)
    respaced = any(config.get(f"use_{name}_sigmas", False) for name in ("karras", "exponential", "beta"))
    grid = exponential_grid(table, config, steps, None if respaced else table.ratio(0))
    order = config.get("solver_order", 2)
    choose(dict.fromkeys(("logrho",)), config.get("solver_type", "logrho"), "solver_type")
    ordered = config | {"algorithm_type": "dpmsolver", "solver_type": "midpoint"}
    orders = _multistep(ordered, grid.steps, "sigma_min").orders
    sampler = Multistep(order, "eps", "exact", orders=orders)
    return Scheduler(table, sampler, grid, _prediction(config), _threshold(config, clips=False))


def _in_sigma(make, **betas):
    """The classes that keep x in x_0 + sigma n: their levels are interpolated linearly in sigma."""

    def maker(config, steps, options):
        table = table_of(config, divides=True, **betas)
        times = fractional_indices(table, config, steps)
        ratios = np.interp(times, np.arange(table.num_levels), table.ratio(np.arange(table.num_levels)))
        spaced = respaced(config, ratios[0], ratios[-1], steps)
        if spaced is not None:
            times, ratios = table.time_at(spaced), spaced
        last = last_ratio(table, config.get("final_sigmas_type", "zero"))
        grid = grid_of(np.append(times, 0.0), np.append(ratios, last))
        clips = bool(config.get("clip_sample", False))
        return Scheduler(
            table, make(options), grid, _prediction(config), _threshold(config, clips=False) if clips else None
        )

    return maker


def _edm(config, steps, options):
    process, grid, _ = _edm_grid(config, steps, repeats=True)
    return _edm_scheduler(config, process, Euler(**_churn(options)), grid)


def _edm_multistep(config, steps, options):
    process, grid, last = _edm_grid(config, steps, repeats=False)
    return _edm_scheduler(config, process, _multistep(config, steps, last), grid, _threshold(config, clips=False))


def _edm_scheduler(config, process, sampler, grid, threshold=None):
    kinds = {"epsilon": "F", "v_prediction": "minus F", "sample": "x0"}
    kind = choose(kinds, config.get("prediction_type", "epsilon"), "prediction_type")
    return Scheduler(process, sampler, grid, kind, threshold, config.get("sigma_data", 0.5))


def _edm_grid(config, steps, *, repeats):
    # "sigma_min" ends one class on the last level again, the other at sigma_min: they differ where there is one step
    process = EDM(config.get("sigma_min", 0.002), config.get("sigma_max", 80.0))
    spacing = config.get("sigma_schedule", "karras")
    rho = {"rho": config.get("rho", 7.0)} if spacing == "karras" else {}
    grid = make_grid(process, steps, spacing, **rho)
    last = config.get("final_sigmas_type", "zero")
    if last == "sigma_min":
        ratios = np.append(grid.ratios[:-1], grid.ratios[-2] if repeats else process.sigma_min)
        grid = Grid(ratios, np.ones(steps + 1), ratios)
    return process, grid, last


def _flow(config, steps, options, stochastic=False):
    process, shift, num_levels = Flow(), config.get("shift", 1.0), config.get("num_train_timesteps", 1000)
    least = shift_times(1 / num_levels, shift)
    times = np.append(shift_times(np.linspace(1.0, least, steps), shift), 0.0)
    sampler = Consistency() if stochastic or config.get("stochastic_sampling", False) else DDIM()
    return Scheduler(process, sampler, Grid(times, 1 - times, times), "velocity")


def _flow_lcm(config, steps, options):
    return _flow(config, steps, options, stochastic=True)


def _consistency(config, steps, options):
    least, most = config.get("sigma_min", 0.002), config.get("sigma_max", 80.0)
    num_levels, rho = config.get("num_train_timesteps", 40), config.get("rho", 7.0)
    indices = options.get("timesteps")
    indices = leading_indices(num_levels, steps) if indices is None else np.asarray(indices)
    ramp = indices[::-1] / (num_levels - 1)
    ends = most ** (1 / rho), least ** (1 / rho)
    ratios = np.append((ends[0] + ramp * (ends[1] - ends[0])) ** rho, least)
    grid = Grid(ratios, np.ones(len(ratios)), ratios)
    threshold = Clip() if config.get("clip_denoised", True) else None
    return Scheduler(EDM(least, most), Consistency(least), grid, "x0", threshold, config.get("sigma_data", 0.5))


UNSUPPORTED = {
    "use_flow_sigmas": False, "use_lu_lambdas": False, "use_dynamic_shifting": False, "interpolation_type": "linear",
    "timestep_type": "discrete",
}  # fmt: skip
"""Fields that no class here follows, and the values at which they change nothing."""

FLOW_FIELDS = {
    "use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False, "invert_sigmas": False,
    "shift_terminal": None,
}  # fmt: skip
"""The same of flow-matching classes."""

UNSUPPORTED_BY = {
    "EulerDiscrete": {"sigma_min": None, "sigma_max": None},
    "FlowMatchEulerDiscrete": FLOW_FIELDS,
    "FlowMatchLCM": FLOW_FIELDS | {"scale_factors": None},
}
"""The same of one class each."""

HEUN_BETAS = {"beta_start": 0.00085, "beta_end": 0.012}

CLASSES = {
    "DDPM": _ddpm,
    "DDIM": _ddim,
    "DDIMInverse": _ddim_inverse,
    "PNDM": _pndm,
    "LCM": _lcm,
    "TCD": _tcd,
    "DPMSolverMultistep": _dpm_multistep,
    "DPMSolverSinglestep": _dpm_singlestep,
    "UniPCMultistep": _unipc,
    "DEISMultistep": _deis,
    "EulerDiscrete": _in_sigma(lambda options: Euler(**_churn(options))),
    "EulerAncestralDiscrete": _in_sigma(lambda options: DDIM(1.0)),
    "HeunDiscrete": _in_sigma(lambda options: Heun(), **HEUN_BETAS),
    "KDPM2Discrete": _in_sigma(lambda options: DPM2(), **HEUN_BETAS),
    "KDPM2AncestralDiscrete": _in_sigma(lambda options: DPM2(eta=1.0), **HEUN_BETAS),
    "LMSDiscrete": _in_sigma(lambda options: LMS(options.get("order", 4))),
    "EDMEuler": _edm,
    "EDMDPMSolverMultistep": _edm_multistep,
    "FlowMatchEulerDiscrete": _flow,
    "FlowMatchLCM": _flow_lcm,
    "CMStochasticIterative": _consistency,
}
"""Published class names, and what makes their nouns of `(config, steps, options)`."""


def _prediction(config):
    return choose(PREDICTIONS, config.get("prediction_type", "epsilon"), "prediction_type")


def _threshold(config, *, clips):
    if config.get("thresholding", False):
        return DynamicThreshold(
            config.get("dynamic_thresholding_ratio", 0.995), float(config.get("sample_max_value", 1.0))
        )
    if config.get("clip_sample", clips):
        return Clip(float(config.get("clip_sample_range", 1.0)))
    return None


def _churn(options):
    return {
        "churn": float(options.get("s_churn", 0.0)),
        "churn_min": float(options.get("s_tmin", 0.0)),
        "churn_max": float(options.get("s_tmax", math.inf)),
        "noise_scale": float(options.get("s_noise", 1.0)),
    }
