import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aijax.train import Carry, evaluate, init_state, make_evaluate_step, make_step

KEYS = jax.random.split(jax.random.key(0), 3)
PARAMS = {"up": jax.random.normal(KEYS[0], (4, 8)), "down": jax.random.normal(KEYS[1], (8, 1))}
BATCH = {"x": jax.random.normal(KEYS[2], (12, 4)), "y": jnp.arange(12.0)[:, None] / 12}


def loss_fn(params, batch, key):
    error = jnp.tanh(batch["x"] @ params["up"]) @ params["down"] - batch["y"]
    return jnp.mean(error**2), {"mean_error": jnp.mean(error)}


def stepped(count=1, loss=loss_fn, optimizer=None, **options):
    optimizer = optimizer or optax.sgd(0.1)
    kept = {"keep_ema": options.get("ema_decay") is not None, "carry": options.get("carry")}
    state = init_state(PARAMS, optimizer, **kept)
    step = jax.jit(make_step(loss, optimizer, **options))
    for _ in range(count):
        state, metrics = step(state, BATCH, jax.random.key(3))
    return state, metrics


def assert_close(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), a, b)


def test_a_step_is_gradient_descent_and_measures_it():
    state, metrics = stepped(schedule=lambda step: 0.1 * (step + 1))
    (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(PARAMS, BATCH, None)
    assert_close(state.params, jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, grads))
    assert int(state.step) == 1
    expected = {"loss": loss, "gradient_norm": optax.tree.norm(grads), "learning_rate": 0.1}
    assert_close(metrics, expected | aux)


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts):
    whole, whole_metrics = stepped(3)
    state, metrics = stepped(3, accumulate_steps=parts)
    assert_close(state, whole)
    assert_close(metrics, whole_metrics)


@pytest.mark.parametrize("parts", [1, 3])
def test_sharpness_aware_steps_go_by_the_gradient_at_the_worst_nearby_point(parts):
    state, metrics = stepped(sharpness_radius=0.5, accumulate_steps=parts)
    gradient = jax.grad(lambda params: loss_fn(params, BATCH, None)[0])
    here = gradient(PARAMS)
    nearby = jax.tree.map(lambda p, g: p + 0.5 * g / optax.tree.norm(here), PARAMS, here)
    assert_close(state.params, jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, gradient(nearby)))
    assert_close(metrics["loss"], loss_fn(PARAMS, BATCH, None)[0])


def test_the_average_follows_the_parameters():
    decay, seen = 0.9, [PARAMS]
    for count in range(1, 4):
        seen.append(stepped(count)[0].params)
    expected = PARAMS
    for params in seen[1:]:
        expected = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, expected, params)
    state, _ = stepped(3, ema_decay=decay)
    assert_close(state.ema, expected)
    assert state.best_params is state.ema


def test_randomness_depends_on_the_key_and_the_step_only():
    def noisy(params, batch, key):
        loss, metrics = loss_fn(params, batch, key)
        return loss, metrics | {"draw": jax.random.uniform(key)}

    draws = [float(stepped(count, noisy)[1]["draw"]) for count in (1, 2, 3)]
    assert len(set(draws)) == 3
    state = init_state(PARAMS, optax.sgd(0.1)).replace(step=jnp.asarray(2, jnp.int32))
    _, metrics = jax.jit(make_step(noisy, optax.sgd(0.1)))(state, BATCH, jax.random.key(3))
    assert float(metrics["draw"]) == draws[2]


def test_bfloat16_computes_in_it_and_keeps_float32():
    seen = {}

    def watched(params, batch, key):
        seen.update(params=params["up"].dtype, batch=batch["x"].dtype)
        return loss_fn(params, batch, key)

    state, metrics = stepped(1, watched, optax.adam(1e-2), compute_dtype="bfloat16")
    assert seen == {"params": jnp.bfloat16, "batch": jnp.bfloat16}
    assert {leaf.dtype.name for leaf in jax.tree.leaves((state.params, state.opt_state)) if leaf.ndim} == {"float32"}
    np.testing.assert_allclose(metrics["loss"], stepped(1)[1]["loss"], rtol=2e-2)


def test_frozen_parameters_have_no_gradient():
    _, metrics = stepped(1, frozen={"up": True, "down": False})
    grads = jax.grad(lambda p: loss_fn(p, BATCH, None)[0])(PARAMS)
    np.testing.assert_allclose(metrics["gradient_norm"], jnp.linalg.norm(grads["down"]), rtol=1e-5)


def test_evaluation_counts_each_example_once_and_padding_never():
    sums = make_evaluate_step(lambda params, batch: {"value": 1 / batch["x"]})
    batches = [
        {"x": jnp.array([1.0, 2.0]), "mask": jnp.array([1.0, 1.0])},
        {"x": jnp.array([4.0, 0.0]), "mask": jnp.array([1.0, 0.0])},
    ]
    assert evaluate(sums, {}, batches) == {"value": pytest.approx((1 + 0.5 + 0.25) / 3)}


@pytest.mark.parametrize("parts", [1, 3])
def test_what_an_objective_carries_follows_what_it_saw(parts):
    carry = Carry(
        lambda params: {"mean": params["down"].mean() * 0}, lambda old, seen: {"mean": old["mean"] / 2 + seen}
    )

    def with_past(params, batch, key, past):
        loss, metrics = loss_fn(params, batch, key)
        pull = jnp.sum((params["up"] - past.average["up"]) ** 2)
        metrics = metrics | {"step": past.step, "carried": past.carried["mean"]}
        return loss + past.carried["mean"] * pull, metrics, jnp.mean(batch["x"])

    options = {"carry": carry, "ema_decay": lambda step: 0.5 + 0.1 * step, "accumulate_steps": parts}
    state, metrics = stepped(3, with_past, **options)
    seen, average, params, carried = jnp.mean(BATCH["x"]), PARAMS, PARAMS, 0.0
    for step in range(3):

        def loss(params, average=average, carried=carried):
            return loss_fn(params, BATCH, None)[0] + carried * jnp.sum((params["up"] - average["up"]) ** 2)

        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))
        decay = 0.5 + 0.1 * step
        average = jax.tree.map(lambda a, p, decay=decay: decay * a + (1 - decay) * p, average, params)
        before, carried = carried, carried / 2 + seen
    assert_close(state.params, params)
    assert_close(state.ema, average)
    assert_close(state.carried, {"mean": carried})
    assert_close([metrics["step"], metrics["carried"]], [2, before])
