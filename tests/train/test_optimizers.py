import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aijax.errors import ConfigError
from aijax.train.optimizers import OPTIMIZERS, make_optimizer

PARAMS = {
    "embed": {"table": jnp.ones((5, 4))},
    "dense": {"kernel": jnp.full((4, 3), 2.0), "bias": jnp.full((3,), 0.5)},
}
GRADS = jax.tree.map(lambda p: 0.1 * p + 0.01, PARAMS)


def after(section, count=3, rate=0.1):
    optimizer, _ = make_optimizer(section, lambda step: rate, PARAMS)
    params, state, update = PARAMS, optimizer.init(PARAMS), jax.jit(optimizer.update)
    for _ in range(count):
        updates, state = update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
    return params


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), a, b)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_of_the_table_moves_every_parameter(name):
    for before, leaf in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(after({"name": name}, count=2)), strict=True):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf - before).max() > 0


@pytest.mark.parametrize(
    ("case", "section"),
    [
        (
            "adafactor_1",
            {"name": "adafactor", "min_dim_size_to_factor": 2, "multiply_by_parameter_scale": False},
        ),
        ("adamw_amsgrad_0", {"name": "amsgrad", "b1": 0.9, "b2": 0.999, "eps": 1e-8}),
        ("sgd_nesterov_1", {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("adamw_1", {"name": "adamw", "b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.1}),
        ("lion_0", {"name": "lion", "b1": 0.9, "b2": 0.99, "weight_decay": 0.1}),
        ("lamb_0", {"name": "lamb", "b1": 0.9, "b2": 0.999, "eps": 1e-6, "weight_decay": 0.01}),
        ("rmsprop_centered_1", {"name": "rmsprop", "decay": 0.95, "eps": 1e-6, "centered": True, "eps_in_sqrt": False}),
    ],
)
def test_trajectories_agree_with_the_reference_in_float64(golden, case, section):
    folder = golden / "vision_text" / "optimizer_trajectory" / case
    about = json.loads((folder / "case.json").read_text())
    with jax.enable_x64(True):
        data = {name: jnp.asarray(array) for name, array in np.load(folder / "data.npz").items()}
        params = {"w": data["w0"], "b": data["b0"]}
        if "weight_decay" in section:
            section = section | {"weight_decay_rules": ((".*", 1.0),)}
        optimizer, _ = make_optimizer(section, lambda step: about["lr"], params)
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        for step in range(len(data["w"])):
            grads = {"w": data["grads_w"][step], "b": data["grads_b"][step]}
            updates, state = update(grads, state, params)
            params = optax.apply_updates(params, updates)
            # optax takes a power of Adafactor in float32, of which about 1e-9 is left after 12 steps
            close = {"rtol": 0, "atol": 2e-9} if section["name"] == "adafactor" else {"rtol": 1e-9, "atol": 1e-11}
            np.testing.assert_allclose(params["w"], data["w"][step], **close)
            np.testing.assert_allclose(params["b"], data["b"][step], **close)


def test_muon_agrees_with_the_reference_as_far_as_bfloat16_goes(golden):
    """Its kernels are [outputs, inputs] and its products in bfloat16."""
    folder = golden / "vision_text" / "optimizer_trajectory" / "muon_1"
    about, data = json.loads((folder / "case.json").read_text()), np.load(folder / "data.npz")
    params = {"w": jnp.asarray(data["w0"].T, jnp.float32)}
    section = {"name": "muon", "beta": about["momentum"], "nesterov": True, "weight_decay": about["weight_decay"]}
    optimizer, _ = make_optimizer(section, lambda step: about["lr"], params)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(len(data["w"])):
        grads = {"w": jnp.asarray(data["grads_w"][step].T, jnp.float32)}
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["w"], data["w"][step].T, atol=2e-2)


def test_adafactor_decays_weights_at_the_learning_rate():
    decayed, plain = (after({"name": "adafactor", "weight_decay": rate}, count=1, rate=0.1) for rate in (0.5, 0.0))
    fell = jax.tree.map(jnp.subtract, plain, decayed)
    np.testing.assert_allclose(fell["dense"]["kernel"], 0.1 * 0.5 * PARAMS["dense"]["kernel"], rtol=1e-5)
    np.testing.assert_array_equal(fell["dense"]["bias"], 0)


def test_weights_decay_by_default_where_they_have_two_dimensions():
    decayed, plain = after({"name": "adamw", "weight_decay": 0.1}), after({"name": "adamw"})
    assert_close(decayed["dense"]["bias"], plain["dense"]["bias"])
    assert (decayed["dense"]["kernel"] < plain["dense"]["kernel"]).all()


def test_the_first_rule_that_matches_multiplies_decay_and_rate():
    section = {
        "name": "adamw",
        "weight_decay": 0.1,
        "weight_decay_rules": (("embed/.*", 0.5), (".*", 1.0)),
        "learning_rate_rules": (("dense/kernel", 0.1),),
    }
    whole = after(section)
    alone = {
        ("embed", "table"): ({"name": "adamw", "weight_decay": 0.05, "weight_decay_rules": ((".*", 1.0),)}, 0.1),
        ("dense", "kernel"): ({"name": "adamw", "weight_decay": 0.1, "weight_decay_rules": ((".*", 1.0),)}, 0.01),
        ("dense", "bias"): ({"name": "adamw", "weight_decay": 0.1, "weight_decay_rules": ((".*", 1.0),)}, 0.1),
    }
    for (module, name), (single, rate) in alone.items():
        assert_close(whole[module][name], after(single, rate=rate)[module][name])


def test_frozen_parameters_stay_and_have_no_moments():
    section = {"name": "adamw", "weight_decay": 0.1, "freeze_rules": (("embed/.*", True),)}
    optimizer, frozen = make_optimizer(section, lambda step: 0.1, PARAMS)
    assert frozen == {"embed": {"table": True}, "dense": {"kernel": False, "bias": False}}
    assert (5, 4) not in {leaf.shape for leaf in jax.tree.leaves(optimizer.init(PARAMS))}
    moved = after(section)
    np.testing.assert_array_equal(moved["embed"]["table"], PARAMS["embed"]["table"])
    assert_close(moved["dense"], after({"name": "adamw", "weight_decay": 0.1})["dense"])


def test_clipping_bounds_the_norm_of_the_whole_gradient():
    updates = after({"name": "sgd", "clip_norm": 0.01}, count=1, rate=1.0)
    moved = jax.tree.map(lambda a, b: a - b, updates, PARAMS)
    np.testing.assert_allclose(optax.tree.norm(moved), 0.01, rtol=1e-4)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "adamww"}, "config.optimizer.name: unknown value 'adamww'; did you mean 'adamw'"),
        ({"name": "adamw", "wieght_decay": 0.1}, "config.optimizer.wieght_decay: unknown field"),
        ({"name": "adamw", "b1": "high"}, "config.optimizer.b1: expected"),
        ({"name": "adam", "weight_decay": 0.1}, "config.optimizer.weight_decay: adam does not decay weights"),
        ({"name": "adamw", "clip_norm": 0}, "config.optimizer.clip_norm: expected a positive bound or None, got 0"),
        ({"name": "adamw", "freeze_rules": ((".*", True),)}, "every parameter is frozen"),
        ({"name": "adamw", "freeze_rules": (("embeding/.*", True),)}, "matches no parameter"),
        ({"name": "adamw", "weight_decay_rules": (("dense/kernal", 1.0),)}, "did you mean 'dense/kernel'"),
    ],
)
def test_a_wrong_section_is_refused_in_a_sentence(section, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(section, lambda step: 0.1, PARAMS)
