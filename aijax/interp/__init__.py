"""Interpretability: what happens inside of a network, as transformations of pure functions."""

from aijax.interp import progress_measures
from aijax.interp.capture import AtLayer, activation_gradients, capture, intervene, tap_names
from aijax.interp.neurons import ClassPatterns, NeuronPatterns, compute_neuron_activation_patterns
from aijax.interp.sae import as_jump_relu, init_sae, sae_architecture, sae_decode, sae_encode, sae_loss
from aijax.interp.sae_architectures import ARCHITECTURES, L1, BatchTopK, Gated, JumpReLU, Matryoshka, SAEOutput, TopK
from aijax.interp.sparse_codes import dense_codes, sparse_product
from aijax.taps import tap

__all__ = [
    "ARCHITECTURES", "L1", "AtLayer", "BatchTopK", "ClassPatterns", "Gated", "JumpReLU", "Matryoshka", "NeuronPatterns",
    "SAEOutput", "TopK", "activation_gradients", "as_jump_relu", "capture", "compute_neuron_activation_patterns",
    "dense_codes", "init_sae", "intervene", "progress_measures", "sae_architecture", "sae_decode", "sae_encode",
    "sae_loss", "sparse_product", "tap", "tap_names",
]  # fmt: skip
