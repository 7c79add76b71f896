"""Interpretability: what happens inside of a network, as transformations of pure functions."""

from aijax.interp import progress_measures
from aijax.interp.activation_maximization import (
    Maxima,
    colour_factor,
    maximize_image,
    maximize_in_ball,
    maximize_in_box,
    random_view,
)
from aijax.interp.capture import AtLayer, activation_gradients, capture, intervene, tap_names
from aijax.interp.neurons import ClassPatterns, NeuronPatterns, compute_neuron_activation_patterns
from aijax.interp.sae import as_jump_relu, init_sae, sae_architecture, sae_decode, sae_encode, sae_loss
from aijax.interp.sae_architectures import ARCHITECTURES, L1, BatchTopK, Gated, JumpReLU, Matryoshka, SAEOutput, TopK
from aijax.interp.sparse_codes import dense_codes, sparse_product
from aijax.interp.token_search import TokenMaxima, maximize_tokens
from aijax.taps import tap

__all__ = [
    "ARCHITECTURES", "L1", "AtLayer", "BatchTopK", "ClassPatterns", "Gated", "JumpReLU", "Matryoshka", "Maxima",
    "NeuronPatterns", "SAEOutput", "TokenMaxima", "TopK", "activation_gradients", "as_jump_relu", "capture",
    "colour_factor", "compute_neuron_activation_patterns", "dense_codes", "init_sae", "intervene", "maximize_image",
    "maximize_in_ball", "maximize_in_box", "maximize_tokens", "progress_measures", "random_view", "sae_architecture",
    "sae_decode", "sae_encode", "sae_loss", "sparse_product", "tap", "tap_names",
]  # fmt: skip
