"""A sampler as a table: what each network call does to the state, as coefficients worked out ahead in float64.

Almost every published sampler is linear in what it has seen. With x the state, X a second state that is kept (the start
of a step of several calls), m_j the last predictions of x_0 and e_j those of eps, newest first, and z fresh noise,
call n is

    x^ = before_scale_n x + before_noise_n z
    m_0, e_0 = prediction(x^, t_n)
    x' = a x^ + A X + sum_j b_j m_j + sum_j c_j e_j + s z          (the row `update`)
    X' = the same with other coefficients                          (the row `keep`)

so that one `lax.scan` runs them all, and a sampler is the NumPy function that fills the table. Columns that are 0
throughout are dropped before compilation.
"""

from dataclasses import dataclass, fields, replace

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.typing import Any, Array, Callable, PRNGKey


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Row:
    """Coefficients of one linear combination at each of C calls; None is 0.

    Args:
      x: of the state x^, `[C]`.
      anchor: of the kept state X, `[C]`.
      x0: of the predictions of x_0, newest first, `[C, k]`.
      eps: of the predictions of eps, newest first, `[C, k]`.
      noise: of z, `[C]`.
    """

    x: Any = None
    anchor: Any = None
    x0: Any = None
    eps: Any = None
    noise: Any = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Plan:
    """A sampler's table of C network calls.

    Args:
      times, alphas, sigmas: the noise level at which the network is asked, `[C]`.
      update: what x becomes.
      keep: what X becomes; None where the sampler keeps nothing.
      before_scale, before_noise: what is done to x before the call; None for nothing.
      variance_range: the logarithms of the least and the greatest noise variance, `[C]` each, between which a network
        that learned it chooses; `update.noise` is then 0 or 1.
      end_alphas: alpha of x after the call, `[C]`; for reading trajectories.
    """

    times: Any
    alphas: Any
    sigmas: Any
    update: Row
    keep: Row | None = None
    before_scale: Any = None
    before_noise: Any = None
    variance_range: Any = None
    end_alphas: Any = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trajectory:
    """What happened at each of C network calls.

    Args:
      states: x after the call, `[C, *shape]`.
      inputs: x at which the network was asked, `[C, *shape]`.
      x0: the prediction of x_0, after thresholding, `[C, *shape]`.
      times: at which it was asked, `[C]`.
      alphas, sigmas: the noise level of `inputs`, `[C]`.
    """

    states: Array
    inputs: Array
    x0: Array
    times: Array
    alphas: Array
    sigmas: Array


def stack_rows(rows: list[dict[str, Any]]) -> Row:
    """Returns the row of C calls from dicts of the coefficients of each; lists `x0` and `eps` are filled up with 0."""

    def column(name):
        if name in ("x0", "eps"):
            length = max(len(row.get(name, ())) for row in rows)
            return np.array([[*row.get(name, ()), *[0.0] * (length - len(row.get(name, ())))] for row in rows])
        return np.array([row.get(name, 0.0) for row in rows])

    return Row(*(column(field.name) for field in fields(Row)))


def compact(plan: Plan, dtype: Any) -> Plan:
    """Returns the plan with columns of zeros dropped, in `dtype`; times are of float32 at least.

    Raises:
      ConfigError: coefficients that are not finite, as where f and g have a pole on the grid.
    """
    for row in (plan.update, plan.keep):
        for coefficients in jax.tree.leaves(row):
            good = np.isfinite(coefficients.reshape(len(plan.times), -1)).all(1)
            if not good.all():
                at = plan.times[np.argmin(good)]
                raise ConfigError(
                    f"grid: the sampler has a pole at time {at:g}; give a smaller t_max or another sampler"
                )

    def column(values, neutral=0.0):
        return None if values is None or np.all(values == neutral) else np.asarray(values, dtype)

    def history(values):
        if values is None or not np.any(values):
            return None
        length = int(np.flatnonzero(np.any(values != 0, axis=0))[-1]) + 1
        return np.asarray(values[:, :length], dtype)

    def row(given):
        if given is None:
            return None
        return Row(column(given.x), column(given.anchor), history(given.x0), history(given.eps), column(given.noise))

    learned = plan.variance_range is not None and np.any(plan.update.noise)
    anchored = plan.keep is not None and np.any(plan.update.anchor)
    return Plan(
        np.asarray(plan.times, jnp.promote_types(dtype, jnp.float32)),
        np.asarray(plan.alphas, dtype),
        np.asarray(plan.sigmas, dtype),
        row(plan.update),
        row(plan.keep) if anchored else None,
        column(plan.before_scale, 1.0),
        column(plan.before_noise),
        tuple(np.asarray(v, dtype) for v in plan.variance_range) if learned else None,
        None,
    )


def uses_noise(plan: Plan) -> bool:
    """Returns whether any call of a compact plan takes noise."""
    keeps = plan.keep is not None and plan.keep.noise is not None
    return plan.update.noise is not None or plan.before_noise is not None or keeps


def run_plan(
    key: PRNGKey,
    predict: Callable,
    plan: Plan,
    x: Array,
    *,
    noise: Array | None = None,
    record: bool = False,
    on_call: Callable[[Array], None] | None = None,
) -> tuple[Array, Trajectory | None]:
    """Returns x after all calls of a compact plan, and what happened where `record` asks for it.

    Args:
      key: of the noise.
      predict: `(x, t, alpha, sigma) -> x0, eps, fraction`; fraction is None, or between -1 and 1 for a network that
        learned its variance. One with `remembers` is given its last x0 too, zeros at first.
      plan: of `compact`.
      x: the start, `[n, ...]`.
      noise: `[C, *x.shape]` in place of drawn noise; a call that takes none passes over its own.
      record: whether to return a `Trajectory`.
      on_call: called with the number of each call as it begins.
    """
    calls = len(plan.times)
    remembers = getattr(predict, "remembers", False)
    depth_x0 = max(_depth(plan, "x0"), int(remembers))
    depth_eps = _depth(plan, "eps")
    noisy = uses_noise(plan)

    def call(carry, step):
        state, anchor, x0s, epss = carry
        row, number, given = step
        if on_call is not None:
            on_call(number)
        z = given
        if noisy and given is None:
            z = jax.random.normal(jax.random.fold_in(key, number), x.shape, x.dtype)
        if row.before_scale is not None:
            state = row.before_scale * state
        if row.before_noise is not None:
            state = state + row.before_noise * z
        x0, eps, fraction = predict(state, row.times, row.alphas, row.sigmas, *x0s[:remembers])
        x0s, epss = _push(x0, x0s, depth_x0), _push(eps, epss, depth_eps)
        if row.variance_range is not None:
            low, high = row.variance_range
            z = z * jnp.exp((low + (fraction + 1) / 2 * (high - low)) / 2)
        new = combine(row.update, state, anchor, x0s, epss, z)
        if plan.keep is not None:
            anchor = combine(row.keep, state, anchor, x0s, epss, z)
        seen = (new, state, x0) if record else None
        return (new, anchor, x0s, epss), seen

    empty_x0 = tuple(jnp.zeros_like(x) for _ in range(depth_x0))
    empty_eps = tuple(jnp.zeros_like(x) for _ in range(depth_eps))
    start = (x, x if plan.keep is not None else None, empty_x0, empty_eps)
    steps = (replace(plan), jnp.arange(calls), noise if noisy else None)
    (x, *_), seen = jax.lax.scan(call, start, steps)
    if not record:
        return x, None
    return x, Trajectory(*seen, plan.times, plan.alphas, plan.sigmas)


def combine(row: Row, x: Array, anchor: Any, x0s: tuple, epss: tuple, z: Any) -> Array:
    """Returns the linear combination of one call's row: of the state, the kept state, predictions and noise."""
    terms = []
    if row.x is not None:
        terms.append(row.x * x)
    if row.anchor is not None:
        terms.append(row.anchor * anchor)
    for column, values in ((row.x0, x0s), (row.eps, epss)):
        if column is not None:
            terms += [column[j] * values[j] for j in range(column.shape[0])]
    if row.noise is not None:
        terms.append(row.noise * z)
    return sum(terms[1:], terms[0])


def _depth(plan, name):
    columns = [getattr(row, name) for row in (plan.update, plan.keep) if row is not None]
    return max((column.shape[1] for column in columns if column is not None), default=0)


def _push(value, values, depth):
    return (value, *values[: depth - 1]) if depth else ()
