"""Samplers: nouns that turn noise into data by a denoiser, and the one verb `sample` that runs them."""

from aijax.diffusion.samplers.adaptive import AdaptiveODE, DPMAdaptive, Effort
from aijax.diffusion.samplers.multistep import LMS, Multistep, UniPC
from aijax.diffusion.samplers.ode import ProbabilityFlow
from aijax.diffusion.samplers.one_step import DDIM, DDPM, LCM, TCD, Consistency, EulerMaruyama, ReverseDiffusion
from aijax.diffusion.samplers.plan import Plan, Trajectory
from aijax.diffusion.samplers.pndm import PNDM
from aijax.diffusion.samplers.predictor_corrector import PredictorCorrector
from aijax.diffusion.samplers.sample import sample
from aijax.diffusion.samplers.singlestep import Singlestep, fast_blocks
from aijax.diffusion.samplers.two_stage import DPM2, DPMpp2S, DPMppSDE, Euler, Heun

__all__ = [
    "DDIM", "DDPM", "DPM2", "LCM", "LMS", "PNDM", "TCD", "AdaptiveODE", "Consistency", "DPMAdaptive", "DPMpp2S",
    "DPMppSDE", "Effort", "Euler", "EulerMaruyama", "Heun", "Multistep", "Plan", "PredictorCorrector",
    "ProbabilityFlow", "ReverseDiffusion", "Singlestep", "Trajectory", "UniPC", "fast_blocks", "sample",
]  # fmt: skip
