"""The edge of stability, met in training and told by a hook of the train loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aijax import landscape
from aijax.errors import ConfigError
from aijax.train import Hook, minimize


def test_gradient_descent_meets_the_edge_of_stability(read_case):
    shapes = {"net.0.weight": (10, 4), "net.0.bias": (10,), "net.2.weight": (1, 10), "net.2.bias": (1,)}
    case = read_case("eos_lr0.5", activation="tanh", loss="mse", shapes=shapes)
    arrays, rate = case.arrays, float(case.arrays["lr"])
    hook = Hook(10, landscape.track_stability(case.loss_fn, case.batch, rate))
    first = landscape.stability(case.loss_fn, case.params, case.batch, rate)
    state, records = minimize(
        jax.random.key(0),
        lambda params, batch, key: (case.loss_fn(params, batch), {}),
        case.params,
        optax.sgd(rate),
        case.batch,
        301,
        hooks=[hook],
    )
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    np.testing.assert_allclose(losses, arrays["losses"], rtol=1e-5)
    np.testing.assert_allclose(case.flat(state.params), arrays["theta_final"], rtol=1e-5, atol=1e-8)
    *told, last = [record for record in records if "sharpness" in record]
    assert last["step"] == 301
    assert [record["step"] for record in told] == arrays["sharp_steps"][1:].tolist()
    sharpness = [float(first.sharpness)] + [record["sharpness"] for record in told]
    np.testing.assert_allclose(sharpness, arrays["sharpness"], rtol=1e-5)
    assert first.threshold == arrays["two_over_lr"] and max(record["stability"] for record in told) > 1


def test_thresholds_are_where_descent_on_a_quadratic_diverges():
    for momentum, nesterov in ((0.0, False), (0.5, False), (0.5, True)):
        found = landscape.stability(
            lambda w, x: jnp.mean(x) * w**2 / 2, jnp.ones(()), jnp.ones(2), 0.3, momentum=momentum, nesterov=nesterov
        )
        for factor, grows in ((0.99, False), (1.01, True)):
            curvature = factor * float(found.threshold)
            optimizer = optax.sgd(0.3, momentum=momentum or None, nesterov=nesterov)

            def step(carry, _, optimizer=optimizer, curvature=curvature):
                w, state = carry
                change, state = optimizer.update(curvature * w, state)
                return (w + change, state), None

            w = jnp.ones(())
            (w, _), _ = jax.lax.scan(step, (w, optimizer.init(w)), length=1000)
            assert (abs(w) > 1) == grows
    with pytest.raises(ConfigError, match="momentum: expected a number from 0 up to 1, got 1"):
        landscape.stability(lambda w, x: jnp.mean(x) * w**2, jnp.ones(()), jnp.ones(2), 0.3, momentum=1)
