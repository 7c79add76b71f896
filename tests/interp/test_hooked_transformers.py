"""Language models with the weights of transformer-lens' give its logits, and every activation within."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.interp import capture, intervene, tap_names
from aijax.models.published.transformer_lens import hook_taps

TOLERANCE = {"rtol": 1e-7, "atol": 1e-9}
SLOWER = [pytest.param(name, marks=pytest.mark.slow) for name in ("attn_only", "llama", "shortctx3l")]
STYLES = ("gemma2", "neox", *SLOWER)


@pytest.fixture(scope="module", params=STYLES)
def run(request, hooked):
    """Returns the model, its parameters, the case, and what was captured with all that has a name there."""
    with jax.enable_x64(True):
        model, params, case = hooked(f"tl_forward_{request.param}")
        hooks = hook_taps(model)
        found = jax.jit(capture(lambda params, tokens: model.apply({"params": params}, tokens), list(hooks.values())))
        logits, values = found(params, jnp.asarray(case["tokens"]))
        return model, params, case, hooks, logits, values


def test_logits_and_losses_are_those_of_the_reference(run):
    model, params, case, _, logits, _ = run
    np.testing.assert_allclose(logits, case["logits"], **TOLERANCE)
    with jax.enable_x64(True):
        plain = model.apply({"params": params}, case["tokens"])
        np.testing.assert_allclose(plain, case["logits"], **TOLERANCE)
        targets = case["tokens"][:, 1:] % case["logits"].shape[-1]
        losses = -np.take_along_axis(np.asarray(jax.nn.log_softmax(plain[:, :-1])), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(losses, case["loss_per_token"], **TOLERANCE)


def test_every_activation_is_that_of_the_reference(run):
    model, _, case, hooks, _, values = run
    for name, wanted in case.items():
        if not name.startswith("act."):
            continue
        found = np.asarray(values[hooks[name[4:]]])
        if name.endswith("mlp.hook_post") and model.gated:
            found = found + case["w." + name[4:].replace("hook_post", "b_in")]
        if name.endswith("attn_scores"):
            found = np.where(wanted <= -1e29, wanted, found)
        if name.endswith("hook_pos_embed"):
            found = np.broadcast_to(found, wanted.shape)
        np.testing.assert_allclose(found, wanted, **TOLERANCE, err_msg=name)


def test_what_the_branches_and_the_heads_add_is_told(run):
    model, _, case, hooks, _, values = run
    parts = [values[hooks["hook_embed"]]]
    if "hook_pos_embed" in hooks:
        parts.append(jnp.broadcast_to(values[hooks["hook_pos_embed"]], parts[0].shape))
    for i in range(model.depth):
        parts += [
            values[hooks[f"blocks.{i}.{name}"]]
            for name in ("hook_attn_out", "hook_mlp_out")
            if f"blocks.{i}.{name}" in hooks
        ]
    np.testing.assert_allclose(np.stack(parts), case["decomposed_resid"], **TOLERANCE)
    heads = [np.moveaxis(values[hooks[f"blocks.{i}.attn.hook_result"]], 2, 0) for i in range(model.depth)]
    np.testing.assert_allclose(np.concatenate(heads), case["head_results"], **TOLERANCE)


def test_taking_out_what_a_head_adds_is_taking_out_the_head(hooked):
    model, params, case = hooked("tl_forward_llama")
    tokens = jnp.asarray(case["tokens"], jnp.int32)

    def without(value):
        change = {f"decoder/block_1/attention/{value}": lambda x: x.at[:, :, 1].set(0)}
        return jax.jit(intervene(lambda params: model.apply({"params": params}, tokens), change))(params)

    np.testing.assert_allclose(without("results"), without("heads"), rtol=1e-4, atol=1e-5)
    assert np.abs(without("heads") - case["logits"]).max() > 1e-2


def test_what_is_not_asked_for_is_not_made(hooked):
    model, params, case = hooked("tl_forward_gemma2")

    def forward(params):
        return model.apply({"params": params}, jnp.asarray(case["tokens"], jnp.int32))

    names = tap_names(forward, params)
    assert not any(name.endswith(("scores", "weights", "results", "divisor", "normalized")) for name in names)
    everything = tap_names(forward, params, names=list(hook_taps(model).values()))
    assert set(hook_taps(model).values()) <= set(everything)
