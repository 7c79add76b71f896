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
from aijax.interp.circuit_curves import Curve, Curves, circuit_curves, recovery_auc
from aijax.interp.circuit_draw import draw_circuit, draw_curves
from aijax.interp.circuit_search import acdc, prune_edges, top_edges
from aijax.interp.circuits import Circuit, circuit_discovery
from aijax.interp.contrast import Contrast, contrast, edge_effects, outcome, outcomes
from aijax.interp.edge_scores import (
    attention_rescored,
    edge_attribution,
    integrated_activations,
    integrated_inputs,
    writer_scores,
)
from aijax.interp.edges import patch_edges, writer_values
from aijax.interp.neurons import ClassPatterns, NeuronPatterns, compute_neuron_activation_patterns
from aijax.interp.probes import (
    MLPProbe,
    Selectivity,
    control_labels,
    fit_logistic,
    fit_mlp,
    fit_ridge,
    lda_direction,
    mean_difference,
    probe_accuracy,
    probe_logits,
    selectivity,
)
from aijax.interp.residual_graph import Graph, residual_graph
from aijax.interp.sae import as_jump_relu, init_sae, sae_architecture, sae_decode, sae_encode, sae_loss
from aijax.interp.sae_architectures import ARCHITECTURES, L1, BatchTopK, Gated, JumpReLU, Matryoshka, SAEOutput, TopK
from aijax.interp.sparse_codes import dense_codes, sparse_product
from aijax.interp.token_search import TokenMaxima, maximize_tokens
from aijax.taps import tap

__all__ = [
    "ARCHITECTURES", "L1", "AtLayer", "BatchTopK", "Circuit", "ClassPatterns", "Contrast", "Curve", "Curves", "Gated",
    "Graph", "JumpReLU", "MLPProbe", "Matryoshka", "Maxima", "NeuronPatterns", "SAEOutput", "Selectivity",
    "TokenMaxima", "TopK", "acdc", "activation_gradients", "as_jump_relu", "attention_rescored", "capture",
    "circuit_curves", "circuit_discovery", "colour_factor", "compute_neuron_activation_patterns", "contrast",
    "control_labels", "dense_codes", "draw_circuit", "draw_curves", "edge_attribution", "edge_effects",
    "fit_logistic", "fit_mlp", "fit_ridge", "init_sae", "integrated_activations", "integrated_inputs", "intervene",
    "lda_direction", "maximize_image", "maximize_in_ball", "maximize_in_box", "maximize_tokens", "mean_difference",
    "outcome", "outcomes", "patch_edges", "probe_accuracy", "probe_logits", "progress_measures", "prune_edges",
    "random_view", "recovery_auc", "residual_graph", "sae_architecture", "sae_decode", "sae_encode", "sae_loss",
    "selectivity", "sparse_product", "tap", "tap_names", "top_edges", "writer_scores", "writer_values",
]  # fmt: skip
