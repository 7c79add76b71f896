"""Diffusion models: processes, samplers, losses, likelihoods and guidance as pure functions."""

from aijax.diffusion.consistency import consistency_distillation_loss, consistency_ratios, consistency_training_loss
from aijax.diffusion.editing import Known, Linear, interpolate, repaint, sdedit, spherical_interpolation
from aijax.diffusion.facades import ddpm, score_based
from aijax.diffusion.grids import Grid, make_grid, ratio_grid, reverse_grid
from aijax.diffusion.guidance import (
    classifier_free,
    classifier_free_batch,
    classifier_guidance,
    reconstruction_guidance,
)
from aijax.diffusion.images import bits_of_images, compare_images, sample_images
from aijax.diffusion.latent import (
    LatentModel,
    decode_latents,
    encode_images,
    generate,
    image_to_image,
    measured_scaling,
)
from aijax.diffusion.likelihood import bits_per_dim, decode, dequantise, encode, log_likelihood
from aijax.diffusion.losses import (
    denoising_loss,
    drop_condition,
    edm_loss,
    flow_matching_loss,
    sliced_score_matching,
)
from aijax.diffusion.metrics import (
    features,
    frechet_distance,
    gaussian_of,
    inception_score,
    kernel_distance,
    nearest_distance,
    precision_recall,
    sliced_wasserstein,
)
from aijax.diffusion.predictions import as_kind, consistency_fn, convert, edm_denoiser
from aijax.diffusion.process import Process, add_noise, probability_flow, reverse_sde
from aijax.diffusion.samplers import (
    DDIM,
    DDPM,
    DPM2,
    LCM,
    LMS,
    PNDM,
    TCD,
    AdaptiveODE,
    Consistency,
    DPMAdaptive,
    DPMpp2S,
    DPMppSDE,
    Euler,
    EulerMaruyama,
    Heun,
    Multistep,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseDiffusion,
    Singlestep,
    UniPC,
    fast_blocks,
    sample,
)
from aijax.diffusion.schedules import Table, discretise, linear_table, make_table, respace, zero_terminal_snr
from aijax.diffusion.sde import EDM, VE, VP, Cosine, Flow, SubVP
from aijax.diffusion.self_conditioning import remember, self_conditioned
from aijax.diffusion.stable_diffusion import latent_model, load_pipeline
from aijax.diffusion.thresholds import Clip, DynamicThreshold
from aijax.diffusion.variational import hybrid_loss, variational_bound, variational_loss

__all__ = [
    "DDIM", "DDPM", "DPM2", "EDM", "LCM", "LMS", "PNDM", "TCD", "VE", "VP", "AdaptiveODE", "Clip", "Consistency",
    "Cosine", "DPMAdaptive", "DPMpp2S", "DPMppSDE", "DynamicThreshold", "Euler", "EulerMaruyama", "Flow", "Grid",
    "Heun", "Known", "LatentModel", "Linear", "Multistep", "PredictorCorrector", "ProbabilityFlow", "Process",
    "ReverseDiffusion", "Singlestep", "SubVP", "Table", "UniPC", "add_noise", "as_kind", "bits_of_images",
    "bits_per_dim", "classifier_free", "classifier_free_batch", "classifier_guidance", "compare_images",
    "consistency_distillation_loss", "consistency_fn", "consistency_ratios", "consistency_training_loss", "convert",
    "ddpm", "decode", "decode_latents", "denoising_loss", "dequantise", "discretise", "drop_condition", "edm_denoiser",
    "edm_loss", "encode", "encode_images", "fast_blocks", "features", "flow_matching_loss", "frechet_distance",
    "gaussian_of", "generate", "hybrid_loss", "image_to_image", "inception_score", "interpolate", "kernel_distance",
    "latent_model", "linear_table", "load_pipeline", "log_likelihood", "make_grid", "make_table", "measured_scaling",
    "nearest_distance", "precision_recall", "probability_flow", "ratio_grid", "reconstruction_guidance", "remember",
    "repaint", "respace", "reverse_grid", "reverse_sde", "sample", "sample_images", "score_based", "sdedit",
    "self_conditioned", "sliced_score_matching", "sliced_wasserstein", "spherical_interpolation", "variational_bound",
    "variational_loss", "zero_terminal_snr",
]  # fmt: skip
