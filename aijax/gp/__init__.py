"""Gaussian processes: exact, iterative, sparse, with any kernel, as pure functions."""

from aijax.gp.categorical import Categorical
from aijax.gp.exact import Exact, ExactPosterior
from aijax.gp.inference import condition, evidence, log_marginal_likelihood, predict, sample
from aijax.gp.likelihoods import Bernoulli, Gaussian, HeteroscedasticGaussian, Likelihood, Poisson, StudentT
from aijax.gp.model import GP, Evidence
from aijax.gp.sparse import SGPR, SparsePosterior, inducing_moments
from aijax.gp.state_space import StateSpace, StateSpacePosterior

__all__ = [
    "GP", "SGPR", "Bernoulli", "Categorical", "Evidence", "Exact", "ExactPosterior", "Gaussian",
    "HeteroscedasticGaussian", "Likelihood", "Poisson", "SparsePosterior", "StateSpace", "StateSpacePosterior",
    "StudentT", "condition", "evidence", "inducing_moments", "log_marginal_likelihood", "predict", "sample",
]  # fmt: skip
