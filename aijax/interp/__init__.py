"""Interpretability: what happens inside of a network, as transformations of pure functions."""

from aijax.interp import patching, progress_measures
from aijax.interp.activation_maximization import (
    Maxima,
    colour_factor,
    maximize_image,
    maximize_in_ball,
    maximize_in_box,
    neuron_activation,
    random_view,
)
from aijax.interp.attention_patterns import AttentionPatterns, attention_pattern_analysis, named_heads
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
from aijax.interp.head_circuits import (
    HeadWeights,
    composition_scores,
    copying_scores,
    head_weights,
    ov_circuits,
    qk_circuits,
)
from aijax.interp.information_flow import attention_flow, attention_rollout
from aijax.interp.lens import logit_attribution, logit_lens, read_stream
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
from aijax.interp.sae_architectures import ARCHITECTURES, L1, BatchTopK, Gated, JumpReLU, Matryoshka, TopK
from aijax.interp.sae_choice import SAEOutput
from aijax.interp.sae_published import from_sae_lens
from aijax.interp.sae_quality import (
    LossRecovered,
    SAEQuality,
    explained_variance,
    loss_recovered,
    sae_quality,
    splice_sae,
)
from aijax.interp.sae_stream import mix_rows, site_activations, stream_activations
from aijax.interp.sae_train import (
    SAEState,
    expected_norm_scale,
    fold_scale,
    init_sae_state,
    make_sae_step,
    resample_dead,
    sae_step,
    without_radial,
)
from aijax.interp.sparse_codes import dense_codes, sparse_product
from aijax.interp.token_search import TokenMaxima, maximize_tokens
from aijax.interp.tuned_lens import init_translators, translated, tuned_lens, tuned_lens_loss
from aijax.taps import tap

__all__ = [
    "ARCHITECTURES", "L1", "AtLayer", "AttentionPatterns", "BatchTopK", "Circuit", "ClassPatterns", "Contrast",
    "Curve", "Curves", "Gated", "Graph", "HeadWeights", "JumpReLU", "LossRecovered", "MLPProbe", "Matryoshka",
    "Maxima", "NeuronPatterns", "SAEOutput", "SAEQuality", "SAEState", "Selectivity", "TokenMaxima", "TopK",
    "acdc", "activation_gradients", "as_jump_relu", "attention_flow", "attention_pattern_analysis",
    "attention_rescored", "attention_rollout", "capture", "circuit_curves", "circuit_discovery",
    "colour_factor", "composition_scores", "compute_neuron_activation_patterns", "contrast", "control_labels",
    "copying_scores", "dense_codes", "draw_circuit", "draw_curves", "edge_attribution", "edge_effects",
    "expected_norm_scale", "explained_variance", "fit_logistic", "fit_mlp", "fit_ridge", "fold_scale",
    "from_sae_lens", "head_weights", "init_sae", "init_sae_state", "init_translators", "integrated_activations",
    "integrated_inputs", "intervene", "lda_direction", "logit_attribution", "logit_lens", "loss_recovered",
    "make_sae_step", "maximize_image", "maximize_in_ball", "maximize_in_box", "maximize_tokens",
    "mean_difference", "mix_rows", "named_heads", "neuron_activation", "outcome", "outcomes", "ov_circuits",
    "patch_edges", "patching", "probe_accuracy", "probe_logits", "progress_measures", "prune_edges",
    "qk_circuits", "random_view", "read_stream", "recovery_auc", "resample_dead", "residual_graph",
    "sae_architecture", "sae_decode", "sae_encode", "sae_loss", "sae_quality", "sae_step", "selectivity",
    "site_activations", "sparse_product", "splice_sae", "stream_activations", "tap", "tap_names", "top_edges",
    "translated", "tuned_lens", "tuned_lens_loss", "without_radial", "writer_scores", "writer_values",
]  # fmt: skip
