"""Losses of classifiers and of pairs of images and texts, as pure functions of logits and of features."""

from aijax.losses.classification import (
    as_probabilities,
    check_temperature,
    distillation_loss,
    kl_divergence,
    sigmoid_cross_entropy,
    smooth,
    softmax_cross_entropy,
)
from aijax.losses.contrastive import normalize, sigmoid_contrastive_loss, softmax_contrastive_loss
from aijax.losses.feature_cache import encode_in_parts
from aijax.losses.ring import ring_sigmoid_contrastive_loss, ring_softmax_contrastive_loss
from aijax.losses.self_distillation import self_distillation_loss, teacher_probabilities

__all__ = [
    "as_probabilities", "check_temperature", "distillation_loss", "encode_in_parts", "kl_divergence", "normalize",
    "ring_sigmoid_contrastive_loss", "ring_softmax_contrastive_loss", "self_distillation_loss",
    "sigmoid_contrastive_loss", "sigmoid_cross_entropy", "smooth", "softmax_contrastive_loss", "softmax_cross_entropy",
    "teacher_probabilities",
]  # fmt: skip
