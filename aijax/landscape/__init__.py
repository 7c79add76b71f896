"""The landscape of a loss around its solutions: curvature, surfaces, paths, noise and sharpness, as pure functions."""

from aijax.landscape.connectivity import Barrier, barrier, bezier, line, middle_of, path_loss, polygon
from aijax.landscape.directions import Principal, normalize_direction, principal_directions, random_direction
from aijax.landscape.draw import draw_surface
from aijax.landscape.matching import match_activations, match_weights, permute
from aijax.landscape.noise_scale import ExactNoiseScale, NoiseScale, exact_noise_scale, noise_scale
from aijax.landscape.operators import (
    empirical_fisher,
    gauss_newton,
    hessian,
    linearize,
    mean_loss,
    sampled_fisher,
    subset,
)
from aijax.landscape.sharpness import adaptive_sharpness, average_sharpness, sam_sharpness
from aijax.landscape.spectrum import (
    SpectralDensity,
    compute_hessian_eigenvalues,
    escape_direction,
    negative_share,
    spectral_density,
)
from aijax.landscape.stability import Stability, stability, track_stability
from aijax.landscape.surface import Surface, load_surface, loss_landscape_analysis, save_surface, surface
from aijax.linalg import estimate_diagonal, estimate_frobenius_norm, estimate_trace

__all__ = [
    "Barrier", "ExactNoiseScale", "NoiseScale", "Principal", "SpectralDensity", "Stability", "Surface",
    "adaptive_sharpness", "average_sharpness", "barrier", "bezier", "compute_hessian_eigenvalues", "draw_surface",
    "empirical_fisher", "escape_direction", "estimate_diagonal", "estimate_frobenius_norm", "estimate_trace",
    "exact_noise_scale", "gauss_newton", "hessian", "line", "linearize", "load_surface", "loss_landscape_analysis",
    "match_activations", "match_weights", "mean_loss", "middle_of", "negative_share", "noise_scale",
    "normalize_direction", "path_loss", "permute", "polygon", "principal_directions", "random_direction",
    "sam_sharpness", "sampled_fisher", "save_surface", "spectral_density", "stability", "subset", "surface",
    "track_stability",
]  # fmt: skip
