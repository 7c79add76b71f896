"""Gaussian processes: exact, iterative, sparse, with any kernel, as pure functions."""

from aijax.gp import acquisition, bayesopt
from aijax.gp.categorical import Categorical
from aijax.gp.cross_validation import LeaveOneOut, leave_one_out
from aijax.gp.exact import Exact, ExactPosterior
from aijax.gp.fit import FitResult, fit
from aijax.gp.fit_variational import VariationalFit, fit_variational
from aijax.gp.grid import Grid, GridPosterior, grid_points
from aijax.gp.inducing import cluster_inducing, greedy_inducing, random_inducing
from aijax.gp.inference import condition, evidence, log_marginal_likelihood, predict, sample
from aijax.gp.iterative import Iterative
from aijax.gp.iterative_gradient import GradientEstimate, evidence_and_gradient
from aijax.gp.iterative_posterior import IterativePosterior
from aijax.gp.laplace import Laplace, LaplacePosterior
from aijax.gp.likelihoods import Bernoulli, Gaussian, HeteroscedasticGaussian, Likelihood, Poisson, StudentT
from aijax.gp.model import GP, Evidence
from aijax.gp.pathwise import PathwiseSamples, pathwise_sample
from aijax.gp.priors import Gamma, HalfNormal, LogNormal, Normal, Prior, Uniform
from aijax.gp.sparse import SGPR, SparsePosterior, inducing_moments
from aijax.gp.state_space import StateSpace, StateSpacePosterior
from aijax.gp.suggest import (
    ExpectedImprovement,
    KnowledgeGradient,
    LogExpectedImprovement,
    ProbabilityOfImprovement,
    Suggestion,
    ThompsonSampling,
    UpperConfidenceBound,
    suggest,
)
from aijax.gp.svgp import SVGP, elbo, natural_step, prior_svgp
from aijax.gp.targets import log_predictive_density, predict_probability, predict_targets
from aijax.gp.toeplitz import Toeplitz, ToeplitzPosterior
from aijax.gp.variational import Variational, VariationalPosterior

__all__ = [
    "GP", "SGPR", "SVGP", "Bernoulli", "Categorical", "Evidence", "Exact", "ExactPosterior", "ExpectedImprovement",
    "FitResult", "Gamma", "Gaussian", "GradientEstimate", "Grid", "GridPosterior", "HalfNormal",
    "HeteroscedasticGaussian", "Iterative", "IterativePosterior", "KnowledgeGradient", "Laplace", "LaplacePosterior",
    "LeaveOneOut", "Likelihood", "LogExpectedImprovement", "LogNormal", "Normal", "PathwiseSamples", "Poisson", "Prior",
    "ProbabilityOfImprovement", "SparsePosterior", "StateSpace", "StateSpacePosterior", "StudentT", "Suggestion",
    "ThompsonSampling", "Toeplitz", "ToeplitzPosterior", "Uniform", "UpperConfidenceBound", "Variational",
    "VariationalFit", "VariationalPosterior", "acquisition", "bayesopt", "cluster_inducing", "condition", "elbo",
    "evidence", "evidence_and_gradient", "fit", "fit_variational", "greedy_inducing", "grid_points",
    "inducing_moments", "leave_one_out", "log_marginal_likelihood", "log_predictive_density", "natural_step",
    "pathwise_sample", "predict", "predict_probability", "predict_targets", "prior_svgp", "random_inducing",
    "sample", "suggest",
]  # fmt: skip
