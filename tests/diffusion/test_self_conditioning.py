"""Denoisers that are told their last x_0: each call of every sampler has that of the call before."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import (
    DDIM,
    VP,
    AdaptiveODE,
    Clip,
    Heun,
    Multistep,
    PredictorCorrector,
    remember,
    repaint,
    sample,
    self_conditioned,
)
from aijax.diffusion.process import like_rows
from aijax.errors import ConfigError

KEY = jax.random.key(0)
PROCESS = VP()


def count(x, t, before):
    """Predicts one more than before, so that the last x_0 is the number of calls."""
    return before + 1


def count_by_noise(x, t, before):
    return (x - like_rows(PROCESS.alpha(t), x) * (before + 1)) / like_rows(PROCESS.sigma(t), x)


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [(DDIM(), 5), (Heun(), 9), (Multistep(2), 5), (PredictorCorrector(DDIM(), corrections=2), 15)],
)
def test_samplers_remember_their_last_prediction(sampler, calls):
    x = sample(KEY, remember(count), PROCESS, (2, 3), sampler=sampler, steps=5)
    np.testing.assert_allclose(x, calls, rtol=1e-4)


def test_what_is_remembered_is_x0_whatever_is_predicted_after_its_constraint():
    run = functools.partial(sample, KEY, remember(count_by_noise), PROCESS, (2, 3), steps=4, prediction="eps")
    np.testing.assert_allclose(run(), 4, rtol=1e-4)
    seen = run(constraint=Clip(2.5), trajectory=True)[1]
    np.testing.assert_allclose(seen.x0[:, 0, 0], [1, 2, 2.5, 2.5], rtol=1e-4)


def test_resampling_remembers_too():
    options = {"known": jnp.zeros((1, 2)), "mask": jnp.zeros((1, 2)), "steps": 4, "jump_length": 2, "jump_samples": 2}
    np.testing.assert_allclose(repaint(KEY, remember(count), PROCESS, **options), 6, rtol=1e-6)


def test_what_needs_a_function_of_x_and_t_tells_zeros():
    x = sample(KEY, remember(count), PROCESS, (1, 1), sampler=AdaptiveODE(), steps=2)
    np.testing.assert_allclose(x, 1, atol=0.02)


@pytest.mark.parametrize(("prediction", "fn"), [("x0", count), ("eps", count_by_noise)])
def test_training_gives_the_first_prediction_of_x0_to_a_share(prediction, fn):
    predict = self_conditioned(KEY, fn, 0.5, process=PROCESS, prediction=prediction)
    x, t = jnp.ones((1000, 1)), jnp.full((1000,), 0.5)
    told = predict(x, t) if prediction == "x0" else (x - PROCESS.sigma(0.5) * predict(x, t)) / PROCESS.alpha(0.5)
    values, counts = np.unique(np.round(told, 3), return_counts=True)
    assert values.tolist() == [1, 2] and 400 < counts[0] < 600
    # no gradient flows through the first
    first = self_conditioned(KEY, lambda x, t, before: x + before, 1.0)
    np.testing.assert_allclose(jax.grad(lambda x: first(x, t).sum())(x), 1.0)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="process: needed to tell x_0 from a prediction of 'eps'"):
        self_conditioned(KEY, count, prediction="eps")
    with pytest.raises(ConfigError, match="rate: expected a number from 0 to 1, got 2"):
        self_conditioned(KEY, count, 2)
