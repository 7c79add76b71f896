"""Descent by optax: the steps are optax's own; why it ended; boxes; keys."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aijax.descent import descend
from aijax.lbfgs import BAD_START, FAILED_STEP, MAX_STEPS


def function(x, key=None):
    return jnp.sum((x["a"] - 1) ** 2) + x["b"] ** 4


def test_the_steps_are_those_of_optax():
    start, optimizer = {"a": jnp.zeros(2), "b": jnp.array(1.0)}, optax.adam(0.1)
    found = descend(function, start, optimizer=optimizer, max_steps=7, tolerance=0.0)
    x, state, values = start, optimizer.init(start), [function(start)]
    for _ in range(7):
        updates, state = optimizer.update(jax.grad(function)(x), state, x)
        x = optax.apply_updates(x, updates)
        values.append(function(x))
    np.testing.assert_allclose(found.history, values, rtol=1e-5)
    np.testing.assert_allclose(found.x["a"], x["a"], rtol=1e-5)
    assert found.status == MAX_STEPS and found.steps == 7


def test_why_it_ended():
    def of(function, start, **options):
        return descend(lambda x, key: function(x), start, optimizer=optax.sgd(1.0), max_steps=5, **options)

    assert of(lambda x: x * jnp.nan, 1.0).status == BAD_START
    failed = of(lambda x: jnp.where(x > 0.0, x - jnp.log(jnp.where(x > 0, x, 1.0)), jnp.nan), 0.3)
    assert failed.status in (FAILED_STEP, MAX_STEPS) and jnp.isfinite(failed.value)
    step_off = of(lambda x: jnp.sqrt(x), 0.2)
    assert step_off.status == FAILED_STEP and step_off.steps == 0 and step_off.x == jnp.float32(0.2)
    held = of(lambda x: x, 0.9, lower=0.5)
    assert held.x == 0.5


def test_each_step_has_its_own_key():
    def noisy(x, key):
        return x**2 + x * jax.random.normal(key)

    runs = [
        jax.jit(lambda seed: descend(noisy, 1.0, optimizer=optax.sgd(0.1), key=jax.random.key(seed), max_steps=4))(seed)
        for seed in (0, 0, 1)
    ]
    assert runs[0].x == runs[1].x != runs[2].x
