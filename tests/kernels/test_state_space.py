"""State-space forms give their kernels back, and their noise is right to the last digits for short steps."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import kernels as k
from aijax.errors import ConfigError
from aijax.kernels.state_space import exponential_tail

KERNELS = {
    "matern12": k.Matern12(0.7, 1.3),
    "matern32": k.Matern32(0.7, 1.3),
    "matern52": k.Matern52([0.7], 1.3),
    "underdamped": k.SHO(1.3, 5.0, 0.8),
    "critical": k.SHO(1.3, 0.5, 0.8),
    "overdamped": k.SHO(1.3, 0.02, 0.8),
    "cosine": k.Cosine(1.3, 0.6),
    "constant": k.Constant(0.4),
    "linear": k.Linear(0.6),
    "polynomial": k.Polynomial(3, 0.5, 0.7),
    "white": k.White(0.3),
    "sum": 2.0 * k.Matern32() + k.Cosine() * k.Matern52() + k.White(0.1) * k.Linear(),
    "power": k.Matern12() ** 3,
    "changepoint": k.ChangePoint(k.Matern32(), k.Matern12(0.3) + k.White(0.2), 0.3, 2.0),
    "product": (k.Matern12() + k.White(0.2)) * (k.Constant() + k.Matern32()),
    "columns": k.Columns(k.Matern12(), 0),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_form_is_the_kernel(name):
    t = jnp.asarray(np.sort(np.random.default_rng(0).uniform(-3, 3, 9)))
    form = k.markov(KERNELS[name])

    @jax.jit
    def both(t):
        dt = jnp.abs(t[:, None] - t)
        a, p = form.transition(dt), form.covariance
        rest = jnp.einsum("abij,bc,dcij->adij", a, p, a) + form.noise(dt) - p[:, :, None, None]
        h = [jnp.broadcast_to(jnp.asarray(entry, t.dtype), t.shape) for entry in form.observation(t)]
        h = jnp.stack(h) if h else jnp.zeros((0, len(t)))
        lower = jnp.tril(jnp.einsum("ai,abij,bc,cj->ij", h, a, p, h))
        white = jnp.broadcast_to(jnp.asarray(form.white(t), t.dtype), t.shape)
        return rest, lower + jnp.tril(lower, -1).T + jnp.diag(white)

    rest, covariance = both(t)
    np.testing.assert_allclose(rest, 0, atol=1e-13)
    np.testing.assert_allclose(covariance, KERNELS[name](t), rtol=1e-12, atol=1e-13)


MATERN32 = ([[0, 1], [-1, -2]], Fraction(4), k.Matern32(3**0.5))
MATERN52 = ([[0, 1, 0], [0, 0, 1], [-1, -3, -3]], Fraction(16, 3), k.Matern52(5**0.5))


def oscillator(quality):
    return [[0, 1], [-1, -1 / Fraction(quality)]], 2 / Fraction(quality), k.SHO(1.0, quality)


@pytest.mark.parametrize("drift, density, kernel", [MATERN32, MATERN52, *map(oscillator, (8.0, 0.5, 0.25))])
def test_noise_of_short_and_long_steps_against_rational_arithmetic(drift, density, kernel):
    steps = [1e-6, 1e-3, 0.05, 0.24, 0.26, 0.49, 0.51, 0.99, 1.01, 2.5]
    got = np.asarray(k.markov(kernel).noise(jnp.array(steps)))
    for i, step in enumerate(steps):
        exact = rational_noise(drift, density, Fraction(step))
        scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
        np.testing.assert_allclose(got[..., i] / scale, exact / scale, rtol=0, atol=4e-14)


def rational_noise(drift, density, step, terms=120):
    """The series of `integral e^(F s) L density L^T e^(F s)^T ds`, L the last unit vector."""
    f = np.array([[Fraction(entry) for entry in row] for row in drift], dtype=object)
    term = np.zeros_like(f) + Fraction(0)
    term[-1, -1] = density
    total, power = np.zeros_like(term), Fraction(1)
    for order in range(1, terms):
        power *= step / order
        total = total + power * term
        term = f @ term + term @ f.T
    return total.astype(float)


def test_derivatives_are_finite_and_right_at_all_dampings_and_steps():
    steps = jnp.array([0.0, 1e-3, 0.3, 0.7, 40.0])

    def matrices(quality):
        form = k.markov(k.SHO(1.1, quality, 0.9))
        return jnp.stack([form.transition(steps), form.noise(steps)])

    @jax.jit
    @jax.vmap
    def both(quality):
        step = 1e-5
        numeric = (matrices(quality + step) - matrices(quality - step)) / (2 * step)
        return numeric, jax.jacrev(matrices)(quality)

    numeric, slopes = both(jnp.array([0.1, 0.5, 6.0]))
    np.testing.assert_allclose(slopes, numeric, rtol=1e-6, atol=1e-7)


def test_exponential_tail_and_its_derivative():
    z = jnp.array([0.0, 1e-8, 0.5, 1.999, 2.001, 30.0])

    @jax.jit
    def tails(z):
        return jnp.stack([exponential_tail(order, z) for order in (1, 3, 5)])

    numeric = (tails(z + 1e-6) - tails(z)) / 1e-6
    np.testing.assert_allclose(jax.jvp(tails, (z,), (jnp.ones_like(z),))[1], numeric, atol=2e-6)
    np.testing.assert_allclose(tails(jnp.array([1e-5]))[1], 1e-15 / 6, rtol=1e-5)


def test_kernels_that_are_not_markov_are_named():
    with pytest.raises(ConfigError, match="kernel: RBF has no state-space form of finite size"):
        k.markov(k.Matern12() + 2.0 * k.RBF())
    with pytest.raises(ConfigError, match="kernel: Periodic has no state-space form"):
        k.markov(k.Matern12() * k.Periodic())
    with pytest.raises(ConfigError, match=r"lengthscale: expected a number for a kernel of one coordinate, got \(2,\)"):
        k.markov(k.Matern32([1.0, 2.0]))
    with pytest.raises(ConfigError, match="column: expected 0, the one coordinate, got 1"):
        k.markov(k.ChangePoint(k.Matern12(), k.Matern12(), column=1))
    with pytest.raises(ConfigError, match=r"columns: expected \(0,\), the one coordinate, got \(1,\)"):
        k.markov(k.Columns(k.Matern12(), 1))
