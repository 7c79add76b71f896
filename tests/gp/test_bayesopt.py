"""The ask-and-tell loop: it finds the maximum, by scan and vmap; what failed or is pending; mistakes."""

import jax
import numpy as np
import pytest

from aijax.errors import ConfigError, DataError
from aijax.gp import bayesopt

BOUNDS = np.array([[-3.0, 5.0]])
ask = jax.jit(bayesopt.ask)


def function(x):
    return -((x[..., 0] - 1.3) ** 2)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def loops():
    """Values and states of whole loops over three seeds, one compiled program."""

    def loop(key):
        state = bayesopt.init(key, BOUNDS, capacity=12, initial=3)

        def step(state, key):
            x = bayesopt.ask(key, state, restarts=4, candidates=64).x
            return bayesopt.tell(state, x, function(x)), x[0]

        return jax.lax.scan(step, state, jax.random.split(key, 10))

    with jax.enable_x64(True):
        return jax.jit(jax.vmap(loop))(jax.random.split(jax.random.key(0), 3))


def test_a_loop_finds_the_maximum(loops):
    states, x = loops
    assert x.shape == (3, 10, 1) and ((x >= -3) & (x <= 5)).all()
    best = jax.vmap(bayesopt.best)(states)
    assert (best[1] > -1e-3).all()
    np.testing.assert_allclose(best[0][:, 0], 1.3, atol=0.05)
    assert (jax.vmap(lambda state: state.count)(states) == 10).all()


@pytest.mark.slow
def test_the_same_program_gives_the_same_points_outside_of_it(loops):
    states, _ = loops
    state = jax.tree.map(lambda leaf: leaf[0], states)
    found = ask(jax.random.key(5), state)
    again = ask(jax.random.key(5), state)
    assert found.x == again.x and found.converged


@pytest.mark.slow
def test_failed_and_pending_points_are_kept_away_from(loops):
    states, _ = loops
    state = jax.tree.map(lambda leaf: leaf[0], states)
    key = jax.random.key(7)
    first = ask(key, state).x
    waiting = bayesopt.tell(state, first, None)
    assert waiting.count == 11 and (waiting.status == bayesopt.PENDING).sum() == 1
    assert abs(float((ask(key, waiting).x - first)[0, 0])) > 1e-4
    told = bayesopt.tell(waiting, first, function(first))
    assert told.count == 11 and (told.status == bayesopt.PENDING).sum() == 0
    failed = bayesopt.tell(state, first, np.nan)
    assert (failed.status == bayesopt.FAILED).sum() == 1
    assert bayesopt.best(failed)[1] == bayesopt.best(state)[1]
    mean = bayesopt.posterior(failed).predict((first + 3) / 8)[0]
    assert mean[0] < bayesopt.posterior(state).predict((first + 3) / 8)[0][0]


def test_the_design_comes_first_and_goes_on_while_nothing_was_observed():
    state = bayesopt.init(jax.random.key(0), BOUNDS, capacity=12, initial=3)
    for i in range(4):
        x = ask(jax.random.key(i), state).x
        np.testing.assert_array_equal(x[0], state.design[i])
        state = bayesopt.tell(state, x, np.nan)
    assert bayesopt.best(state)[1] == -np.inf


def test_mistakes():
    state = bayesopt.init(jax.random.key(0), BOUNDS, capacity=3, initial=3)
    with pytest.raises(DataError, match="expected points of 1 inputs"):
        bayesopt.tell(state, [[1.0, 2.0]], 0.0)
    with pytest.raises(DataError, match="expected 2 values, one for each point"):
        bayesopt.tell(state, [[1.0], [2.0]], 0.0)
    with pytest.raises(DataError, match="an evaluation that failed is NaN"):
        bayesopt.tell(state, [1.0], np.inf)
    state = bayesopt.tell(state, [[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
    with pytest.raises(ConfigError, match="capacity: 3 evaluations are held"):
        bayesopt.tell(state, [3.0], 0.0)
    with pytest.raises(ConfigError, match="initial: expected 1 to the capacity of 3, got 4"):
        bayesopt.init(jax.random.key(0), BOUNDS, capacity=3, initial=4)
