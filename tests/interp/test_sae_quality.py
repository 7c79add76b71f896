"""How good an autoencoder is: measures against sae-lens and loops, and what a model loses with it in place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.interp import loss_recovered, sae_architecture, sae_quality, splice_sae, tap

WEIGHTS = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
SPLIT = {  # relu(x) and relu(-x): the identity
    "encoder": np.concatenate([np.eye(4), -np.eye(4)]).astype(np.float32),
    "decoder": np.concatenate([np.eye(4), -np.eye(4)]).astype(np.float32),
    "decoder_bias": np.zeros(4, np.float32),
    "encoder_bias": np.zeros(8, np.float32),
}
KIND = sae_architecture("l1", centre=False)


def model(weights, x):
    return jnp.tanh(tap("inner", x @ weights)) @ weights


def loss_fn(weights, x):
    return jnp.mean((model(weights, x) - x) ** 2)


def test_measures_are_those_of_sae_lens(golden):
    with np.load(golden / "science" / "interp" / "sae_standard_l1.npz") as stored:
        case = dict(stored)
    params = {"encoder": case["w.W_enc"].T, "decoder": case["w.W_dec"]}
    params |= {"encoder_bias": case["w.b_enc"], "decoder_bias": case["w.b_dec"]}
    with jax.enable_x64(True):
        found = jax.jit(lambda params, x: sae_quality(KIND, params, x))(params, case["x"])
    np.testing.assert_allclose(found.l0, case["l0"], rtol=1e-12)
    np.testing.assert_allclose(found.explained_variance, case["explained_variance"], rtol=1e-8)
    np.testing.assert_allclose(found.mse, case["loss.mse_loss"], rtol=1e-8)
    np.testing.assert_allclose(found.frequencies, (case["feature_acts"] > 0).mean(axis=0))
    np.testing.assert_allclose(found.dead_share, (case["feature_acts"] <= 0).all(axis=0).mean())


def test_an_identity_loses_nothing_and_zeros_all():
    nothing = SPLIT | {"decoder": np.zeros((8, 4), np.float32)}
    half = SPLIT | {"decoder": SPLIT["decoder"] / 2}

    @jax.jit
    def run(weights, x):
        return [loss_recovered(loss_fn, {"inner": (KIND, params)}, weights, x) for params in (SPLIT, nothing, half)]

    whole, none, some = run(WEIGHTS, X)
    np.testing.assert_allclose(whole.recovered, 1, rtol=1e-5)
    np.testing.assert_allclose(none.recovered, 0, atol=1e-5)
    halved = np.mean((np.tanh(X @ WEIGHTS / 2) @ WEIGHTS - X) ** 2)
    np.testing.assert_allclose(some.spliced, halved, rtol=1e-5)
    np.testing.assert_allclose(some.zeroed, np.mean(X**2), rtol=1e-5)


def test_a_transcoder_takes_the_place_of_what_it_was_trained_to_give():
    def two(weights, x):
        return tap("output", tap("input", x) @ weights)

    across = SPLIT | {"decoder": np.concatenate([WEIGHTS, -WEIGHTS])}
    spliced = splice_sae(two, {"output": (KIND, across, "input")})(WEIGHTS, X)
    np.testing.assert_allclose(spliced, X @ WEIGHTS, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"input\|output: expected the name of one value"):
        splice_sae(two, {"output": (KIND, across, "input|output")})(WEIGHTS, X)
    with pytest.raises(ConfigError, match="'imput' matches no value of the function; did you mean 'input'"):
        splice_sae(two, {"output": (KIND, across, "imput")})(WEIGHTS, X)
