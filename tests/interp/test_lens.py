"""Lenses and attributions: against transformer-lens' values, by what they must add up to, trained, and in a scan."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aijax.errors import ConfigError
from aijax.interp import (
    capture,
    init_translators,
    logit_attribution,
    logit_lens,
    read_stream,
    tap,
    tuned_lens,
    tuned_lens_loss,
)
from aijax.models import LanguageModel
from aijax.models.published.transformer_lens import hook_taps
from aijax.train import init_state, make_step

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("gemma2", "llama", "shortctx3l")]
STYLES = ["attn_only", "neox", *SLOW]
TOLERANCE = {"rtol": 1e-7, "atol": 1e-9}


@pytest.mark.parametrize("style", STYLES)
def test_lens_and_attributions_are_those_of_the_reference(hooked, style):
    with jax.enable_x64(True):
        model, params, case = hooked(f"tl_forward_{style}")
        hooks, depth = hook_taps(model), model.depth

        def apply_fn(params, tokens):
            return model.apply({"params": params}, tokens)

        streams = [hooks[f"blocks.{i}.hook_resid_{at}"] for i in range(depth) for at in ("pre", "mid")
                   if f"blocks.{i}.hook_resid_{at}" in hooks]  # fmt: skip
        last = hooks[f"blocks.{depth - 1}.hook_resid_post"]
        streams += [last] if last not in streams else []
        branches = ["decoder/writes_input", ".*/branch_.*", ".*/attention/results"]
        held = {"frozen": None} if model.norm == "none" else {}

        @jax.jit
        def run(params, tokens):
            attributions = logit_attribution(apply_fn, branches, last, **held)(params, tokens)
            return logit_lens(apply_fn, streams, last)(params, tokens), attributions

        outputs, (parts, _) = run(params, case["tokens"])
    np.testing.assert_allclose(np.stack([outputs[name] for name in streams]), case["logit_lens"], **TOLERANCE)
    heads = {name: np.asarray(parts.pop(name)) for name in list(parts) if name.endswith("results")}
    assert len(heads) == depth
    logits, total = case["logits"], sum(map(np.asarray, parts.values()))
    head = np.asarray(params["head"]["kernel"])
    if style == "gemma2":  # a cap of logits: what adds up is the slope
        total = total / (1 - (logits / 3) ** 2)
        logits = 3 * np.arctanh(logits / 3)
    np.testing.assert_allclose(*np.broadcast_arrays(logits - total, (logits - total)[0, 0]), rtol=1e-6, atol=1e-8)
    if model.norm == "none":
        np.testing.assert_allclose(
            heads["decoder/block_1/attention/results"][2], case["head_results"][6] @ head, **TOLERANCE
        )
    elif style == "neox":
        scale = case["w.ln_final.w"] / case["act.ln_final.hook_scale"]
        written = case["head_results"][3] - case["head_results"][3].mean(-1, keepdims=True)
        np.testing.assert_allclose(heads["decoder/block_1/attention/results"][1], (written * scale) @ head, **TOLERANCE)


@pytest.fixture(scope="module")
def language_model():
    model = LanguageModel(vocab_size=7, context_length=6, width=8, depth=3, num_heads=2, scan=True)
    tokens = jax.random.randint(jax.random.key(0), (4, 6), 0, 7)
    params = jax.jit(model.init)(jax.random.key(1), tokens)["params"]
    params = jax.tree.map(lambda leaf: 3 * leaf if leaf.ndim > 2 else leaf, params)
    return lambda params, tokens: model.apply({"params": params}, tokens), params, tokens


LAST = "decoder/blocks/residual_mlp"


def test_a_scan_over_layers_is_read_layer_by_layer(language_model):
    apply_fn, params, tokens = language_model

    @jax.jit
    def run(params, tokens):
        output, values = capture(apply_fn, LAST)(params, tokens)
        lens = logit_lens(apply_fn, LAST, LAST)(params, tokens)[LAST]
        return output, lens, read_stream(apply_fn, LAST)(values[LAST][1], params, tokens)

    output, lens, second = run(params, tokens)
    assert lens.shape == (3, 4, 6, 7)
    np.testing.assert_allclose(lens[2], output, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(lens[1], second, rtol=1e-5, atol=1e-5)
    assert np.abs(lens[0] - output).max() > 1e-3


@pytest.mark.slow
def test_a_tuned_lens_comes_nearer_to_the_model_on_the_train_loop(language_model):
    apply_fn, params, tokens = language_model
    loss = tuned_lens_loss(apply_fn, LAST, LAST)
    optimizer = optax.adam(3e-2)
    step = jax.jit(make_step(lambda translators, batch, key: loss(translators, params, batch["x"]), optimizer))
    state = init_state(init_translators(3, 8), optimizer)
    told = []
    for _ in range(25):
        state, metrics = step(state, {"x": tokens}, jax.random.key(0))
        told.append({name: float(value) for name, value in metrics.items()})

    @jax.jit
    def read(translators, params, tokens):
        return logit_lens(apply_fn, LAST, LAST)(params, tokens), tuned_lens(apply_fn, LAST, LAST)(
            translators, params, tokens
        )

    plain, moved = (np.asarray(found[LAST]) for found in read(state.params, params, tokens))
    wanted, first = jax.nn.log_softmax(plain[2]), jax.nn.log_softmax(plain[0])
    np.testing.assert_allclose(told[0]["kl_0"], jnp.mean(jnp.sum(jnp.exp(wanted) * (wanted - first), -1)), rtol=1e-4)
    assert told[-1]["kl_0"] < 0.5 * told[0]["kl_0"] and abs(told[0]["kl_2"]) < 1e-6
    assert moved.shape == plain.shape and np.abs(moved[0] - plain[0]).max() > 1e-3


def linear(weights, x):
    return tap("last", tap("written", 2 * x) + tap("narrow", x[..., :1])) @ weights


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run(logit_lens(linear, ["writen"], "last")), "'writen' matches no value .* mean 'written'"),
        (lambda run: run(logit_lens(linear, ["narrow"], "last")), r"narrow: expected the shape \(2, 3\) of the"),
        (lambda run: run(logit_lens(linear, ["written"], "lost")), "'lost' matches no value .* did you mean 'last'"),
        (lambda run: run(logit_attribution(linear, ["written"], "last")), "norm/divisor' matches no value"),
        (lambda run: read_stream(linear, "last")(jnp.ones(3), jnp.ones((3, 2)), jnp.ones((2, 3))), "last: expected"),
        (lambda run: init_translators(0, 3), "streams: expected a whole number of at least 1, got 0"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_sentence(call, message):
    with pytest.raises(ConfigError, match=message):
        call(lambda function: function(jnp.ones((3, 2)), jnp.ones((2, 3))))
