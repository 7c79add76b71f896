"""Exact inference in O(n) for Markov kernels of one coordinate, by Kalman filtering and smoothing.

The kernel is written as a linear stochastic differential equation (`aijax.kernels.state_space`), the data are filtered
forwards and their influence carried backwards (`aijax.gp.kalman`). At a new time t between two data times the state is

    m = A mean_before,   C = A C_before A^T + Q,   rho = A'^T rho_after,   N = A'^T N_after A'
    E f(t) = h^T (m + C rho),     var f(t) = h^T (C - C N C) h

with A over the time since the datum before and A' over the time to the datum after: predictions need no further pass
over the data. The covariance of two new times follows from how errors of the filter pass on (de Jong 1989; Durbin and
Koopman 2012, section 4.7); joint samples are prior samples, made exactly in O(n), corrected by the same solve of their
residuals (Matheron's rule; Durbin and Koopman 2002). Hartikainen and Sarkka 2010; Sarkka and Solin 2019, chapter 12.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, DataError
from aijax.gp.kalman import Moments, Series, log_density, smoothing
from aijax.gp.kalman_joint import joint_moments, sample_path, state_at
from aijax.gp.model import GP, Evidence, prior_mean
from aijax.gp.observations import residuals
from aijax.kernels import markov
from aijax.known import known
from aijax.linalg.vectors import check_count
from aijax.parameters import noun, static
from aijax.typing import Any, Array, PRNGKey


@noun
class StateSpace:
    """Exact inference for a Markov kernel of one coordinate: O(n) operations and memory.

    Points are times `[n]` or `[n, 1]`, in any order (times that are not sorted are sorted first), repeated or not. The
    noise may differ between points, targets may be missing, and there may be several outputs. Kernels: those of
    `aijax.kernels.markov`.

    Args:
      parallel: join blocks of time by an associative scan, in about log2(n) dependent steps: for accelerators. The
        default joins them one after the other, in fewer operations.
      block_length: times in a block, which are filtered one after the other while the blocks run side by side; default
        about sqrt(n), or 1 where `parallel`. n is the plain sequential filter, which holds out longest where there is
        next to no noise and times nearly coincide.

    Raises:
      ConfigError: a kernel that is not Markov (named), points of several coordinates.
      DataError: two targets at one time without noise.

    Source: Hartikainen and Sarkka 2010; Sarkka and Garcia-Fernandez 2021.

    >>> from aijax import gp, kernels
    >>> posterior = gp.condition(gp.GP(kernels.Matern32()), jnp.zeros(1), jnp.ones(1), solver=StateSpace())
    >>> round(float(gp.predict(posterior, jnp.zeros(1))[0][0]), 4)
    0.9091
    """

    parallel: bool = static(False)
    block_length: int | None = static(None)

    def check(self):
        if self.block_length is not None:
            check_count("block_length", self.block_length)

    def evidence(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> Evidence:
        data = _data(gp, x, y, observed)
        value = _evidence(gp.kernel, *data, self._blocks(len(data[0])), self.parallel)
        converged = jnp.isfinite(value)
        _refuse_unless(converged, data)
        return Evidence(value, converged=converged)

    def condition(
        self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None
    ) -> "StateSpacePosterior":
        data = _data(gp, x, y, observed)
        block_length = self._blocks(len(data[0]))
        series, moments = _condition(gp.kernel, *data, block_length, self.parallel)
        converged = jnp.isfinite(moments.mean).all() & jnp.isfinite(moments.slope).all()
        _refuse_unless(converged, data)
        return StateSpacePosterior(gp, series, moments, converged, jnp.ndim(y) == 1, block_length, self.parallel)

    def _blocks(self, n):
        default = 1 if self.parallel else math.isqrt(n - 1) + 1
        return min(n, default if self.block_length is None else self.block_length)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["gp", "series", "moments", "converged"],
    meta_fields=["single", "block_length", "parallel"],
)
@dataclass(frozen=True)
class StateSpacePosterior:
    """`p(f | y)`, at any times.

    Args:
      gp: the prior.
      series: the data in order of time; y less the prior mean, the noise with what is white in the kernel.
      moments: of the state at each datum (`aijax.gp.kalman.smoothing`).
      converged: False where a variance was not positive.
      single: whether y was `[n]`.
      block_length, parallel: of the solver.
    """

    gp: GP
    series: Series
    moments: Moments
    converged: Array
    single: bool
    block_length: int
    parallel: bool

    def predict(self, x_new: Any, full_covariance: bool = False) -> tuple[Array, Array]:
        """Returns the mean of f at q times, `[q]` or `[q, p]`, and its variance `[q]` or covariance `[q, q]`."""
        mean, spread = (_joint if full_covariance else _marginal)(self, self._times(x_new))
        return self._shifted(mean, x_new), spread

    def sample(self, key: PRNGKey, x_new: Any, num_samples: int) -> Array:
        """Returns functions drawn jointly at q times, `[num_samples, q]` or `[num_samples, q, p]`, in O(n + q)."""
        check_count("num_samples", num_samples)
        draws = _samples(key, self, self._times(x_new), num_samples)
        return jax.vmap(lambda draw: self._shifted(draw, x_new))(draws)

    def _times(self, x_new):
        return _times(x_new).astype(self.series.t.dtype)

    def _shifted(self, values, x_new):
        shift = prior_mean(self.gp, x_new, len(values)).astype(values.dtype)
        values = values + (shift if shift.ndim == 2 else shift[:, None])
        return values[:, 0] if self.single else values


def _data(gp, x, y, observed):
    """Returns times, residuals `[n, p]`, noise variances and weights, each `[n]`, in the order given."""
    residual, noise, observed = residuals(gp, x, y, observed)
    times = _times(x)
    dtype = jnp.result_type(times, residual)
    weight = jnp.ones(len(times), dtype) if observed is None else observed.astype(dtype)
    return times.astype(dtype), residual.reshape(len(times), -1).astype(dtype), noise.astype(dtype), weight


def _times(x):
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ConfigError(f"x: expected floating times [n] or [n, 1], got {x.dtype}; convert them first")
    if x.ndim not in (1, 2) or x.shape[1:] not in ((), (1,)):
        raise ConfigError(f"x: StateSpace takes one coordinate, times [n] or [n, 1]; got an array of shape {x.shape}")
    return x.reshape(-1)


def _refuse_unless(converged, data):
    """Raises a `DataError` for a variance that is known to be not positive."""
    if known(converged) is False:
        times, _, noise, weight = (np.asarray(leaf) for leaf in data)
        gap = np.diff(np.sort(times[(weight > 0) & (noise == 0)]), prepend=-np.inf).min(initial=np.inf)
        raise DataError(
            "x: a target has no variance given those before it, or none that rounding leaves; expected a positive "
            f"gp.noise_variance (the closest two times without noise are {gap:.3g} apart)"
        )


def _form(kernel, dtype):
    form = markov(kernel, dtype)
    if not form.size:
        raise ConfigError("kernel: expected more than white noise, which says nothing of other times")
    return form


def _series(form, times, y, noise, weight):
    """Returns the data in order of time."""
    data = (times, y, noise, weight)

    def in_order(data):
        order = jnp.argsort(data[0])
        return tuple(leaf[order] for leaf in data)

    t, y, noise, weight = jax.lax.cond(jnp.all(times[1:] >= times[:-1]), lambda data: data, in_order, data)
    return Series(jnp.diff(t, prepend=t[:1]), t, y, noise + form.white(t), weight)


@functools.partial(jax.jit, static_argnames=("block_length", "parallel"))
def _evidence(kernel, times, y, noise, weight, block_length, parallel):
    form = _form(kernel, times.dtype)
    return log_density(form, _series(form, times, y, noise, weight), block_length, parallel)


@functools.partial(jax.jit, static_argnames=("block_length", "parallel"))
def _condition(kernel, times, y, noise, weight, block_length, parallel):
    form = _form(kernel, times.dtype)
    series = _series(form, times, y, noise, weight)
    return series, smoothing(form, series, block_length, parallel)


@jax.jit
def _marginal(posterior, times):
    """Returns mean `[q, p]` and variance `[q]` at q times."""
    form = _form(posterior.gp.kernel, times.dtype)
    state = state_at(form, posterior.series, posterior.moments, times)
    variance = jnp.sum(state.prior * (state.observation - state.told), 0)
    return state.mean.T, jnp.maximum(variance, 0) + form.white(times)


@jax.jit
def _joint(posterior, times):
    """Returns mean `[q, p]` and covariance `[q, q]`."""
    form = _form(posterior.gp.kernel, times.dtype)
    order = jnp.argsort(times)
    mean, covariance = joint_moments(
        form, posterior.series, posterior.moments, times[order], posterior.block_length, posterior.parallel
    )
    back = jnp.argsort(order)
    white = jnp.broadcast_to(form.white(times), times.shape)
    return mean.T[back], covariance[back][:, back] + jnp.diag(white)


@functools.partial(jax.jit, static_argnames="num_samples")
def _samples(key, posterior, times, num_samples):
    """Returns draws `[s, q, p]`: of the prior, plus the mean that conditioning gives for what they miss of y."""
    form, series = _form(posterior.gp.kernel, times.dtype), posterior.series
    blocks = posterior.block_length, posterior.parallel
    n, (_, outputs) = len(series.t), series.y.shape
    paths, errors, own = jax.random.split(key, 3)
    whole = jnp.concatenate([series.t, times])
    order = jnp.argsort(whole)
    path = sample_path(paths, form, whole[order], num_samples * outputs, *blocks)[jnp.argsort(order)]
    shape = (-1, num_samples, outputs)
    path, new = path[:n].reshape(shape), path[n:].reshape(shape)
    drawn = path + jnp.sqrt(series.noise)[:, None, None] * jax.random.normal(errors, path.shape, path.dtype)
    missed = series._replace(y=(series.y[:, None] - drawn).reshape(n, -1))
    state = state_at(form, missed, smoothing(form, missed, *blocks), times)
    white = jnp.sqrt(jnp.broadcast_to(form.white(times), times.shape))
    new = new + white[:, None, None] * jax.random.normal(own, new.shape, new.dtype)
    return jnp.moveaxis(new + state.mean.T.reshape(shape), 1, 0)
