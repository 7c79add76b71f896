"""The Lanczos process that conjugate gradients run through, and quadrature by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import linalg


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(30, 30)))
    return jnp.asarray(q * np.linspace(1, 20, 30) @ q.T), jnp.asarray(rng.normal(size=(30, 3)))


def test_cg_runs_through_the_lanczos_process_of_its_right_hand_side(problem):
    a, b = problem
    result = linalg.cg(lambda v: a @ v, b, columns=True, tolerance=1e-3, lanczos_steps=6)
    expected = linalg.lanczos(lambda v: a @ v, b, 6, columns=True)
    np.testing.assert_allclose(result.lanczos.tridiagonal(), expected.tridiagonal(), atol=1e-9)
    np.testing.assert_allclose(result.lanczos.norm, expected.norm)


def test_a_preconditioned_process_is_that_of_the_preconditioned_operator(problem):
    a, b = problem
    scale = jnp.linspace(0.5, 2.0, 30)
    one = linalg.cg(lambda v: a @ v, b[:, 0], preconditioner=lambda r: scale * r, lanczos_steps=5).lanczos
    root = jnp.sqrt(scale)
    expected = linalg.lanczos(lambda v: root * (a @ (root * v)), root * b[:, 0], 5)
    np.testing.assert_allclose(one.tridiagonal(), expected.tridiagonal(), atol=1e-9)
    np.testing.assert_allclose(one.norm, expected.norm)


def test_quadrature_of_the_logarithm_comes_from_above_and_ends_exact(problem):
    a, b = problem
    values, vectors = np.linalg.eigh(np.asarray(a))
    exact = ((vectors.T @ np.asarray(b)) ** 2 * np.log(values)[:, None]).sum(0)
    process = linalg.cg(lambda v: a @ v, b, columns=True, tolerance=1e-12, lanczos_steps=60).lanczos
    np.testing.assert_allclose(linalg.quadrature(jnp.log, process), exact, rtol=1e-9)
    for steps in (2, 5):
        few = linalg.cg(lambda v: a @ v, b, columns=True, max_iterations=steps, lanczos_steps=60).lanczos
        assert np.all(linalg.quadrature(jnp.log, few) > exact)


def test_a_right_hand_side_of_zero_has_a_process_of_zero(problem):
    a, b = problem
    process = linalg.cg(lambda v: a @ v, b.at[:, 1].set(0), columns=True, lanczos_steps=5).lanczos
    value = linalg.quadrature(jnp.log, process)
    assert float(value[1]) == 0 and np.isfinite(value).all()
