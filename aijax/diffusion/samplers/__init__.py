"""Samplers: nouns that turn noise into data by a denoiser, and the one verb `sample` that runs them."""

from aijax.diffusion.samplers.multistep import LMS, Multistep, UniPC
from aijax.diffusion.samplers.one_step import DDIM, DDPM, LCM, Consistency, EulerMaruyama, ReverseDiffusion
from aijax.diffusion.samplers.plan import Plan, Trajectory
from aijax.diffusion.samplers.sample import clip, dynamic_threshold, sample
from aijax.diffusion.samplers.two_stage import DPM2, DPMpp2S, DPMppSDE, Euler, Heun

__all__ = [
    "DDIM", "DDPM", "DPM2", "LCM", "LMS", "Consistency", "DPMpp2S", "DPMppSDE", "Euler", "EulerMaruyama", "Heun",
    "Multistep", "Plan", "ReverseDiffusion", "Trajectory", "UniPC", "clip", "dynamic_threshold", "sample",
]  # fmt: skip
