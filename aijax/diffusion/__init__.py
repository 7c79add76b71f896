"""Diffusion models: processes, samplers, losses, likelihoods and guidance as pure functions."""

from aijax.diffusion.process import Process, add_noise, probability_flow, reverse_sde
from aijax.diffusion.samplers import *  # noqa: F403
from aijax.diffusion.sde import EDM, VE, VP, Cosine, Flow, SubVP
