"""Gaussian processes: exact, iterative, sparse, with any kernel, as pure functions."""

from aijax.gp.exact import Exact, ExactPosterior
from aijax.gp.inference import condition, evidence, log_marginal_likelihood, predict, sample
from aijax.gp.model import GP, Evidence

__all__ = [
    "GP", "Evidence", "Exact", "ExactPosterior", "condition", "evidence", "log_marginal_likelihood", "predict",
    "sample",
]  # fmt: skip
