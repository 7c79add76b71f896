"""A smoothed linear state at times that are not in the data: its moments, its covariance between times, its paths.

Between two observations the state goes on from the one before and is told by those after (`aijax.gp.kalman`). The
covariance of two times s <= t, given all data, is

    cov(f(s), f(t)) = h_s^T C_s F^T (I - N_t C_t) h_t

where F takes the error of the filter at s to that at t: A over each step and `I - K h^T` at each observation between
(de Jong 1989; Durbin and Koopman 2012, section 4.7).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from aijax.gp.kalman import Moments, Series, along, as_lanes
from aijax.kernels import Markov
from aijax.linalg.block_scan import lanes_first, lanes_last, prefixes, run, summarise
from aijax.linalg.lanes import cholesky_semidefinite, multiply, transpose_multiply
from aijax.typing import Array, Float, PRNGKey


class StateAt(NamedTuple):
    """At q times: the mean of f `[p, q]`, `h` `[m, q]`, `C h` `[m, q]`, `N C h` `[m, q]`, and how many observations
    come before or then, `[q]`. The variance of f is `(C h)^T (h - N C h)`."""

    mean: Array
    observation: Array
    prior: Array
    told: Array
    index: Array


def state_at(form: Markov, series: Series, moments: Moments, times: Float[Array, " q"]) -> StateAt:
    """Returns the smoothed state at any times, in any order."""
    n = len(series.t)
    index = jnp.searchsorted(series.t, times, side="right")
    since = jnp.where(index > 0, times - series.t[jnp.maximum(index - 1, 0)], 0)
    until = jnp.where(index < n, series.t[jnp.minimum(index, n - 1)] - times, 0)
    mean, covariance, slope, curvature = lanes_last(
        tuple(leaf[index] for leaf in (moments.mean, moments.covariance, moments.slope, moments.curvature))
    )
    before, after = form.transition(since), form.transition(until)
    h = as_lanes(form.observation(times), times)
    g = multiply(before, transpose_multiply(covariance, transpose_multiply(before, h[:, None])))
    g = (g + multiply(form.noise(since), h[:, None]))[:, 0]
    told = transpose_multiply(after, multiply(curvature, multiply(after, g[:, None])))[:, 0]
    rho = transpose_multiply(after, slope)
    mean = along(tuple(h), multiply(before, mean)) + along(tuple(g), rho)
    return StateAt(mean, h, g, told, index)


def joint_moments(
    form: Markov, series: Series, moments: Moments, times: Float[Array, " q"], block_length: int, parallel: bool
) -> tuple[Float[Array, "p q"], Float[Array, "q q"]]:
    """Returns the mean of f and its covariance between q times, which must be in order: O(n + q^2)."""
    state = state_at(form, series, moments, times)
    passages = _passages(form, series, moments, times, state.index, block_length, parallel)

    def column(rows, x):
        j, passage, prior, rest = x
        rows = (rows @ passage.T).at[j].set(prior)
        return rows, rows @ rest

    rest = state.observation - state.told
    start = jnp.zeros((len(times), form.size), times.dtype)
    xs = (jnp.arange(len(times)), passages, state.prior.T, rest.T)
    upper = jax.lax.scan(column, start, xs)[1].T
    return state.mean, jnp.triu(upper) + jnp.triu(upper, 1).T


def sample_path(
    key: PRNGKey, form: Markov, times: Float[Array, " n"], num_samples: int, block_length: int, parallel: bool
) -> Float[Array, "n s"]:
    """Returns f of independent paths of the prior at n times, which must be in order."""
    dt = jnp.diff(times, prepend=times[:1])
    white = jax.random.normal(key, (form.size, num_samples, len(times)), times.dtype)
    factors = cholesky_semidefinite(form.noise(dt)).at[..., 0].set(cholesky_semidefinite(form.covariance))
    xs = (dt, times, lanes_first(multiply(factors, white)))

    def step(state, x):
        dt, t, kick = x
        state = multiply(form.transition(dt), state) + kick
        return state, along(form.observation(t), state)

    def absorb(element, x):
        return multiply(form.transition(x[0]), element[0]), step(element[1], x)[0]

    def combine(first, second):
        return second[0] @ first[0], second[1] + second[0] @ first[1]

    unit = (jnp.eye(form.size, dtype=times.dtype), jnp.zeros((form.size, num_samples), times.dtype))
    elements = lanes_first(summarise(absorb, unit, xs, block_length))
    before, _ = prefixes(combine, unit, elements, parallel=parallel)
    return run(step, lanes_last(before[1]), xs, block_length)


def _passages(form, series, moments, times, index, block_length, parallel):
    """Returns F from each time to the next, `[q, m, m]`; the first is of no use."""
    n, size = len(series.t), form.size
    last, here = jnp.roll(index, 1), jnp.roll(times, 1)
    starts = jnp.zeros(n, times.dtype).at[index + 1].set(1, mode="drop")
    products = _products(form, series, moments, starts, block_length, parallel)
    first, end = jnp.minimum(last, n - 1), jnp.maximum(index - 1, 0)
    eye = jnp.eye(size, dtype=times.dtype)[..., None]
    between = jnp.where(index > last + 1, lanes_last(products[end]), eye)
    passage = _corrected(form, series.t[first], moments.gain[first].T, form.transition(series.t[first] - here))
    passage = multiply(form.transition(jnp.maximum(times - series.t[end], 0)), multiply(between, passage))
    direct = form.transition(jnp.maximum(times - here, 0))
    return lanes_first(jnp.where(index > last, passage, direct))


def _products(form, series, moments, starts, block_length, parallel):
    """Returns the products of `(I - K h^T) A` over the observations from the last start on, `[n, m, m]`."""
    xs = (series.dt, series.t, moments.gain, starts)

    def step(product, x):
        dt, t, gain, start = x
        eye = jnp.eye(form.size, dtype=dt.dtype)[..., None]
        product = jnp.where(start > 0, eye, product)
        product = _corrected(form, t, gain, multiply(form.transition(dt), product))
        return product, product

    def absorb(element, x):
        return step(element[0], x)[0], jnp.maximum(element[1], x[3])

    def combine(first, second):
        product = jnp.where(second[1][..., None, None] > 0, second[0], second[0] @ first[0])
        return product, jnp.maximum(first[1], second[1])

    unit = (jnp.eye(form.size, dtype=series.dt.dtype), jnp.zeros((), series.dt.dtype))
    elements = lanes_first(summarise(absorb, unit, xs, block_length))
    before, _ = prefixes(combine, unit, elements, parallel=parallel)
    return run(step, lanes_last(before[0]), xs, block_length)


def _corrected(form, t, gain, product):
    """Returns `(I - K h^T) product`."""
    return product - gain[:, None] * along(form.observation(t), product)
