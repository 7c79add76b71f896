"""Processes and samplers by name: from a config section to a noun."""

from collections.abc import Mapping
from typing import Any

from aijax.binding import bind
from aijax.diffusion import samplers
from aijax.diffusion.process import Process
from aijax.diffusion.samplers.base import Sampler
from aijax.diffusion.schedules import linear_table
from aijax.diffusion.sde import EDM, VE, VP, Cosine, Flow, SubVP
from aijax.errors import ConfigError, choose

PROCESSES = {
    "cosine": Cosine, "edm": EDM, "flow": Flow, "linear_table": linear_table, "sub_vp": SubVP, "ve": VE, "vp": VP,
}  # fmt: skip
SAMPLERS = {
    "adaptive_ode": samplers.AdaptiveODE,
    "consistency": samplers.Consistency,
    "ddim": samplers.DDIM,
    "ddpm": samplers.DDPM,
    "dpm2": samplers.DPM2,
    "dpm_adaptive": samplers.DPMAdaptive,
    "dpmpp_2s": samplers.DPMpp2S,
    "dpmpp_sde": samplers.DPMppSDE,
    "euler": samplers.Euler,
    "euler_maruyama": samplers.EulerMaruyama,
    "heun": samplers.Heun,
    "lcm": samplers.LCM,
    "lms": samplers.LMS,
    "multistep": samplers.Multistep,
    "pndm": samplers.PNDM,
    "predictor_corrector": samplers.PredictorCorrector,
    "probability_flow": samplers.ProbabilityFlow,
    "reverse_diffusion": samplers.ReverseDiffusion,
    "singlestep": samplers.Singlestep,
    "unipc": samplers.UniPC,
}


def build_process(section: Mapping[str, Any], where: str = "config.process") -> Process:
    """Returns the process that a section describes: `name` among `PROCESSES`, the rest its arguments.

    Raises:
      ConfigError: an unknown name or field, a value out of range.

    >>> build_process({"name": "edm", "sigma_max": 10.0}).t_max
    10.0
    """
    return _build(PROCESSES, section, where)


def build_sampler(section: Mapping[str, Any], where: str = "config.sampler") -> Sampler:
    """Returns the sampler that a section describes: `name` among `SAMPLERS`, the rest its arguments.

    Raises:
      ConfigError: an unknown name or field, a value out of range.

    >>> build_sampler({"name": "multistep", "order": 3}).order
    3
    """
    return _build(SAMPLERS, section, where)


def _build(names, section, where):
    if "name" not in section:
        raise ConfigError(f"{where}.name: missing; expected one of {', '.join(names)}")
    return bind(choose(names, section["name"], f"{where}.name"), section, where)()
