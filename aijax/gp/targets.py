"""What will be observed: targets at new points, when the posterior is of a latent function behind a likelihood.

    p(y* | y) = E[p(y* | f*)],    f* ~ q(f*)          (Rasmussen and Williams 2006, equation 3.10)

A posterior of Gaussian regression has the likelihood N(f, noise_variance).
"""

import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.gp.categorical import Categorical
from aijax.gp.likelihoods import Bernoulli, Gaussian, Likelihood
from aijax.gp.observations import check_points
from aijax.typing import Any, Array, Float


def predict_targets(
    posterior: Any, x_new: Any, *, likelihood: Likelihood | None = None
) -> tuple[Float[Array, " t"], Float[Array, " t"]]:
    """Returns `(mean, standard deviation)` of targets at new points, each `[n_new]`; of classes `[n_new, c]` each.

    Args:
      posterior: of `condition`, of a fit, or an `SVGP`.
      x_new: n_new points.
      likelihood: in place of the posterior's own, as for parameters that have a value for each new point.

    >>> from aijax import gp, kernels
    >>> x = jnp.array([0.0, 1.0, 2.0])
    >>> posterior = gp.condition(gp.GP(kernels.RBF()), x, jnp.array([2, 3, 9]), solver=gp.Laplace(gp.Poisson()))
    >>> mean, std = predict_targets(posterior, x)
    >>> bool(mean[2] > mean[0])
    True
    """
    likelihood = _likelihood(posterior, likelihood)
    mean, variance = likelihood.predict(*_latents(posterior, x_new))
    return mean, jnp.sqrt(variance)


def predict_probability(
    posterior: Any, x_new: Any, *, likelihood: Likelihood | None = None
) -> Float[Array, " t"] | Float[Array, "t c"]:
    """Returns the probability of class 1 at new points, `[n_new]`, or of each of c classes, `[n_new, c]`.

    Args: as `predict_targets`.

    Raises:
      ConfigError: the likelihood has no classes.
    """
    likelihood = _likelihood(posterior, likelihood)
    if not isinstance(likelihood, Bernoulli | Categorical):
        raise ConfigError(f"posterior: expected a likelihood with classes, got {type(likelihood).__name__}")
    return likelihood.predict(*_latents(posterior, x_new))[0]


def log_predictive_density(
    posterior: Any, x_new: Any, y: Array, *, likelihood: Likelihood | None = None
) -> Float[Array, " t"]:
    """Returns `log p(y_i* | y)` of targets at new points, one by one, `[n_new]`; minus its mean is the NLPD.

    Args:
      y: the targets that were observed there, `[n_new]`; others as `predict_targets`.
    """
    likelihood = _likelihood(posterior, likelihood)
    y = jnp.asarray(y)
    likelihood.check_targets(y)
    return likelihood.predictive_log_density(*_latents(posterior, x_new), y)


def likelihood_of(posterior: Any) -> Likelihood | None:
    """Returns the likelihood that the posterior was made with, None for that of Gaussian regression."""
    holders = (posterior, _of_fit(posterior))
    return next((holder.likelihood for holder in holders if hasattr(holder, "likelihood")), None)


def _likelihood(posterior, likelihood):
    found = likelihood_of(posterior) if likelihood is None else likelihood
    return Gaussian(posterior.gp.noise_variance) if found is None else found


def _latents(posterior, x_new):
    check_points(x_new)
    posterior = _of_fit(posterior)
    if hasattr(posterior, "latent_covariance"):
        return posterior.latent_covariance(x_new)
    return posterior.predict(x_new)


def _of_fit(posterior):
    return getattr(posterior, "posterior", posterior)
