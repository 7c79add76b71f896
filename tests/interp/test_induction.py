"""Trained networks of the reference: their losses, their heads' scores, and what ablating heads does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.interp import capture, head_circuits
from aijax.interp.attention_patterns import attention_pattern_analysis, induction_positions, named_heads
from aijax.interp.patching import sweep

TOLERANCE = {"rtol": 1e-6, "atol": 1e-8}


@pytest.fixture(scope="module", params=["induction_2l_b", "control_1l"])
def found(request, hooked):
    """Returns the case and what we find in its network."""
    with jax.enable_x64(True):
        model, params, case = hooked(request.param)
        tokens = jnp.asarray(case["tokens"].astype(np.int32))
        told = case["prev"][:, :-1] >= 0

        def apply_fn(params, tokens):
            return model.apply({"params": params}, tokens)

        def losses(logits):
            logs = jax.nn.log_softmax(logits[:, :-1])
            return -jnp.take_along_axis(logs, tokens[:, 1:, None], -1)[..., 0]

        def repeat_loss(logits):
            return jnp.mean(losses(logits), where=told)

        @jax.jit
        def run(params):
            logits, values = capture(apply_fn, ".*/weights")(params, tokens)
            weights = jnp.stack(list(values.values()))
            ablated = {
                f"{kind}_ablation_repeat_loss": jnp.stack(list(sweep(
                    apply_fn, repeat_loss, {".*/heads": (2,)}, ablation=kind
                )(params, tokens).values.values()))
                for kind in ("zero", "mean")
            }  # fmt: skip
            scores = attention_pattern_analysis(weights, tokens, first=2)
            composition = head_circuits.composition_scores(head_circuits.head_weights(params["decoder"], 4))
            return losses(logits), weights[:, :3], scores, ablated, composition, induction_positions(tokens)

        return case, told, *run(params)


def test_losses_and_patterns_are_those_of_the_reference(found):
    case, told, losses, weights, *_ = found
    losses = np.asarray(losses)
    np.testing.assert_allclose(losses, case["loss_per_token"], **TOLERANCE)
    np.testing.assert_allclose(losses[told].mean(), case["loss_repeat"], **TOLERANCE)
    np.testing.assert_allclose(losses[~told].mean(), case["loss_nonrepeat"], **TOLERANCE)
    np.testing.assert_allclose(weights, case["patterns_first3"], atol=1e-6)  # stored in 32 bits


def test_scores_of_heads_are_those_of_the_reference_and_name_the_right_ones(found):
    case, _, _, _, scores, _, composition, positions = found
    wanted = np.where(positions.any(-1), positions.argmax(-1), -1)
    np.testing.assert_array_equal(wanted, case["prev"])
    np.testing.assert_allclose(scores.induction, case["induction_score"], **TOLERANCE)
    np.testing.assert_allclose(scores.previous_token, case["prev_token_score"], **TOLERANCE)
    named = named_heads(scores)
    if len(case["induction_score"]) == 1:
        assert not named["induction"] and not named["previous_token"]
        return
    assert set(named["induction"]) == {(1, head) for head in range(4)}
    assert named["previous_token"] == [(0, 3), (0, 1)]
    for letter, score in zip("QKV", composition, strict=True):
        np.testing.assert_allclose(score, case[f"composition_{letter}"], **TOLERANCE)


def test_ablating_heads_costs_what_it_costs_the_reference(found):
    case, _, _, _, _, ablated, *_ = found
    for name, losses in ablated.items():
        np.testing.assert_allclose(losses, case[name], **TOLERANCE, err_msg=name)
