"""The variational bound of discrete-time diffusion, in bits per dimension.

    -log2 p(x_0) <= prior + sum_i term_i
    term_i = KL(q(x_(i-1) | x_i, x_0) | p(x_(i-1) | x_i)) for i > 0,       term_0 = -ln p(x_0 | x_1)
    prior = KL(q(x_T | x_0) | N(0, I))

each divided by d ln 2. p has the mean of q with the predicted x_0 and a log-variance (v + 1)/2 ln beta + (1 - v)/2
ln beta~ with v learned (beta~_0 is replaced by beta~_1), or ln beta~ where nothing is learned. The decoder gives the
mass of the Gaussian on bins of width 2/255 about 8-bit values in [-1, 1], the outer bins open. (Ho et al. 2020, section
3.3; Nichol and Dhariwal 2021, section 3.)
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aijax.diffusion.losses import check_examples, denoising_loss
from aijax.diffusion.predictions import to_x0
from aijax.diffusion.process import add_noise, check_times, like_rows
from aijax.diffusion.schedules import Table, posterior
from aijax.typing import Any, Array, Callable, Float, PRNGKey


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bound:
    """Bits per dimension of each example: `total` = `prior` + the sum of `terms`, `[n]`, `[n]` and `[T, n]`."""

    total: Array
    prior: Array
    terms: Array


def variational_loss(
    key: PRNGKey,
    denoise_fn: Callable[[Array, Array], Any],
    table: Table,
    x0: Float[Array, "n ..."],
    *,
    prediction: str = "eps",
    t: Array | None = None,
    noise: Array | None = None,
    constraint: Callable | None = None,
    fixed_mean: bool = False,
) -> Float[Array, " n"]:
    """Returns the term of the bound at a random index of each example, in bits per dimension, `[n]`.

    T times its mean, and the prior, bound the negative log-likelihood.

    Args:
      key: of indices and noise.
      denoise_fn: `(x [n, ...], t [n]) -> (prediction, v)`, v from -1 to 1, or the prediction alone.
      table: the levels.
      x0: in [-1, 1], on 8-bit values.
      prediction: kind of the prediction, default "eps".
      t, noise: indices `[n]` and noise in place of drawn ones.
      constraint: what is done to the predicted x_0, default nothing.
      fixed_mean: whether gradients pass by the variance alone (for `hybrid_loss`); default False.
    """
    check_examples(x0, t, noise)
    index_key, noise_key = jax.random.split(key)
    if t is None:
        t = jax.random.randint(index_key, (len(x0),), 0, table.num_levels)
    check_times(table, t)
    if noise is None:
        noise = jax.random.normal(noise_key, x0.shape, x0.dtype)
    t = jnp.asarray(t, x0.dtype)
    x = add_noise(table, x0, t, noise)
    mean, log_variance = step_distribution(denoise_fn, table, x, t, prediction=prediction, constraint=constraint)
    if fixed_mean:
        mean = jax.lax.stop_gradient(mean)
    coefficients = _coefficients(table, t, x0.dtype)
    target = like_rows(coefficients["x0"], x) * x0 + like_rows(coefficients["xt"], x) * x
    divergence = gaussian_kl(target, like_rows(coefficients["log_small"], x), mean, log_variance)
    decoder = -discretised_log_likelihood(x0, mean, log_variance / 2)
    return _bits(jnp.where(like_rows(t == 0, x), decoder, divergence))


def hybrid_loss(
    key: PRNGKey,
    denoise_fn: Callable[[Array, Array], Any],
    table: Table,
    x0: Float[Array, "n ..."],
    *,
    prediction: str = "eps",
    weight: float = 1e-3,
) -> Float[Array, " n"]:
    """Returns the simple loss plus `weight` T times the variational term, which trains the variance alone, `[n]`.

    Source: Nichol and Dhariwal 2021, equation 16.
    """
    index_key, noise_key, unused = jax.random.split(key, 3)
    t = jax.random.randint(index_key, (len(x0),), 0, table.num_levels).astype(x0.dtype)
    noise = jax.random.normal(noise_key, x0.shape, x0.dtype)
    simple = denoising_loss(
        unused, lambda x, t: denoise_fn(x, t)[0], table, x0, prediction=prediction, t=t, noise=noise
    )
    bound = variational_loss(unused, denoise_fn, table, x0, prediction=prediction, t=t, noise=noise, fixed_mean=True)
    return simple + weight * table.num_levels * bound


def variational_bound(
    key: PRNGKey,
    denoise_fn: Callable[[Array, Array], Any],
    table: Table,
    x0: Float[Array, "n ..."],
    *,
    prediction: str = "eps",
    constraint: Callable | None = None,
) -> Bound:
    """Returns the whole bound of each example by a scan over all T levels, one noise at each; arguments as of
    `variational_loss`."""

    def term(carry, index):
        t = jnp.full(len(x0), index, x0.dtype)
        value = variational_loss(
            jax.random.fold_in(key, index), denoise_fn, table, x0, prediction=prediction, t=t, constraint=constraint
        )
        return carry, value

    _, terms = jax.lax.scan(term, None, jnp.arange(table.num_levels))
    prior = prior_bits(table, x0)
    return Bound(prior + terms.sum(0), prior, terms)


def step_distribution(
    denoise_fn: Callable,
    table: Table,
    x: Float[Array, "n ..."],
    t: Float[Array, " n"],
    *,
    prediction: str = "eps",
    constraint: Callable | None = None,
) -> tuple[Array, Array]:
    """Returns the mean and the log-variance of p(x_(i-1) | x_i), both of the shape of x."""
    output = denoise_fn(x, t)
    output, fraction = output if isinstance(output, tuple) else (output, None)
    x0 = to_x0(prediction, output, x, table.alpha(t), table.sigma(t))
    x0 = x0 if constraint is None else constraint(x0)
    c = _coefficients(table, t, x.dtype)
    mean = like_rows(c["x0"], x) * x0 + like_rows(c["xt"], x) * x
    low, high = like_rows(c["log_small"], x), like_rows(c["log_large"], x)
    log_variance = jnp.broadcast_to(low, x.shape) if fraction is None else low + (fraction + 1) / 2 * (high - low)
    return mean, log_variance


def prior_bits(table: Table, x0: Float[Array, "n ..."]) -> Float[Array, " n"]:
    """Returns KL(q(x_T | x_0) | N(0, I)) in bits per dimension, `[n]`."""
    last = np.log(-np.expm1(table.log_alpha_bars()[-1]))
    alpha = np.exp(table.log_alpha_bars()[-1] / 2)
    zero = jnp.zeros((), x0.dtype)
    return _bits(gaussian_kl(jnp.asarray(alpha, x0.dtype) * x0, jnp.asarray(last, x0.dtype), zero, zero))


def gaussian_kl(mean1: Array, log_variance1: Array, mean2: Array, log_variance2: Array) -> Array:
    """Returns KL(N(mean1, variance1) | N(mean2, variance2)), element by element, in nats.

    >>> float(gaussian_kl(jnp.ones(()), jnp.zeros(()), jnp.zeros(()), jnp.zeros(())))
    0.5
    """
    difference = log_variance1 - log_variance2
    return (jnp.expm1(difference) - difference + (mean1 - mean2) ** 2 * jnp.exp(-log_variance2)) / 2


def discretised_log_likelihood(x: Array, mean: Array, log_std: Array) -> Array:
    """Returns the log mass of N(mean, std^2) on the bin of each 8-bit value x in [-1, 1], element by element, in nats.

    In the far tails, where a difference of two probabilities would be 0, it is taken in the logarithm.
    """
    inverse = jnp.exp(-log_std)
    low, high = (x - mean - 1 / 255) * inverse, (x - mean + 1 / 255) * inverse
    # by symmetry the bin is taken on the lower side, where the distribution function keeps its digits
    flipped = low + high > 0
    low, high = jnp.where(flipped, -high, low), jnp.where(flipped, -low, high)
    top, bottom = x > 0.999, x < -0.999
    high = jnp.where(jnp.where(flipped, bottom, top), jnp.inf, high)
    low = jnp.where(jnp.where(flipped, top, bottom), -jnp.inf, low)
    log_high, log_low = jax.scipy.special.log_ndtr(high), jax.scipy.special.log_ndtr(low)
    gap = jnp.where(jnp.isinf(low), -jnp.inf, log_low - log_high)
    return log_high + jnp.log(-jnp.expm1(jnp.where(jnp.isinf(gap), -1.0, gap))) * jnp.isfinite(gap)


def _coefficients(table, t, dtype):
    found = posterior(table)
    small = np.append(found["variance"][1], found["variance"][1:])
    columns = {
        "x0": found["x0"],
        "xt": found["xt"],
        "log_small": np.log(small),
        "log_large": np.log(table.betas),
    }
    index = jnp.asarray(t, int)
    return {name: jnp.asarray(column, dtype)[index] for name, column in columns.items()}


def _bits(nats):
    return jnp.mean(nats, tuple(range(1, nats.ndim))) / math.log(2)
