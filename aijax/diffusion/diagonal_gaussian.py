"""The distribution of latents that an autoencoder gives: N(mean, diag e^log_variance)."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.typing import Array, Float, PRNGKey


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiagonalGaussian:
    """`mean` and `log_variance`, `[n, ...]` each."""

    mean: Array
    log_variance: Array


def from_moments(moments: Array, axis: int = -1) -> DiagonalGaussian:
    """Returns the distribution of means and log-variances side by side on `axis`; the latter are held in [-30, 20], as
    published autoencoders have it."""
    mean, log_variance = jnp.split(moments, 2, axis)
    return DiagonalGaussian(mean, jnp.clip(log_variance, -30.0, 20.0))


def draw(key: PRNGKey, distribution: DiagonalGaussian, noise: Array | None = None) -> Array:
    """Returns a draw of each latent: mean + std noise, with standard normal noise that may be given."""
    if noise is None:
        noise = jax.random.normal(key, distribution.mean.shape, distribution.mean.dtype)
    return distribution.mean + jnp.exp(distribution.log_variance / 2) * noise


def kl_to_standard(distribution: DiagonalGaussian) -> Float[Array, " n"]:
    """Returns KL(. | N(0, I)) of each example, in nats.

    >>> kl_to_standard(DiagonalGaussian(jnp.ones((1, 2)), jnp.zeros((1, 2)))).tolist()
    [1.0]
    """
    mean, log_variance = distribution.mean, distribution.log_variance
    return jnp.sum(mean**2 + jnp.expm1(log_variance) - log_variance, tuple(range(1, mean.ndim))) / 2


def negative_log_density(distribution: DiagonalGaussian, x: Array) -> Float[Array, " n"]:
    """Returns -ln p(x) of each example, in nats."""
    mean, log_variance = distribution.mean, distribution.log_variance
    terms = math.log(2 * math.pi) + log_variance + (x - mean) ** 2 * jnp.exp(-log_variance)
    return jnp.sum(terms, tuple(range(1, mean.ndim))) / 2
