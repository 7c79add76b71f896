"""Kernels of one coordinate as linear stochastic differential equations: what makes inference O(n).

A kernel is Markov where a state of m numbers, of covariance P at all times, carries everything that the past says:

    z(t') = A(t' - t) z(t) + noise of covariance Q(t' - t),     f(t) = h(t)^T z(t),     A P A^T + Q = P
    k(t, t') = h(t')^T A(t' - t) P h(t)                                                          for t <= t'

(Hartikainen and Sarkka 2010; Sarkka and Solin 2019, chapter 12). Sums stack states and products take their Kronecker
products (Solin and Sarkka 2014, section 3); a weight of t on the kernel goes to h. States are in units in which P is
near the identity, and Q is worked out so that its smallest entries, which go as high powers of a short step, are right
to the last digits: `P - A P A^T` would lose them.

A matrix for each of many steps is `[m, m, ...]`, the axes of the steps last.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.kernels.base import Kernel, Power, Product, Scaled, Sum
from aijax.kernels.change_point import ChangePoint
from aijax.kernels.constant import Constant, White
from aijax.kernels.dot_product import Linear, Polynomial
from aijax.kernels.oscillator import SHO, damped_waves
from aijax.kernels.periodic import Cosine
from aijax.kernels.stationary import Matern12, Matern32, Matern52
from aijax.kernels.transforms import Columns
from aijax.typing import Any, Array, Callable, Float


@dataclass(frozen=True)
class Markov:
    """A kernel's state-space form. Its functions take arrays of any shape `[...]`.

    Args:
      covariance: P, `[m, m]`.
      transition: of steps dt >= 0, A, `[m, m, ...]`.
      noise: of steps, Q, `[m, m, ...]`.
      observation: of times t, h: m entries, each `[...]` or one of the Python numbers 0 and 1.
      white: of times, the variance that is each point's own, `[...]` or 0.
    """

    covariance: Float[Array, "m m"]
    transition: Callable[[Array], Array]
    noise: Callable[[Array], Array]
    observation: Callable[[Array], tuple]
    white: Callable[[Array], Any] = lambda t: 0

    @property
    def size(self) -> int:
        """m; 0 for white noise alone."""
        return len(self.covariance)


@functools.singledispatch
def markov(kernel: Any, dtype: Any = float) -> Markov:
    """Returns the state-space form of a kernel of one coordinate.

    Known are Matern12, Matern32, Matern52, SHO, Cosine, Constant, Linear, Polynomial, White and what sums, products,
    powers, scalings and change-points make of them. Another kernel is made known by
    `markov.register(Type, lambda kernel, dtype: Markov(...))`.

    Args:
      kernel: a kernel whose parameters are numbers (or arrays of one).
      dtype: of the matrices.

    Raises:
      ConfigError: a kernel that is not known to be Markov, in or as `kernel`; a parameter for several coordinates.

    >>> markov(Matern32() + Constant()).size
    3
    """
    raise ConfigError(
        f"kernel: {type(kernel).__name__} has no state-space form of finite size, which StateSpace needs; expected "
        "Matern12, Matern32, Matern52, SHO, Cosine, Constant, Linear, Polynomial, White, or sums and products of them"
    )


@markov.register
def _(kernel: Matern12, dtype=float):
    rate, variance = 1 / _number(kernel, "lengthscale", dtype), _number(kernel, "variance", dtype)
    return Markov(
        variance * jnp.eye(1, dtype=dtype),
        lambda dt: jnp.exp(-rate * dt)[None, None],
        lambda dt: -variance * jnp.expm1(-2 * rate * dt)[None, None],
        lambda t: (1,),
    )


@markov.register
def _(kernel: Matern32, dtype=float):
    rate, variance = math.sqrt(3) / _number(kernel, "lengthscale", dtype), _number(kernel, "variance", dtype)

    def transition(dt):
        s = rate * dt
        return jnp.exp(-s) * _matrix([[1 + s, s], [-s, 1 - s]])

    def noise(dt):
        z = 2 * rate * dt
        fade = jnp.exp(-z)
        q11 = exponential_tail(3, z)
        q12 = fade * z**2 / 2
        q22 = -jnp.expm1(-z) + fade * z * (1 - z / 2)
        return variance * _matrix([[q11, q12], [q12, q22]])

    return Markov(variance * jnp.eye(2, dtype=dtype), transition, noise, lambda t: (1, 0))


@markov.register
def _(kernel: Matern52, dtype=float):
    rate, variance = math.sqrt(5) / _number(kernel, "lengthscale", dtype), _number(kernel, "variance", dtype)
    covariance = variance * jnp.array([[1, 0, -1 / 3], [0, 1 / 3, 0], [-1 / 3, 0, 1]], dtype)

    def transition(dt):
        s = rate * dt
        half = s**2 / 2
        rows = [[1 + s + half, s + 2 * half, half], [-half, 1 + s - 2 * half, s - half]]
        return jnp.exp(-s) * _matrix([*rows, [half - s, 2 * half - 3 * s, 1 - 2 * s + half]])

    def noise(dt):
        s = rate * dt
        z = 2 * s
        fade = jnp.exp(-z)
        p5 = exponential_tail(5, z)
        p4 = p5 + fade * z**4 / 24
        p3 = p4 + fade * z**3 / 6
        p2 = p3 + fade * z**2 / 2
        p1 = p2 + fade * z
        q12 = 2 / 3 * s**4 * fade
        q13 = 2 / 3 * p3 - 2 * p4 + p5
        q22 = 4 / 3 * p3 - 2 * p4 + p5
        q23 = 8 / 3 * (s - s**2 / 2) ** 2 * fade
        q33 = 8 / 3 * p1 - 16 / 3 * p2 + 20 / 3 * p3 - 4 * p4 + p5
        return variance * _matrix([[p5, q12, q13], [q12, q22, q23], [q13, q23, q33]])

    return Markov(covariance, transition, noise, lambda t: (1, 0, 0))


@markov.register
def _(kernel: SHO, dtype=float):
    frequency, quality, variance = (_number(kernel, n, dtype) for n in ("angular_frequency", "quality", "variance"))
    damping = 1 / (2 * quality)
    series = _noise_series(damping)
    rate = jnp.maximum(2, 4 * damping)

    def transition(dt):
        cosine, sine = damped_waves(frequency * dt, damping)
        return _matrix([[cosine + damping * sine, sine], [-sine, cosine - damping * sine]])

    def noise(dt):
        s = frequency * dt
        cosine, sine = damped_waves(s, damping)
        a11, a22 = cosine + damping * sine, cosine - damping * sine
        q11, q12, q22 = 1 - a11**2 - sine**2, sine * (a11 - a22), 1 - sine**2 - a22**2
        # for short steps these differences lose their digits
        short = rate * s < 1
        near = _powers(series, jnp.where(short, s, 0))
        q11, q12, q22 = (jnp.where(short, q, p) for q, p in zip(near, (q11, q12, q22), strict=True))
        return variance * _matrix([[q11, q12], [q12, q22]])

    return Markov(variance * jnp.eye(2, dtype=dtype), transition, noise, lambda t: (1, 0))


@markov.register
def _(kernel: Cosine, dtype=float):
    frequency, variance = 2 * math.pi / _number(kernel, "period", dtype), _number(kernel, "variance", dtype)

    def transition(dt):
        cosine, sine = jnp.cos(frequency * dt), jnp.sin(frequency * dt)
        return _matrix([[cosine, sine], [-sine, cosine]])

    return _noiseless(variance * jnp.eye(2, dtype=dtype), transition, lambda t: (1, 0))


@markov.register
def _(kernel: Constant, dtype=float):
    return _still(_number(kernel, "variance", dtype) * jnp.eye(1, dtype=dtype), lambda t: (1,))


@markov.register
def _(kernel: Linear, dtype=float):
    return _still(_number(kernel, "variance", dtype) * jnp.eye(1, dtype=dtype), lambda t: (t,))


@markov.register
def _(kernel: Polynomial, dtype=float):
    gamma, coef0, degree = _number(kernel, "gamma", dtype), _number(kernel, "coef0", dtype), kernel.degree
    weights = [math.comb(degree, k) * gamma**k * coef0 ** (degree - k) for k in range(degree + 1)]
    return _still(jnp.diag(jnp.stack(weights)), lambda t: (1, *(t**k for k in range(1, degree + 1))))


@markov.register
def _(kernel: White, dtype=float):
    variance = _number(kernel, "variance", dtype)
    empty = jnp.zeros((0, 0), dtype)
    return Markov(empty, _zeros(empty), _zeros(empty), lambda t: (), lambda t: jnp.broadcast_to(variance, t.shape))


@markov.register
def _(kernel: Sum, dtype=float):
    return _stack([markov(k, dtype) for k in kernel.kernels])


@markov.register
def _(kernel: Product, dtype=float):
    return functools.reduce(_multiply, [markov(k, dtype) for k in kernel.kernels])


@markov.register
def _(kernel: Power, dtype=float):
    return functools.reduce(_multiply, [markov(kernel.kernel, dtype)] * kernel.exponent)


@markov.register
def _(kernel: Scaled, dtype=float):
    variance, form = _number(kernel, "variance", dtype), markov(kernel.kernel, dtype)
    return Markov(
        variance * form.covariance,
        form.transition,
        lambda dt: variance * form.noise(dt),
        form.observation,
        lambda t: variance * form.white(t),
    )


@markov.register
def _(kernel: ChangePoint, dtype=float):
    if kernel.column != 0:
        raise ConfigError(f"column: expected 0, the one coordinate, got {kernel.column!r}")
    location, steepness = _number(kernel, "location", dtype), _number(kernel, "steepness", dtype)

    def weighted(kernel, sign):
        form = markov(kernel, dtype)

        def weight(t):
            return jax.nn.sigmoid(sign * steepness * (t - location))

        return Markov(
            form.covariance,
            form.transition,
            form.noise,
            lambda t: tuple(_times(weight(t), entry) for entry in form.observation(t)),
            lambda t: weight(t) ** 2 * form.white(t),
        )

    return _stack([weighted(kernel.before, -1), weighted(kernel.after, 1)])


@markov.register
def _(kernel: Columns, dtype=float):
    if kernel.columns != (0,):
        raise ConfigError(f"columns: expected (0,), the one coordinate, got {kernel.columns}")
    return markov(kernel.kernel, dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def exponential_tail(order: int, z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `1 - e^-z sum_(j < order) z^j / j!` to full relative accuracy: as z^order / order! for small z.

    >>> float(exponential_tail(3, jnp.array(0.0)))
    0.0
    """
    near = jnp.minimum(z, 2)
    series = jnp.ones_like(z)
    for j in range(20, 0, -1):
        series = 1 + series * near / (order + j)
    below = sum(z**j / math.factorial(j) for j in range(order))
    return jnp.where(z < 2, jnp.exp(-z) * near**order / math.factorial(order) * series, 1 - jnp.exp(-z) * below)


@exponential_tail.defjvp
def _exponential_tail_jvp(order, primals, tangents):
    (z,), (dz,) = primals, tangents
    return exponential_tail(order, z), jnp.exp(-z) * z ** (order - 1) / math.factorial(order - 1) * dz


def _noise_series(damping, terms=18):
    """Returns the coefficients of `s^k`, k = 1, 2, ..., of Q's three entries, for w = 1 and variance 1.

    From `dQ/ds = F Q + Q F^T + diag(0, 4 a)`, F = [[0, 1], [-1, -2 a]]: each derivative follows from the one before.
    """
    rows = [(0.0, 0.0, 4 * damping)]
    for _ in range(terms - 1):
        q11, q12, q22 = rows[-1]
        rows.append((2 * q12, q22 - q11 - 2 * damping * q12, -2 * q12 - 4 * damping * q22))
    return [[entry / math.factorial(k) for entry in row] for k, row in enumerate(rows, 1)]


def _powers(series, s):
    """Returns `sum_k series[k - 1] s^k` for each entry."""
    totals = [jnp.zeros_like(s)] * 3
    for row in reversed(series):
        totals = [(total + entry) * s for total, entry in zip(totals, row, strict=True)]
    return totals


def _stack(forms):
    """Returns the form of the sum of independent processes."""

    def diagonal(blocks):
        steps = blocks[0].shape[2:]
        size = sum(len(block) for block in blocks)
        rows, start = [], 0
        for block in blocks:
            left = jnp.zeros((len(block), start, *steps), block.dtype)
            start += len(block)
            right = jnp.zeros((len(block), size - start, *steps), block.dtype)
            rows.append(jnp.concatenate([left, block, right], 1))
        return jnp.concatenate(rows)

    return Markov(
        diagonal([form.covariance for form in forms]),
        lambda dt: diagonal([form.transition(dt) for form in forms]),
        lambda dt: diagonal([form.noise(dt) for form in forms]),
        lambda t: sum((form.observation(t) for form in forms), ()),
        lambda t: sum(form.white(t) for form in forms),
    )


def _multiply(first, second):
    """Returns the form of the product of independent processes; white noise times a process is white noise."""

    def noise(dt):
        q1, q2 = first.noise(dt), second.noise(dt)
        p1, p2 = (p.reshape(*p.shape, *(1,) * dt.ndim) for p in (first.covariance, second.covariance))
        return _kronecker(q1, jnp.broadcast_to(p2, q2.shape)) + _kronecker(p1 - q1, q2)

    def white(t):
        w1, w2 = first.white(t), second.white(t)
        return w1 * _variance(second, t) + _variance(first, t) * w2 + w1 * w2

    return Markov(
        _kronecker(first.covariance, second.covariance),
        lambda dt: _kronecker(first.transition(dt), second.transition(dt)),
        noise,
        lambda t: tuple(_times(a, b) for a in first.observation(t) for b in second.observation(t)),
        white,
    )


def _kronecker(a, b):
    product = a[:, None, :, None] * b[None, :, None, :]
    return product.reshape(len(a) * len(b), len(a) * len(b), *a.shape[2:])


def _variance(form, t):
    """Returns `h(t)^T P h(t)`, the variance of the smooth part."""
    entries = form.observation(t)
    return sum(
        _times(form.covariance[i, j], _times(a, b)) for i, a in enumerate(entries) for j, b in enumerate(entries)
    )


def _times(a, b):
    """Returns a b; entries that are the Python numbers 0 and 1 stay so, so that no work is done for them."""
    if isinstance(a, int):
        return b if a == 1 else 0
    if isinstance(b, int):
        return a if b == 1 else 0
    return a * b


def _noiseless(covariance, transition, observation):
    return Markov(covariance, transition, _zeros(covariance), observation)


def _still(covariance, observation):
    """Returns the form of a state that does not change: features `observation(t)` with random weights."""

    def identity(dt):
        eye = jnp.eye(len(covariance), dtype=covariance.dtype)
        return jnp.broadcast_to(eye.reshape(*eye.shape, *(1,) * dt.ndim), (*eye.shape, *dt.shape))

    return _noiseless(covariance, identity, observation)


def _zeros(covariance):
    return lambda dt: jnp.zeros((*covariance.shape, *dt.shape), covariance.dtype)


def _matrix(rows):
    return jnp.stack([jnp.stack(row) for row in rows])


def _number(kernel: Kernel, name: str, dtype: Any) -> Array:
    value = jnp.asarray(getattr(kernel, name), dtype)
    if value.size != 1:
        raise ConfigError(f"{name}: expected a number for a kernel of one coordinate, got {value.shape}")
    return value.reshape(())
