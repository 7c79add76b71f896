"""Solvers, eigenvalues, traces and factors against dense linear algebra in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax import linalg
from aijax.errors import ConfigError
from aijax.linalg.coupled_eigen import coupled_eigh


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def symmetric(values, seed=0):
    """A dense matrix with these eigenvalues, and its eigenvectors."""
    n = len(values)
    vectors, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return jnp.asarray(vectors @ np.diag(values) @ vectors.T), vectors


def as_tree(v):
    return {"a": v[:6].reshape(2, 3), "b": v[6:]}


def as_array(tree):
    return jnp.concatenate([tree["a"].ravel(), tree["b"]])


# conjugate gradients


def test_cg_solves_arrays_trees_and_columns():
    a, _ = symmetric(np.linspace(1, 50, 20))
    b = jnp.asarray(np.random.default_rng(1).normal(size=(20, 3)))
    exact = np.linalg.solve(a, b)
    one = jax.jit(lambda b: linalg.cg(lambda v: a @ v, b, tolerance=1e-12))(b[:, 0])
    np.testing.assert_allclose(one.solution, exact[:, 0], atol=1e-11)
    assert one.converged and one.residual <= 1e-12 and 1 < one.iterations <= 40
    tree = linalg.cg(lambda v: as_tree(a @ as_array(v)), as_tree(b[:, 0]), tolerance=1e-12)
    np.testing.assert_allclose(as_array(tree.solution), exact[:, 0], atol=1e-11)
    scaled = b * jnp.array([1.0, 1e-9, 0.0])
    many = linalg.cg(lambda v: a @ v, scaled, tolerance=1e-12, columns=True)
    assert many.converged.all() and many.iterations.shape == (3,) and many.iterations[2] == 0
    np.testing.assert_allclose(many.solution[:, :2] / scaled[0, :2], exact[:, :2] / b[0, :2], atol=1e-9)
    assert (many.solution[:, 2] == 0).all()


def test_cg_preconditioner_and_first_guess_save_iterations():
    a = jnp.diag(jnp.logspace(0, 6, 40)) + 0.1
    b = jnp.ones(40)
    plain = linalg.cg(lambda v: a @ v, b, tolerance=1e-10)
    helped = linalg.cg(lambda v: a @ v, b, tolerance=1e-10, preconditioner=lambda r: r / jnp.diag(a))
    assert helped.converged and helped.iterations < plain.iterations / 2
    again = linalg.cg(lambda v: a @ v, b, tolerance=1e-9, x0=helped.solution)
    assert again.iterations == 0 and again.converged


def test_cg_tells_what_it_did_not_reach():
    a, _ = symmetric(np.logspace(0, 8, 30))
    short = linalg.cg(lambda v: a @ v, jnp.ones(30), max_iterations=3)
    assert not short.converged and short.residual > 1e-6 and short.iterations == 3
    indefinite = linalg.cg(lambda v: -v, jnp.ones(3))
    assert not indefinite.converged and jnp.isfinite(indefinite.solution).all()
    broken = linalg.cg(lambda v: v * jnp.nan, jnp.ones(3))
    assert not broken.converged


def test_cg_of_a_singular_operator_gives_the_solution_of_least_norm():
    a = jnp.diag(jnp.array([2.0, 1.0, 0.0]))
    result = linalg.cg(lambda v: a @ v, jnp.array([2.0, 3.0, 0.0]))
    np.testing.assert_allclose(result.solution, [1.0, 3.0, 0.0], atol=1e-12)
    assert not linalg.cg(lambda v: a @ v, jnp.ones(3)).converged


def test_cg_derivatives_are_those_of_the_solution_and_vmap_works():
    a, _ = symmetric(np.linspace(1, 9, 8))
    b = jnp.arange(1.0, 9.0)

    def by_cg(a, b):
        return jnp.sum(jnp.sin(linalg.cg(lambda v: a @ v, b, tolerance=1e-13).solution))

    def by_solve(a, b):
        return jnp.sum(jnp.sin(jnp.linalg.solve(a, b)))

    for argument in (0, 1):
        ours, theirs = (jax.jit(jax.grad(f, argument))(a, b) for f in (by_cg, by_solve))
        np.testing.assert_allclose(ours, theirs, atol=1e-10)
    batch = jnp.stack([b, -2 * b])
    solved = jax.vmap(lambda b: linalg.cg(lambda v: a @ v, b, tolerance=1e-12))(batch)
    np.testing.assert_allclose(solved.solution, jnp.linalg.solve(a, batch.T).T, atol=1e-10)
    assert solved.converged.all()


def test_cg_in_float32_reaches_its_tolerance():
    with jax.enable_x64(False):
        a = symmetric(np.logspace(0, 2, 50))[0].astype(jnp.float32)
        result = linalg.cg(lambda v: jnp.matmul(a, v, precision="highest"), jnp.ones(50, jnp.float32))
        assert result.solution.dtype == jnp.float32 and result.converged


# Lanczos and functions of an operator


def test_lanczos_relation_and_orthogonality():
    a, _ = symmetric(np.concatenate([np.linspace(0, 1, 38), [50, 100]]))
    start = jnp.asarray(np.random.default_rng(2).normal(size=40))
    process = jax.jit(lambda s: linalg.lanczos(lambda v: a @ v, s, 30))(start)
    q, t = np.asarray(process.basis), np.asarray(process.tridiagonal())
    np.testing.assert_allclose(q @ q.T, np.eye(30), atol=1e-12)
    np.testing.assert_allclose(q @ a @ q.T, t, atol=1e-11)
    rest = a @ q.T - q.T @ t
    np.testing.assert_allclose(np.linalg.norm(rest, axis=0)[:-1], 0, atol=1e-11)
    np.testing.assert_allclose(np.linalg.norm(rest[:, -1]), process.beta[-1], rtol=1e-8)
    np.testing.assert_allclose(q[0] * process.norm, start, rtol=1e-12)


def test_lanczos_columns_are_processes_of_their_own_and_end_with_their_space():
    a, vectors = symmetric(np.linspace(1, 2, 12))
    start = jnp.stack([jnp.ones(12), jnp.asarray(vectors[:, 3])], axis=1)
    both = linalg.lanczos(lambda v: a @ v, start, 5, columns=True)
    alone = linalg.lanczos(lambda v: a @ v, start[:, 0], 5)
    np.testing.assert_allclose(both.alpha[:, 0], alone.alpha, rtol=1e-12)
    np.testing.assert_allclose(both.tridiagonal()[0], alone.tridiagonal(), rtol=1e-10, atol=1e-12)
    assert both.beta[0, 1] == 0 and (both.basis[1:, :, 1] == 0).all()


@pytest.mark.parametrize("columns", [False, True])
def test_functions_of_an_operator_with_an_error_estimate(columns):
    values = np.linspace(0, 20, 60)
    a, vectors = symmetric(values)
    b = jnp.asarray(np.random.default_rng(3).normal(size=(60, 2) if columns else 60))
    times = jnp.array([0.0, 0.1, 1.0])

    def decay(eigenvalues):
        return jnp.exp(-times[:, None] * eigenvalues)

    exact = np.stack([vectors @ (np.exp(-t * values)[:, None] * (vectors.T @ b.reshape(60, -1))) for t in times])
    for steps, low, high in ((30, 0, 1e-8), (6, 1e-4, 10)):
        apply = jax.jit(lambda b, m=steps: linalg.apply_function(decay, lambda v: a @ v, b, steps=m, columns=columns))
        result = apply(b)
        error = np.linalg.norm(result.value.reshape(exact.shape) - exact, axis=1)
        assert low <= error.max() < high and (error <= result.error.reshape(error.shape) + 1e-12).all()


# eigenvalues


@pytest.mark.parametrize(
    ("which", "expected"), [("largest", [9, 8.5, 8]), ("smallest", [-12, -1, -0.5]), ("magnitude", [-12, 9, 8.5])]
)
def test_eigsh_finds_the_end_that_is_asked_for(which, expected):
    values = np.concatenate([np.linspace(0, 7, 95), [8, 8.5, 9, -0.5, -1, -12]])
    a, _ = symmetric(values)
    pairs = jax.jit(lambda key: linalg.eigsh(lambda v: a @ v, key, 101, 3, which=which, tolerance=1e-9, subspace=20))(
        jax.random.key(0)
    )
    np.testing.assert_allclose(pairs.values, expected, atol=1e-7)
    assert pairs.converged.all() and pairs.restarts > 2
    u = np.asarray(pairs.vectors)
    np.testing.assert_allclose(u @ u.T, np.eye(3), atol=1e-10)
    residual = np.linalg.norm(a @ u.T - u.T * np.asarray(pairs.values), axis=0)
    bound = np.asarray(pairs.residuals)
    assert (residual <= bound + 1e-13).all() and (bound <= 2 * residual + 1e-12).all()
    nearest = np.abs(values[:, None] - np.asarray(pairs.values)).min(0)
    assert (nearest <= np.asarray(pairs.residuals) + 1e-13).all()


def test_eigsh_finds_every_copy_of_repeated_eigenvalues():
    values = np.concatenate([np.linspace(0, 1, 50), [5, 5, 5, 4, 4, 3]])
    a, _ = symmetric(values)
    multiply = jax.jit(lambda v: a @ v)
    for options in ({}, {"fresh_products": 8}, {"loop": "host"}):
        pairs = linalg.eigsh(multiply, jax.random.key(1), 56, 6, **options)
        np.testing.assert_allclose(pairs.values, [5, 5, 5, 4, 4, 3], atol=1e-5)
        assert pairs.converged.all()
    low_rank = jnp.zeros((80, 80)).at[0, 0].set(3.0)  # its Krylov space closes after two vectors
    np.testing.assert_allclose(
        linalg.eigsh(lambda v: low_rank @ v, jax.random.key(2), 80, 3).values, [3, 0, 0], atol=1e-12
    )


@functools.cache
def every_eigenvalue_of_five():
    return jax.jit(lambda a: linalg.eigsh(lambda v: a @ v, jax.random.key(5), 5, 5))


@settings(max_examples=20, deadline=None)
@given(entries=st.lists(st.integers(-2, 2), min_size=5, max_size=5))
def test_eigsh_of_small_matrices_is_complete(entries):
    with jax.enable_x64(True):
        a, _ = symmetric(np.asarray(entries, float), seed=5)
        pairs = every_eigenvalue_of_five()(a)
        np.testing.assert_allclose(pairs.values, sorted(entries, reverse=True), atol=1e-8)
        assert pairs.converged.all()


def test_eigsh_on_trees_and_its_derivative():
    a, _ = symmetric(np.array([1.0, 2, 3, 4, 5, 6, 8, 11, 15, 20]))

    def top(scale):
        def matvec(v):
            flat = as_array(v)
            return as_tree(a @ flat + scale * flat * jnp.arange(10.0))

        return linalg.eigsh(matvec, jax.random.key(0), as_tree(jnp.zeros(10)), 2).values

    def dense(scale):
        return jnp.linalg.eigvalsh(a + scale * jnp.diag(jnp.arange(10.0)))[::-1][:2]

    values, pullback = jax.vjp(top, 0.3)
    expected, expected_pullback = jax.vjp(dense, 0.3)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    weights = jnp.array([1.0, 3.0])
    np.testing.assert_allclose(pullback(weights)[0], expected_pullback(weights)[0], rtol=1e-6)


def test_eigsh_tells_what_it_did_not_reach():
    a, _ = symmetric(np.linspace(0, 1, 200))
    pairs = linalg.eigsh(lambda v: a @ v, jax.random.key(0), 200, 4, max_restarts=1, subspace=8, tolerance=1e-10)
    assert not pairs.converged.all() and pairs.restarts == 1


# traces


def test_hutchinson_trace_is_within_its_standard_error():
    a, _ = symmetric(np.linspace(1, 5, 50))
    estimate = jax.jit(lambda key: linalg.hutchinson_trace(lambda v: a @ v, key, 50, 64, batch_size=16))(
        jax.random.key(0)
    )
    assert abs(estimate.value - jnp.trace(a)) < 4 * estimate.standard_error < 10
    tree = linalg.hutchinson_trace(lambda v: as_tree(2 * as_array(v)), jax.random.key(0), as_tree(jnp.zeros(10)), 2)
    assert tree.value == 20 and tree.standard_error == 0


def test_log_determinant_and_its_derivative():
    a, _ = symmetric(np.logspace(-2, 1, 60))

    def estimate(shift):
        return linalg.log_determinant(
            lambda v: a @ v + shift * v, jax.random.key(0), 60, num_samples=64, steps=40, batch_size=64
        )

    def value_and_error(shift):
        result = estimate(shift)
        return result.value, result.standard_error

    both = jax.jit(jax.value_and_grad(value_and_error, has_aux=True))
    (value, error), slope = both(0.1)
    shifted = a + 0.1 * jnp.eye(60)
    assert abs(value - jnp.linalg.slogdet(shifted)[1]) < 4 * error < 20
    assert abs(slope - jnp.trace(jnp.linalg.inv(shifted))) < 0.1 * slope
    # the derivative is the estimate's own where the quadrature is exact
    np.testing.assert_allclose(slope, (both(0.1001)[0][0] - both(0.0999)[0][0]) / 2e-4, rtol=1e-4)


def test_slq_of_an_operator_with_few_eigenvalues_ends_early_without_nan():
    values = jnp.array([2.0] * 5 + [3.0] * 5)
    got = linalg.log_determinant(lambda v: values * v, jax.random.key(0), 10, num_samples=4, steps=10)
    np.testing.assert_allclose(got.value, jnp.log(values).sum(), rtol=1e-10)


# Cholesky


def test_cholesky_needs_no_jitter_where_there_is_none_to_need():
    a, _ = symmetric(np.logspace(-3, 0, 10))
    a = (a + a.T) / 2  # to the last digit
    factor, jitter = jax.jit(linalg.cholesky_with_jitter)(a)
    np.testing.assert_allclose(factor, np.linalg.cholesky(a), rtol=1e-12)
    assert jitter == 0


def test_cholesky_jitter_is_the_least_of_its_ladder_and_each_matrix_has_its_own():
    point = jnp.ones((4, 4))
    good, _ = symmetric(np.linspace(1, 2, 4))
    negative = good - 1.5 * jnp.eye(4)
    factor, jitter = linalg.cholesky_with_jitter(jnp.stack([point, good, negative]), max_tries=4)
    assert jnp.isfinite(factor[:2]).all() and jnp.isnan(factor[2]).any()
    assert 0 < jitter[0] < 1e-12 and jitter[1] == 0
    np.testing.assert_allclose(factor[0] @ factor[0].T, point, atol=1e-12)


def test_cholesky_does_not_make_an_indefinite_matrix_positive_in_any_precision():
    for dtype, most in ((np.float32, 1.3e-3), (np.float64, 2.3e-8)):
        matrix = jnp.asarray(np.eye(3) - 0.4, dtype)  # smallest eigenvalue -0.2
        factor, jitter = linalg.cholesky_with_jitter(matrix)
        assert jnp.isnan(factor).any() and 0 < jitter <= most
        assert linalg.cholesky_with_jitter(jnp.ones((30, 30), dtype))[1] < most / 100


def test_cholesky_derivative_is_that_of_the_shifted_matrix():
    a, _ = symmetric(np.linspace(1, 3, 5))
    probe = jnp.asarray(np.random.default_rng(0).normal(size=(5, 5)))

    def score(factorise, a):
        return jnp.sum(jnp.tril(probe) * factorise(a))

    ours = jax.jit(jax.vmap(jax.grad(functools.partial(score, lambda a: linalg.cholesky_with_jitter(a)[0]))))
    theirs = jax.grad(functools.partial(score, jnp.linalg.cholesky))(a)
    regular, singular = ours(jnp.stack([a, jnp.ones((5, 5))]))
    np.testing.assert_allclose(regular + regular.T, theirs + theirs.T, atol=1e-12)
    assert jnp.isfinite(singular).all()


# mistakes


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: linalg.cg(lambda v: v, jnp.arange(3)), "b: expected floating"),
        (lambda: linalg.cg(lambda v: v[:2], jnp.ones(3)), "matvec: expected A v like v"),
        (lambda: linalg.cg(jnp.eye(3), jnp.ones(3)), "matvec: expected a function"),
        (lambda: linalg.cg(lambda v: v, jnp.ones(3), tolerance=0.0), "tolerance"),
        (lambda: linalg.cg(lambda v: v, jnp.ones(3), x0=jnp.ones(2)), "x0"),
        (lambda: linalg.cg(lambda v: v, jnp.ones(3), max_iterations=0), "max_iterations"),
        (lambda: linalg.cg(lambda v: v, (jnp.ones((3, 2)), jnp.ones(3)), columns=True), "columns"),
        (lambda: linalg.lanczos(lambda v: v, jnp.ones(3), 4), "steps: expected at most the dimension 3"),
        (lambda: linalg.eigsh(lambda v: v, jax.random.key(0), 3, 4), "k: expected at most"),
        (lambda: linalg.eigsh(lambda v: v, jax.random.key(0), 3, 1, which="largst"), "did you mean 'largest'"),
        (lambda: linalg.eigsh(lambda v: v, jax.random.key(0), 30, 5, subspace=5), "subspace"),
        (lambda: linalg.eigsh(lambda v: v, jax.random.key(0), 30, 5, fresh_products=0), "fresh_products"),
        (lambda: linalg.hutchinson_trace(lambda v: v, jax.random.key(0), 3, 1), "num_samples"),
        (lambda: linalg.slq(jnp.log, lambda v: v, jax.random.key(0), 0), "example"),
        (lambda: linalg.cholesky_with_jitter(jnp.ones((2, 3))), "square"),
    ],
)
def test_mistakes_are_told_in_a_sentence(call, words):
    with pytest.raises(ConfigError, match=words):
        call()


@pytest.mark.parametrize(("condition", "tolerance"), [(1e2, 1e-6), (1e4, 3e-5)])
def test_coupled_eigenvectors_hold_a_float32_matrix_beyond_its_rounding(condition, tolerance):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 60)))[0]
    matrix = np.float32(rotation * np.logspace(0, -np.log10(condition), 60) @ rotation.T)
    matrix = (matrix + matrix.T) / 2
    values, vectors, coupling = (np.asarray(part, np.float64) for part in jax.jit(coupled_eigh)(matrix))
    again = vectors @ (np.diag(values) + coupling) @ vectors.T
    inverse = vectors @ (np.diag(1 / values) - coupling / np.outer(values, values)) @ vectors.T
    np.testing.assert_allclose(again, matrix, atol=1e-7)
    exact = np.linalg.inv(np.float64(matrix))
    np.testing.assert_allclose(inverse, exact, atol=tolerance * condition)
    assert np.all(np.diagonal(coupling) == 0)
