"""Filtering and smoothing of a linear state seen through scalar observations, in blocks of time that run side by side.

With `aijax.kernels.markov` the state z of m numbers moves by `z <- A z + N(0, Q)` and is seen as `y = h^T z + N(0, r)`.

**Filter.** Each observation is absorbed with one division (Kalman 1960):

    C <- A C A^T + Q,    g = C h,    S = h^T g + r,    K = g / S,    C <- C - K g^T,    mean <- mean + K (y - h^T mean)

**Blocks.** Started from a *known* state z, of covariance 0, a filter has a mean `M z + b` that is affine in z, and so
are its innovations `e - v^T z`. A stretch of steps therefore says of the state before it

    after it, the state is N(M z + b, C);   log density of its observations = c + eta^T z - z^T J z / 2,
    J = sum v v^T / S,   eta = sum v e / S,   c = -1/2 sum (e^2 / S + log 2 pi S)

which is the element of Sarkka and Garcia-Fernandez 2021 (equation 14), with the density besides. Two stretches combine
by `(I + C1 J2)^-1`. One walk over the blocks gives the likelihood; a second one, from the state before each block, the
filter at all times.

**Smoother.** What the future says is carried backwards as (rho, N), the slope and the curvature of its log density in
the state (Bryson and Frazier 1963; Durbin and Koopman 2012, section 4.4):

    rho <- h e / S + (I - K h^T)^T rho,     N <- h h^T / S + (I - K h^T)^T N (I - K h^T),   then  A^T rho,  A^T N A
    E(z | all) = mean + C rho,    cov(z | all) = C - C N C

Nothing but S is divided by, so repeated times and states without noise are ordinary cases. Outputs that share the
covariances are the columns of y: a mean, an offset, eta and rho have p columns.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aijax.kernels import Markov
from aijax.linalg.block_scan import lanes_first, lanes_last, prefixes, run, summarise
from aijax.linalg.lanes import multiply, multiply_transposed, transpose_multiply
from aijax.typing import Any, Array, Float


class Series(NamedTuple):
    """Observations in order of time: steps dt `[n]` (0 first), times `[n]`, y `[n, p]`, noise variances `[n]`, and
    weights `[n]`: 1, or 0 where y is missing."""

    dt: Array
    t: Array
    y: Array
    noise: Array
    weight: Array


class Filtered(NamedTuple):
    """At each time, after its observation: mean `[n, m, p]`, covariance `[n, m, m]`; and of its observation the gain
    `[n, m]`, the precision `weight / S` `[n]` and the innovation `[n, p]`."""

    mean: Array
    covariance: Array
    gain: Array
    precision: Array
    innovation: Array


class Moments(NamedTuple):
    """What is known around each observation: mean `[n + 1, m, p]` and covariance `[n + 1, m, m]` of the state after it,
    the prior's first; the gain `[n, m]`; slope rho `[n + 1, m, p]` and curvature N `[n + 1, m, m]` of the log density,
    in the state before it, of it and all later ones, 0 at last."""

    mean: Array
    covariance: Array
    gain: Array
    slope: Array
    curvature: Array


class Stretch(NamedTuple):
    """What a stretch of steps says of the state before it: M, b, C, eta, J and c (see above)."""

    transition: Array
    offset: Array
    covariance: Array
    potential: Array
    information: Array
    constant: Array


def log_density(form: Markov, series: Series, block_length: int, parallel: bool = False) -> Float[Array, ""]:
    """Returns the log density of the observations, summed over outputs."""
    stretches = _stretches(form, series, block_length)
    _, whole = prefixes(_combine, _nothing_before(form, series), stretches, parallel=parallel)
    return whole.constant


def smoothing(form: Markov, series: Series, block_length: int, parallel: bool = False) -> Moments:
    """Returns the moments of the state around each observation."""
    past = _filtered(form, series, block_length, parallel)
    slope, curvature = _futures(form, series, past, block_length, parallel)
    return Moments(
        jnp.concatenate([jnp.zeros_like(past.mean[:1]), past.mean]),
        jnp.concatenate([form.covariance[None], past.covariance]),
        past.gain,
        jnp.concatenate([slope, jnp.zeros_like(slope[:1])]),
        jnp.concatenate([curvature, jnp.zeros_like(curvature[:1])]),
    )


def along(h: tuple, a: Any) -> Array:
    """Returns `h^T a`, skipping entries of h that are the Python number 0."""
    return sum(
        a[i] if isinstance(entry, int) else entry * a[i]
        for i, entry in enumerate(h)
        if not (isinstance(entry, int) and entry == 0)
    )


def as_lanes(h: tuple, like: Array) -> Array:
    """Returns h as `[m, ...]`, of the shape and dtype of `like` `[...]`."""
    return jnp.stack([jnp.broadcast_to(jnp.asarray(entry, like.dtype), like.shape) for entry in h])


def _filtered(form, series, block_length, parallel):
    """Returns the state at each time, given the observations up to then."""
    stretches = _stretches(form, series, block_length)
    before, _ = prefixes(_combine, _nothing_before(form, series), stretches, parallel=parallel)

    def step(state, x):
        mean, covariance, h = _moved(form, x, *state)
        innovation = x.y - along(h, mean)
        gain, g, precision, _ = _gain(h, covariance, x)
        mean = mean + gain[:, None] * innovation
        covariance = covariance - gain[:, None] * g
        return (mean, covariance), Filtered(mean, covariance, gain, precision, innovation)

    return run(step, lanes_last((before.offset, before.covariance)), series, block_length)


def _futures(form, series, past, block_length, parallel):
    """Returns slope and curvature of the log density of each observation and all later ones, in the state before it."""
    xs = (series.dt, series.t, past.gain, past.precision, past.innovation)
    size, outputs, dtype = form.size, series.y.shape[1], series.y.dtype
    nothing = jnp.zeros((size, outputs), dtype), jnp.zeros((size, size), dtype)

    def step(future, x):
        slope, curvature = future
        dt, t, gain, precision, innovation = x
        h = as_lanes(form.observation(t), dt)
        slope = slope + h[:, None] * (innovation * precision - _dot(gain, slope))
        told = _dot(gain, curvature)
        cross = h[:, None] * told
        curvature = curvature - cross - jnp.swapaxes(cross, 0, 1) + h[:, None] * h * (_dot(gain, told) + precision)
        a = form.transition(dt)
        return (transpose_multiply(a, slope), multiply(transpose_multiply(a, curvature), a)), (slope, curvature)

    def absorb(element, x):
        passage, future = element
        dt, t, gain, _, _ = x
        h = as_lanes(form.observation(t), dt)
        passage = transpose_multiply(form.transition(dt), passage - h[:, None] * _dot(gain, passage))
        return passage, step(future, x)[0]

    def combine(later, earlier):
        passage, (slope, curvature) = earlier
        slope = slope + passage @ later[1][0]
        curvature = curvature + passage @ later[1][1] @ _transpose(passage)
        return passage @ later[0], (slope, curvature)

    unit = (jnp.eye(size, dtype=dtype), nothing)
    elements = lanes_first(summarise(absorb, unit, xs, block_length, reverse=True))
    after, _ = prefixes(combine, unit, elements, parallel=parallel, reverse=True)
    return run(step, lanes_last(after[1]), xs, block_length, reverse=True)


def _stretches(form, series, block_length):
    """Returns the `Stretch` of each block, lanes first."""
    size, outputs, dtype = form.size, series.y.shape[1], series.y.dtype

    def absorb(carry, x):
        covariance, affine, products, constant = carry
        affine, covariance, h = _moved(form, x, affine, covariance)
        seen = along(h, affine)
        slope, offset = seen[:size], seen[size:] - x.y
        gain, g, precision, variance = _gain(h, covariance, x)
        innovation = jnp.concatenate([slope, offset])
        covariance = covariance - gain[:, None] * g
        affine = affine - gain[:, None] * innovation
        products = products + innovation[:, None] * (precision * slope)
        constant = constant - (
            precision * jnp.sum(offset**2, 0) / 2 + x.weight * outputs / 2 * jnp.log(2 * math.pi * variance)
        )
        return covariance, affine, products, constant

    affine = jnp.concatenate([jnp.eye(size, dtype=dtype), jnp.zeros((size, outputs), dtype)], 1)
    unit = (jnp.zeros((size, size), dtype), affine, jnp.zeros((size + outputs, size), dtype), jnp.zeros((), dtype))
    covariance, affine, products, constant = lanes_first(summarise(absorb, unit, series, block_length))
    return Stretch(
        affine[..., :size],
        affine[..., size:],
        covariance,
        -_transpose(products[:, size:]),
        products[:, :size],
        constant,
    )


def _nothing_before(form, series):
    """Returns the stretch that ends in the prior, whatever came before."""
    size, outputs, dtype = form.size, series.y.shape[1], series.y.dtype
    square, columns = jnp.zeros((size, size), dtype), jnp.zeros((size, outputs), dtype)
    return Stretch(square, columns, form.covariance, columns, square, jnp.zeros((), dtype))


def _combine(first, second):
    """Returns the stretch of both: the state between them is integrated out."""
    m1, b1, c1, eta1, j1, constant1 = first
    m2, b2, c2, eta2, j2, constant2 = second
    size, outputs = b1.shape[-2:]
    matrix = jnp.eye(size, dtype=c1.dtype) + c1 @ j2
    lu, _, order = jax.lax.linalg.lu(matrix)
    right = jnp.concatenate([m1, c1, b1 + c1 @ eta2], -1)
    right = jnp.take_along_axis(right, order[..., None], -2)
    right = jax.lax.linalg.triangular_solve(lu, right, left_side=True, lower=True, unit_diagonal=True)
    right = jax.lax.linalg.triangular_solve(lu, right, left_side=True, lower=False)
    moved, covariance, offset = right[..., :size], right[..., size : 2 * size], right[..., 2 * size :]
    covariance = (covariance + _transpose(covariance)) / 2
    log_determinant = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(lu, axis1=-2, axis2=-1))), -1)
    told = eta2 - j2 @ b1
    back = _transpose(moved)
    exponent = jnp.sum(told * (covariance @ told) + b1 * (eta2 + told), (-2, -1))
    return Stretch(
        m2 @ moved,
        m2 @ offset + b2,
        m2 @ covariance @ _transpose(m2) + c2,
        back @ told + eta1,
        back @ j2 @ m1 + j1,
        constant1 + constant2 + (exponent - outputs * log_determinant) / 2,
    )


def _moved(form, x, columns, covariance):
    """Returns columns and covariance at the time of x, before its observation, and the observation's h."""
    a = form.transition(x.dt)
    covariance = multiply_transposed(multiply(a, covariance), a) + form.noise(x.dt)
    return multiply(a, columns), covariance, form.observation(x.t)


def _gain(h, covariance, x):
    """Returns K, `g = C h`, `weight / S` and S (1 where nothing is observed)."""
    g = along(h, covariance)
    variance = jnp.where(x.weight > 0, along(h, g) + x.noise, 1)
    precision = x.weight / variance
    return g * precision, g, precision, variance


def _dot(a, b):
    """Returns the inner products of a `[m, lanes]` with the columns of b `[m, ..., lanes]`, summed over m."""
    return sum(a[i] * b[i] for i in range(len(a)))


def _transpose(a):
    return jnp.swapaxes(a, -1, -2)
