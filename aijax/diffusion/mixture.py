"""Gaussian mixtures as exact models: what a perfect network would predict, for tests, experiments and examples.

For x = alpha x_0 + sigma eps with x_0 from the mixture, x has the density

    p(x) = sum_k w_k N(x; alpha mu_k, alpha^2 C_k + sigma^2 I)

whose score gives every prediction: E[x_0 given x] = (x + sigma^2 score) / alpha, E[eps given x] = -sigma score.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from aijax.diffusion.process import Process, namespace
from aijax.errors import ConfigError
from aijax.parameters import noun, parameter
from aijax.typing import Any, Array, Callable, Float, PRNGKey


@noun
class GaussianMixture:
    """A mixture of K Gaussians in d dimensions.

    Args:
      weights: `[K]`, nonnegative; they are normalised.
      means: `[K, d]`.
      covariances: `[K, d, d]`.

    >>> ring(8).means.shape
    (8, 2)
    """

    weights: Any = parameter(constraint="nonnegative")
    means: Any = parameter()
    covariances: Any = parameter()

    def check(self):
        shapes = [np.shape(value) for value in (self.weights, self.means, self.covariances)]
        (k,), d = shapes[0], shapes[1][-1]
        if shapes[1:] != [(k, d), (k, d, d)]:
            raise ConfigError(
                f"means, covariances: expected shapes [K, d] and [K, d, d] for {k} weights, got {shapes[1:]}"
            )


def log_density(mixture: GaussianMixture, x: Float[Array, "n d"], alpha: Any = 1.0, sigma: Any = 0.0) -> Array:
    """Returns the log density of x = alpha x_0 + sigma eps at n points, `[n]`; alpha and sigma scalars or `[n]`."""
    return jax.nn.logsumexp(_Parts(mixture, x, alpha, sigma).log_joint, axis=0)


def score(mixture: GaussianMixture, x: Float[Array, "n d"], alpha: Any = 1.0, sigma: Any = 0.0) -> Array:
    """Returns the gradient of `log_density` at n points, `[n, d]`."""
    parts = _Parts(mixture, x, alpha, sigma)
    return -parts.average(parts.precision * parts.centred)


def log_posterior(mixture: GaussianMixture, x: Float[Array, "n d"], alpha: Any = 1.0, sigma: Any = 0.0) -> Array:
    """Returns ln p(component given x), `[n, K]`: an exact classifier of noisy x."""
    return jax.nn.log_softmax(_Parts(mixture, x, alpha, sigma).log_joint, axis=0).T


def denoiser(mixture: GaussianMixture, process: Process) -> Callable[[Array, Any], Array]:
    """Returns `(x, t) -> E[x_0 given x]` under a process, in a form that is finite where alpha or sigma is 0.

    E[x_0 given x] = sum_k p(k given x) (mu_k + alpha C_k S_k^-1 (x - alpha mu_k)), S_k = alpha^2 C_k + sigma^2 I.
    """

    def denoise(x, t):
        return posterior_mean(mixture, x, process.alpha(t), process.sigma(t))

    return denoise


def posterior_mean(mixture: GaussianMixture, x: Float[Array, "n d"], alpha: Any, sigma: Any) -> Array:
    """Returns E[x_0 given x], `[n, d]`; see `denoiser`."""
    parts = _Parts(mixture, x, alpha, sigma)
    return parts.average(parts.means + parts.alpha * parts.variances * parts.precision * parts.centred)


def sample_mixture(key: PRNGKey, mixture: GaussianMixture, count: int) -> Float[Array, "n d"]:
    """Returns `count` draws of the mixture."""
    component_key, noise_key = jax.random.split(key)
    means = jnp.asarray(mixture.means)
    logits = jnp.log(jnp.asarray(mixture.weights))
    component = jax.random.categorical(component_key, logits, shape=(count,))
    factors = jnp.linalg.cholesky(jnp.asarray(mixture.covariances))
    noise = jax.random.normal(noise_key, (count, means.shape[1]), means.dtype)
    return means[component] + jnp.einsum("nde,ne->nd", factors[component], noise)


def ring(count: int = 8, radius: float = 2.0, std: float = 0.2) -> GaussianMixture:
    """Returns `count` equal round components on a circle."""
    angles = 2 * math.pi * np.arange(count) / count
    means = radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    return GaussianMixture(np.full(count, 1 / count), means, np.tile(std**2 * np.eye(2), (count, 1, 1)))


class _Parts:
    """What all of these are made of, in the eigenvectors V_k of C_k and with the points as the last axis, which fills
    vector registers: V_k^T mu_k, the eigenvalues, V_k^T (x - alpha mu_k) and the eigenvalues of S_k^-1, `[K, d, n]` or
    1 for n; ln(w_k N(x; ...)), `[K, n]`."""

    def __init__(self, mixture, x, alpha, sigma):
        # of NumPy's covariances once, and not at each step of a loop
        variances, vectors = namespace(mixture.covariances).linalg.eigh(mixture.covariances)
        self.variances, self.vectors = jnp.asarray(variances, x.dtype)[:, :, None], jnp.asarray(vectors, x.dtype)
        self.means = jnp.einsum("kde,kd->ke", self.vectors, jnp.asarray(mixture.means, x.dtype))[:, :, None]
        self.alpha, sigma = jnp.asarray(alpha, x.dtype), jnp.asarray(sigma, x.dtype)
        self.precision = 1 / (self.alpha**2 * self.variances + sigma**2)
        self.centred = jnp.einsum("kde,nd->ken", self.vectors, x) - self.alpha * self.means
        terms = self.precision * self.centred**2 - jnp.log(self.precision / (2 * math.pi))
        weights = jnp.asarray(mixture.weights, x.dtype)
        self.log_joint = jnp.log(weights / weights.sum())[:, None] - jnp.sum(terms, 1) / 2

    def average(self, values):
        """sum_k p(k given x) V_k values_k, `[n, d]`."""
        return jnp.einsum("kde,kn,ken->nd", self.vectors, jax.nn.softmax(self.log_joint, axis=0), values)
