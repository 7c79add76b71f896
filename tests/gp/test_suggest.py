"""Suggestions: the maxima of acquisitions against a fine grid, batches, boxes, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import gp, kernels
from aijax.errors import ConfigError
from aijax.gp import acquisition
from aijax.gp.suggest import box_points

BOUNDS = jnp.array([[0.0, 2.0], [-1.0, 1.0]])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def posterior():
    x = np.random.default_rng(0).uniform([0, -1], [2, 1], size=(8, 2))
    y = np.sin(3 * x[:, 0]) - x[:, 1] ** 2
    return gp.condition(gp.GP(kernels.Matern52(jnp.array([0.6, 0.8])), noise_variance=1e-4), x, y)


@pytest.fixture
def grid():
    axes = np.linspace(0, 2, 81), np.linspace(-1, 1, 81)
    return jnp.asarray(np.stack(np.meshgrid(*axes), -1).reshape(-1, 2))


@pytest.mark.slow
def test_the_maximum_is_that_of_a_fine_grid(posterior, grid):
    mean, std = gp.predict(posterior, grid)
    best = jnp.max(gp.predict(posterior, posterior.x)[0])
    cases = {
        gp.LogExpectedImprovement(): acquisition.log_expected_improvement(mean, std, best),
        gp.UpperConfidenceBound(1.5): acquisition.upper_confidence_bound(mean, std, 1.5),
        gp.ProbabilityOfImprovement(0.1): acquisition.log_probability_of_improvement(mean, std, best + 0.1),
    }
    for chosen, values in cases.items():
        found = jax.jit(lambda key, chosen=chosen: gp.suggest(key, posterior, BOUNDS, acquisition=chosen))(
            jax.random.key(0)
        )
        assert found.converged and found.value >= values.max() - 1e-9
        assert found.value < values.max() + 0.02
        assert jnp.linalg.norm(found.x[0] - grid[values.argmax()]) < 0.05


@pytest.mark.slow
def test_a_batch_is_worth_more_than_its_parts(posterior):
    def of(q, chosen):
        return jax.jit(lambda key: gp.suggest(key, posterior, BOUNDS, acquisition=chosen, q=q, candidates=128))(
            jax.random.key(0)
        )

    pair, single = of(2, gp.LogExpectedImprovement(count=64)), of(1, gp.LogExpectedImprovement())
    assert pair.x.shape == (2, 2) and ((pair.x >= BOUNDS[:, 0]) & (pair.x <= BOUNDS[:, 1])).all()
    assert jnp.linalg.norm(pair.x[0] - pair.x[1]) > 0.05
    assert single.value < pair.value < single.value + jnp.log(2.0)
    draws = of(3, gp.ThompsonSampling())
    assert draws.x.shape == (3, 2) and draws.converged


@pytest.mark.slow
def test_functions_drawn_are_climbed(posterior):
    @jax.jit
    def both(key):
        keys = jax.random.split(key, 3)
        found = gp.suggest(key, posterior, BOUNDS, acquisition=gp.ThompsonSampling(num_features=64), q=2)
        functions = [gp.pathwise_sample(k, posterior, num_features=64) for k in jax.random.split(keys[1])]
        return found, functions

    found, functions = both(jax.random.key(0))
    fine = jnp.stack([f(box_points(jax.random.key(1), 4096, BOUNDS))[0] for f in functions]).max(1)
    at = jnp.stack([f(x[None])[0, 0] for f, x in zip(functions, found.x, strict=True)])
    assert found.converged and ((found.x >= BOUNDS[:, 0]) & (found.x <= BOUNDS[:, 1])).all()
    assert (at > fine - 1e-6).all() and at.max() == pytest.approx(found.value)


def test_knowledge_gradient_is_worth_at_least_what_improvement_of_the_mean_is(posterior):
    found = jax.jit(
        lambda key: gp.suggest(
            key, posterior, BOUNDS, acquisition=gp.KnowledgeGradient(points=16), candidates=32, restarts=2
        )
    )(jax.random.key(0))
    assert found.value > 0 and ((found.x >= BOUNDS[:, 0]) & (found.x <= BOUNDS[:, 1])).all()


@pytest.mark.slow
def test_knowledge_gradient_of_a_pair_is_worth_more_than_of_one(posterior):
    chosen = gp.KnowledgeGradient(points=16, count=16)

    def of(q):
        return gp.suggest(jax.random.key(0), posterior, BOUNDS, acquisition=chosen, q=q, candidates=64, restarts=4)

    one, pair = jax.jit(of, static_argnums=0)(1), jax.jit(of, static_argnums=0)(2)
    assert pair.x.shape == (2, 2) and ((pair.x >= BOUNDS[:, 0]) & (pair.x <= BOUNDS[:, 1])).all()
    assert one.value < pair.value


def test_candidates_and_what_may_move(posterior):
    candidates = jnp.array([[[0.5, 0.3]], [[1.9, -0.9]]])
    found = gp.suggest(jax.random.key(0), posterior, BOUNDS, candidates=candidates, continuous=jnp.array([True, False]))
    fixed = np.asarray(candidates)[:, 0, 1]
    assert np.isclose(found.x[0, 1], fixed, rtol=1e-12).any() and found.x[0, 0] not in (0.5, 1.9)


def test_points_fill_the_box():
    points = box_points(jax.random.key(3), 64, BOUNDS)
    assert ((points > BOUNDS[:, 0]) & (points < BOUNDS[:, 1])).all()
    cells = np.floor((np.asarray(points) - BOUNDS[:, 0]) / (BOUNDS[:, 1] - BOUNDS[:, 0]) * 8)
    assert len(np.unique(cells, axis=0)) == 64
    assert not np.allclose(points, box_points(jax.random.key(4), 64, BOUNDS))


def test_mistakes(posterior):
    key = jax.random.key(0)
    with pytest.raises(ConfigError, match="q: UpperConfidenceBound says what one point is worth, got q = 2"):
        gp.suggest(key, posterior, BOUNDS, acquisition=gp.UpperConfidenceBound(), q=2)
    with pytest.raises(ConfigError, match=r"bounds: expected lowest < highest, got \[1.0, 1.0\] for input 1"):
        gp.suggest(key, posterior, [[0.0, 1.0], [1.0, 1.0]])
    with pytest.raises(ConfigError, match=r"bounds: expected \(lowest, highest\) of each input"):
        gp.suggest(key, posterior, [0.0, 1.0])
    with pytest.raises(ConfigError, match="does not hold its points; give the value to improve on"):
        gp.suggest(key, object(), BOUNDS)
