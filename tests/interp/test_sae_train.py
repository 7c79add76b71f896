"""Training sparse autoencoders: a known dictionary is found, sites leave each other alone, dead latents come back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aijax import parallel
from aijax.errors import ConfigError
from aijax.interp import (
    expected_norm_scale,
    fold_scale,
    init_sae,
    init_sae_state,
    make_sae_step,
    mix_rows,
    resample_dead,
    sae_architecture,
    sae_decode,
    sae_encode,
    site_activations,
    stream_activations,
    tap,
    without_radial,
)
from aijax.train import Recorder, pack, train

D, M, N = 6, 12, 64
ADAM = optax.adam(1e-2)


def sparse_rows(key, dictionary, rows=N):
    """Rows of two directions each."""
    chosen, sizes = jax.random.split(key)
    scores = jax.random.uniform(chosen, (rows, len(dictionary)))
    mask = scores >= jnp.sort(scores, axis=1)[:, -2:-1]
    return (mask * jax.random.uniform(sizes, scores.shape, minval=0.5)) @ dictionary


def unit(rows):
    return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def trained():
    """A TopK autoencoder after 400 steps of the train loop, and the dictionary that made its data."""
    dictionary = unit(jax.random.normal(jax.random.key(0), (8, D)))
    kind = sae_architecture("topk", k=2)
    step = make_sae_step(kind, ADAM, dead_after=50)

    def packed(state, batch, key):
        state, metrics = step(state, batch, key)
        return state, pack(metrics)

    rows = jax.jit(lambda key: sparse_rows(key, dictionary))
    batches = ({"x": rows(jax.random.key(100 + i))} for i in range(400))
    state = init_sae_state(init_sae(jax.random.key(1), kind, D, M), ADAM)
    recorder = Recorder([], every=50, batch_size=N, total_steps=400)
    state, _ = train(
        state, jax.jit(packed), batches, key=jax.random.key(2), start=0, total_steps=400, recorder=recorder
    )
    return dictionary, kind, state, recorder.latest


def test_the_dictionary_of_the_data_is_found_on_the_train_loop(trained):
    dictionary, _, state, latest = trained
    cosines = dictionary @ unit(state.params["decoder"]).T
    assert jnp.mean(cosines.max(axis=1) > 0.9) >= 7 / 8
    assert latest["train/explained_variance"] > 0.9
    assert latest["train/l0"] == pytest.approx(2, abs=0.3)
    assert int(state.step) == 400


def test_dead_latents_begin_anew_on_what_is_reconstructed_badly(trained):
    _, kind, state, _ = trained
    dead = np.arange(M) < 3
    state = dataclasses.replace(state, idle=jnp.where(dead, 100, 0))
    x = jnp.zeros((N, D)).at[5].set(jnp.arange(1.0, D + 1) * 50)
    new = jax.jit(lambda key, state: resample_dead(key, kind, ADAM, state, x, dead_after=100))(jax.random.key(0), state)
    centred = x[5] - state.params["decoder_bias"]
    for name, share in (("encoder", 0.2), ("decoder", 1.0)):
        before, after = state.params[name], new.params[name]
        np.testing.assert_array_equal(after[3:], before[3:])
        length = share * jnp.linalg.norm(before[3:], axis=1).mean()
        np.testing.assert_allclose(after[:3], jnp.tile(length * unit(centred), (3, 1)), rtol=1e-4)
    np.testing.assert_array_equal(new.params["encoder_bias"], np.where(dead, 0, state.params["encoder_bias"]))
    np.testing.assert_array_equal(new.params["decoder_bias"], state.params["decoder_bias"])
    moments, old = new.opt_state[0].nu["decoder"], state.opt_state[0].nu["decoder"]
    np.testing.assert_array_equal(moments, np.where(dead[:, None], 0, old))
    assert not new.idle.any()


def test_sites_on_eight_devices_are_trained_as_each_alone():
    kind = sae_architecture("topk", k=2)
    mesh = parallel.make_mesh()
    keys = jax.random.split(jax.random.key(0), 8)
    states = jax.jit(jax.vmap(lambda key: init_sae_state(init_sae(key, kind, D, M), ADAM)))(keys)
    x = jax.random.normal(jax.random.key(1), (8, N, D))
    split, metrics = jax.jit(make_sae_step(kind, ADAM, sites=True, mesh=mesh))(states, {"x": x}, None)
    assert len(split.params["encoder"].sharding.device_set) == 8
    one = jax.tree.map(lambda leaf: leaf[3], states)
    rows = jax.device_put(x[3], parallel.batch_sharding(mesh))  # its own rows over all devices
    alone, told = jax.jit(make_sae_step(kind, ADAM))(one, {"x": rows}, None)
    for ours, theirs in zip(jax.tree.leaves(alone), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(ours, theirs[3], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["site_3/loss"], told["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean([metrics[f"site_{i}/loss"] for i in range(8)]), rtol=1e-5)


def test_rows_of_the_decoder_stay_of_norm_1_and_coefficients_follow_the_step():
    def kind(step):
        return sae_architecture("l1", coefficient=0.1 * step, weigh_by_decoder=False)

    x = jax.random.normal(jax.random.key(1), (N, D))
    state = init_sae_state(init_sae(jax.random.key(0), kind(0), D, M, decoder_norm=1.0), ADAM)
    step = jax.jit(make_sae_step(kind, ADAM, unit_rows=True))
    state, first = step(state, {"x": x}, None)
    state, second = step(state, {"x": x}, None)
    assert first["l1_loss"] == 0 and second["l1_loss"] > 0
    np.testing.assert_allclose(np.linalg.norm(state.params["decoder"], axis=1), 1, rtol=1e-5)
    slopes = np.asarray(without_radial(x[:M], state.params["decoder"]))
    np.testing.assert_allclose(np.sum(slopes * state.params["decoder"], axis=1), 0, atol=1e-5)


def test_a_scale_of_the_activations_goes_into_the_weights(trained):
    _, kind, state, _ = trained

    @jax.jit
    def run(params, x):
        scale = expected_norm_scale(x)
        folded = fold_scale(params, scale)
        scaled = sae_decode(kind, params, sae_encode(kind, params, scale * x)) / scale
        return scale, scaled, sae_decode(kind, folded, sae_encode(kind, folded, x))

    x = jax.random.normal(jax.random.key(7), (N, D))
    scale, scaled, folded = run(state.params, x)
    np.testing.assert_allclose(np.mean(np.linalg.norm(scale * x, axis=1)), np.sqrt(D), rtol=1e-5)
    np.testing.assert_allclose(folded, scaled, rtol=1e-3, atol=1e-4)


def model(weights, x):
    return tap("second", jnp.tanh(tap("first", x @ weights)) @ weights)


def test_activations_of_several_sites_come_mixed_and_each_once():
    weights, inputs = jnp.eye(3), jnp.arange(5 * 2 * 4 * 3.0).reshape(5, 2, 4, 3) / 50
    activations = site_activations(model, ["first", "second"])
    plain = [activations(weights, x) for x in inputs]
    np.testing.assert_allclose(plain[0][1], np.tanh(inputs[0]).reshape(8, 3), rtol=1e-5)
    given = np.stack(list(stream_activations(jax.random.key(0), activations, weights, iter(inputs), depth=3)))
    assert given.shape == (2, 2, 8, 3)
    firsts = given[:, 0].reshape(-1, 3)
    np.testing.assert_allclose(given[:, 1].reshape(-1, 3), np.tanh(firsts), rtol=1e-5)  # sites stay together
    assert len(np.unique(firsts[:, 0])) == 16 and set(firsts[:, 0]) <= set(np.asarray(inputs)[..., 0].ravel())
    assert len(set(np.floor(given[1, 0, :, 0] * 50 / 24))) > 1  # of several batches
    same, mixed = mix_rows(jax.random.key(1), plain[0][..., None, :], plain[1])
    np.testing.assert_array_equal(mixed, plain[0])
    np.testing.assert_array_equal(same[..., 0, :], plain[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: site_activations(model, ["third"])(jnp.eye(3), jnp.ones((2, 3))), "'third' matches no value"),
        (lambda: site_activations(lambda x: tap("b", tap("a", x).sum(1, keepdims=True)), "[ab]")(jnp.ones((2, 3))),
         "sites: expected activations of one shape"),
        (lambda: list(stream_activations(jax.random.key(0), lambda p, x: x, None, [np.ones((1, 2, 3))], depth=2)),
         "depth: 2 batches fill the reservoir, and there are 1"),
        (lambda: many_sites(3, None), "x: expected activations of 2 sites"),
        (lambda: many_sites(2, parallel.make_mesh()), "x: 2 sites cannot be split evenly over 8 devices"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_sentence(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def many_sites(count, mesh):
    kind = sae_architecture("topk", k=2)
    states = jax.eval_shape(
        jax.vmap(lambda key: init_sae_state(init_sae(key, kind, D, M), ADAM)), jax.random.split(jax.random.key(0), 2)
    )
    step = make_sae_step(kind, ADAM, sites=True, mesh=mesh)
    jax.eval_shape(lambda states, x: step(states, {"x": x}, None), states, jnp.ones((count, N, D)))
