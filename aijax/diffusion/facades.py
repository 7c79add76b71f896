"""Two models in one call each: a function of (x, t) with its process, loss and samplers.

They hold no state: the function may be a `jax.tree_util.Partial` of a network and its parameters, and a model is then a
tree of arrays.
"""

from dataclasses import dataclass

import jax

from aijax.diffusion.likelihood import Likelihood, log_likelihood
from aijax.diffusion.losses import denoising_loss
from aijax.diffusion.predictions import as_partial
from aijax.diffusion.samplers.base import Sampler
from aijax.diffusion.samplers.one_step import DDIM, DDPM
from aijax.diffusion.samplers.predictor_corrector import PredictorCorrector
from aijax.diffusion.samplers.sample import sample
from aijax.diffusion.schedules import Table, linear_table
from aijax.diffusion.sde import VE
from aijax.typing import Any, Array, Callable, Float, PRNGKey


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScoreBased:
    """A score model `score_fn(x, t)`, t from 0 to 1, of the variance-exploding process `process`."""

    score_fn: Any
    process: VE

    def loss(self, key: PRNGKey, x0: Float[Array, "n ..."], **options: Any) -> Array:
        """Returns the mean denoising score matching loss, sigma^2-weighted; options as of `denoising_loss`."""
        return denoising_loss(key, self.score_fn, self.process, x0, prediction="score", **options).mean()

    def sample(
        self,
        key: PRNGKey,
        shape: tuple[int, ...],
        *,
        num_steps: int = 1000,
        sampler: Sampler | None = None,
        **options: Any,
    ) -> Array:
        """Returns samples of `shape` by predictor-corrector, or another sampler; options as of `sample`."""
        sampler = PredictorCorrector() if sampler is None else sampler
        return sample(
            key, self.score_fn, self.process, shape, sampler=sampler, steps=num_steps, prediction="score", **options
        )

    def log_likelihood(self, key: PRNGKey, x: Float[Array, "n ..."], **options: Any) -> Likelihood:
        """Returns the log-likelihoods of x; options as of `log_likelihood`."""
        return log_likelihood(key, self.score_fn, self.process, x, prediction="score", **options)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiscreteModel:
    """A noise model `eps_fn(x, t)`, t an index from 0 to T - 1, of the table `process`."""

    eps_fn: Any
    process: Table

    def loss(self, key: PRNGKey, x0: Float[Array, "n ..."], **options: Any) -> Array:
        """Returns the mean of |eps^ - eps|^2; options as of `denoising_loss`."""
        return denoising_loss(key, self.eps_fn, self.process, x0, prediction="eps", **options).mean()

    def sample(self, key: PRNGKey, shape: tuple[int, ...], **options: Any) -> Array:
        """Returns samples of `shape` by all T ancestral steps; options as of `sample`."""
        chosen = {"sampler": DDPM(), "steps": self.process.num_levels, "grid": "leading", "prediction": "eps"} | options
        return sample(key, self.eps_fn, self.process, shape, **chosen)

    def ddim_sample(
        self, key: PRNGKey, shape: tuple[int, ...], *, steps: int = 50, eta: float = 0.0, **options: Any
    ) -> Array:
        """Returns samples of `shape` by `steps` steps of DDIM; options as of `sample`."""
        return self.sample(key, shape, sampler=DDIM(eta), steps=steps, **options)


def score_based(
    score_fn: Callable[[Array, Array], Array], sigma_min: float = 0.01, sigma_max: float = 50.0
) -> ScoreBased:
    """Returns the score-based model of a variance-exploding process (Song et al. 2021).

    >>> import jax.numpy as jnp
    >>> model = score_based(lambda x, t: -x / 2500.0)
    >>> model.sample(jax.random.key(0), (2, 3), num_steps=5).shape
    (2, 3)
    """
    return ScoreBased(as_partial(score_fn), VE(sigma_min, sigma_max))


def ddpm(
    eps_fn: Callable[[Array, Array], Array], num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> DiscreteModel:
    """Returns the denoising diffusion model of a linear table (Ho et al. 2020).

    >>> model = ddpm(lambda x, t: x, num_steps=10, beta_start=0.01, beta_end=0.5)
    >>> model.ddim_sample(jax.random.key(0), (2, 3), steps=5).shape
    (2, 3)
    """
    return DiscreteModel(as_partial(eps_fn), linear_table(num_steps, beta_start, beta_end))
