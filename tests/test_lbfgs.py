"""L-BFGS: minima against SciPy's, boxes, places that cannot be evaluated, lanes that race."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, rosen

from aijax import lbfgs as module
from aijax.errors import ConfigError
from aijax.lbfgs import REASONS, lbfgs, lbfgs_race


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@jax.jit
def minimise_rosenbrock(start):
    return lbfgs(rosenbrock, start, tolerance=1e-8)


def test_rosenbrock_takes_no_more_evaluations_than_scipy():
    start = jnp.array([-1.2, 1.0, -0.5, 0.8, -1.2])
    ours = minimise_rosenbrock(start)
    theirs = minimize(rosen, start, jac=jax.grad(rosenbrock), method="L-BFGS-B", options={"gtol": 1e-8, "ftol": 0})
    assert ours.converged
    np.testing.assert_allclose(ours.x, 1.0, atol=1e-7)
    assert ours.evaluations <= 1.3 * theirs.nfev
    history = np.asarray(ours.history)
    assert (np.diff(history) <= 0).all() and history[0] == rosenbrock(start)
    assert (history[int(ours.steps) :] == ours.value).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_minimum_of_a_quadratic_in_a_box_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(6, 6))
    matrix, linear = root @ root.T + 0.1 * np.eye(6), rng.normal(size=6) * 3
    low, high = -rng.uniform(0.1, 1, 6), rng.uniform(0.1, 1, 6)
    start = rng.uniform(low, high)
    ours = minimise_quadratic(*map(jnp.asarray, (matrix, linear, start, low, high)))
    theirs = minimize(
        lambda x: x @ matrix @ x / 2 - linear @ x,
        start,
        jac=lambda x: matrix @ x - linear,
        method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)),
        options={"gtol": 1e-10, "ftol": 1e-15},
    )
    assert ours.converged
    assert ((ours.x >= low) & (ours.x <= high)).all()
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-5)


@jax.jit
def minimise_quadratic(matrix, linear, start, low, high):
    return lbfgs(lambda x: x @ matrix @ x / 2 - linear @ x, start, lower=low, upper=high, tolerance=1e-8)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_it_comes_back_from_where_the_function_cannot_be_evaluated(bad):
    found = lbfgs(lambda x: jnp.where(x[0] > 0.5, x[0] - jnp.log(jnp.maximum(x[0], 1e-3)), bad), jnp.array([30.0]))
    assert found.converged
    np.testing.assert_allclose(found.x, 1.0, atol=1e-4)


def test_why_it_stopped():
    def of(function, start, **options):
        return REASONS[int(lbfgs(function, jnp.asarray(start), **options).status)]

    assert of(rosenbrock, [-1.2, 1.0], max_steps=3) == "max_steps were made"
    assert of(lambda x: jnp.sum(x) * jnp.nan, [1.0]) == "the value or the gradient at the start is not finite"
    assert of(lambda x: jnp.sum(x**2), [0.0, 0.0]) == "the gradient is below the tolerance"
    assert of(lambda x: 1e8 + rosenbrock(x), [-1.2, 1.0], tolerance=0.0) == "the value no longer changes"
    kink = of(lambda x: jnp.abs(x[0]) + 10 * jnp.abs(x[1]), [1.0, 0.003], tolerance=0.0)
    assert kink in ("no lower value was found along the direction of descent", "the value no longer changes")


def test_trees_float32_and_lanes():
    def function(tree):
        return jnp.sum((tree["a"] - 2) ** 2) + jnp.cosh(tree["b"] + 1)

    starts = {"a": jnp.linspace(-3, 3, 8, dtype=jnp.float32).reshape(4, 2), "b": jnp.zeros(4, jnp.float32)}
    lanes = jax.jit(jax.vmap(lambda start: lbfgs(function, start)))(starts)
    assert lanes.x["a"].dtype == jnp.float32 and lanes.value.shape == (4,) and lanes.converged.all()
    np.testing.assert_allclose(lanes.x["a"], 2.0, atol=1e-4)
    np.testing.assert_allclose(lanes.x["b"], -1.0, atol=1e-3)
    alone = lbfgs(function, jax.tree.map(lambda x: x[1], starts))
    np.testing.assert_allclose(alone.value, lanes.value[1], rtol=1e-6)


@pytest.mark.parametrize("together", [True, False])
def test_only_the_best_starts_go_on(together):
    starts = jnp.array([[-1.2, 1.0], [3.0, -4.0], [1.1, 1.2], [-3.0, 5.0]])
    race = jax.jit(
        lambda starts: lbfgs_race(rosenbrock, starts, together=together, explore_steps=4, finalists=2, tolerance=1e-8)
    )(starts)
    assert (race.status == module.OVERTAKEN).sum() == 2
    assert race.converged.sum() == 2 and race.converged[2]
    assert (race.steps[race.status == module.OVERTAKEN] == 4).all()
    full = jax.vmap(minimise_rosenbrock)(starts)
    kept = np.asarray(race.converged)
    np.testing.assert_allclose(race.x[kept], full.x[kept], rtol=1e-9)
    np.testing.assert_array_equal(race.evaluations[kept], full.evaluations[kept])


def test_integers_are_refused():
    with pytest.raises(ConfigError, match="expected a tree of floating arrays"):
        lbfgs(lambda x: jnp.sum(x**2), jnp.arange(3))
