"""Gaussian processes: exact, iterative, sparse, with any kernel, as pure functions."""

from aijax.gp.categorical import Categorical
from aijax.gp.exact import Exact, ExactPosterior
from aijax.gp.grid import Grid, GridPosterior, grid_points
from aijax.gp.inference import condition, evidence, log_marginal_likelihood, predict, sample
from aijax.gp.iterative import Iterative
from aijax.gp.iterative_gradient import GradientEstimate, evidence_and_gradient
from aijax.gp.iterative_posterior import IterativePosterior
from aijax.gp.laplace import Laplace, LaplacePosterior
from aijax.gp.likelihoods import Bernoulli, Gaussian, HeteroscedasticGaussian, Likelihood, Poisson, StudentT
from aijax.gp.model import GP, Evidence
from aijax.gp.sparse import SGPR, SparsePosterior, inducing_moments
from aijax.gp.state_space import StateSpace, StateSpacePosterior
from aijax.gp.targets import log_predictive_density, predict_probability, predict_targets
from aijax.gp.toeplitz import Toeplitz, ToeplitzPosterior

__all__ = [
    "GP", "SGPR", "Bernoulli", "Categorical", "Evidence", "Exact", "ExactPosterior", "Gaussian", "GradientEstimate",
    "Grid", "GridPosterior", "HeteroscedasticGaussian", "Iterative", "IterativePosterior", "Laplace",
    "LaplacePosterior", "Likelihood", "Poisson", "SparsePosterior", "StateSpace", "StateSpacePosterior", "StudentT",
    "Toeplitz", "ToeplitzPosterior", "condition", "evidence", "evidence_and_gradient", "grid_points",
    "inducing_moments", "log_marginal_likelihood", "log_predictive_density", "predict", "predict_probability",
    "predict_targets", "sample",
]  # fmt: skip
