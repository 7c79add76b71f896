"""Evaluation of features and logits, as pure functions: zero-shot, retrieval, probes, neighbours, calibration and
corruptions."""

from aijax.evaluation.calibration import (
    Reliability,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from aijax.evaluation.corruptions import CORRUPTIONS, check_corruption, corrupt
from aijax.evaluation.features import FEATURE_CLASSIFIERS, feature_accuracies
from aijax.evaluation.linear_probe import LinearProbe, logistic_probe, probe_scores, ridge_probe
from aijax.evaluation.neighbours import nearest_neighbour_votes
from aijax.evaluation.retrieval import RetrievalRanks, recall_at, retrieval_ranks, retrieval_recall
from aijax.evaluation.zero_shot import class_weights, fill_templates, top_k_accuracy, zero_shot_scores

__all__ = [
    "CORRUPTIONS", "FEATURE_CLASSIFIERS", "LinearProbe", "Reliability", "RetrievalRanks", "check_corruption",
    "class_weights", "corrupt", "expected_calibration_error", "feature_accuracies", "fill_templates",
    "fit_temperature", "logistic_probe", "nearest_neighbour_votes", "negative_log_likelihood", "probe_scores",
    "recall_at", "reliability", "retrieval_ranks", "retrieval_recall", "ridge_probe", "top_k_accuracy",
    "zero_shot_scores",
]  # fmt: skip
