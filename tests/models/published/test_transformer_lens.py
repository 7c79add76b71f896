"""State dicts of transformer-lens in styles beyond the reference's, against the same networks in plain NumPy."""

import math

import jax
import numpy as np
import pytest
from scipy.special import erf

from aijax.errors import ConfigError, DataError, UnsupportedError
from aijax.interp import capture
from aijax.models import LanguageModel
from aijax.models.published.transformer_lens import from_hooked_transformer, hook_taps

SMALL = {"n_layers": 2, "d_model": 8, "n_ctx": 7, "d_head": 4, "n_heads": 3, "d_vocab": 11, "d_mlp": 10, "eps": 1e-5}
ROTARY = {"positional_embedding_type": "rotary", "rotary_dim": 4, "rotary_base": 100}
STYLES = {
    "gptj": ROTARY | {
        "normalization_type": "LN", "act_fn": "gelu_new", "parallel_attn_mlp": True, "rotary_adjacent_pairs": True,
    },
    "folded": {"normalization_type": "LNPre", "act_fn": "gelu", "scale_attn_by_inverse_layer_idx": True},
    "llama_pre": ROTARY | {
        "normalization_type": "RMSPre", "act_fn": "silu", "gated_mlp": True, "n_heads": 4, "n_key_value_heads": 2,
    },
    "gemma": ROTARY | {
        "normalization_type": "RMS", "act_fn": "gelu_pytorch_tanh", "use_normalization_before_and_after": True,
        "attn_scores_soft_cap": 2.0, "output_logits_soft_cap": 1.5, "use_attn_scale": False, "d_vocab_out": 5,
    },
    "attention_only": {"normalization_type": "RMS", "attn_only": True, "act_fn": None, "attn_scale": 3.0},
}  # fmt: skip


def drawn(config):
    """Random tensors with the names of a state dict."""
    rng, c = np.random.default_rng(0), config
    heads, groups = c["n_heads"], c.get("n_key_value_heads") or c["n_heads"]
    bare, centred = "Pre" in c["normalization_type"], c["normalization_type"].startswith("LN")
    draw, tensors = (lambda *shape: rng.normal(size=shape) * 0.5), {}
    tensors["embed.W_E"] = draw(c["d_vocab"], c["d_model"])
    if "rotary_dim" not in c:
        tensors["pos_embed.W_pos"] = draw(c["n_ctx"], c["d_model"])
    norms = ["ln_final"]
    for i in range(c["n_layers"]):
        block = f"blocks.{i}."
        mark = "_" if c.get("n_key_value_heads") else ""
        for name, count in (("W_Q", heads), (f"{mark}W_K", groups), (f"{mark}W_V", groups)):
            tensors[f"{block}attn.{name}"] = draw(count, c["d_model"], c["d_head"])
            tensors[f"{block}attn.{name.replace('W', 'b')}"] = draw(count, c["d_head"])
        tensors |= {f"{block}attn.W_O": draw(heads, c["d_head"], c["d_model"]), f"{block}attn.b_O": draw(c["d_model"])}
        tensors[f"{block}attn.mask"] = np.tri(c["n_ctx"])
        norms.append(f"{block}ln1")
        if not c.get("attn_only"):
            names = ("W_in", "W_gate") if c.get("gated_mlp") else ("W_in",)
            tensors |= {f"{block}mlp.{name}": draw(c["d_model"], c["d_mlp"]) for name in names}
            tensors |= {f"{block}mlp.b_in": draw(c["d_mlp"]), f"{block}mlp.b_out": draw(c["d_model"])}
            tensors[f"{block}mlp.W_out"] = draw(c["d_mlp"], c["d_model"])
            norms += [] if c.get("parallel_attn_mlp") else [f"{block}ln2"]
        if c.get("use_normalization_before_and_after"):
            norms += [f"{block}ln1_post", f"{block}ln2_post"]
    for name in [] if bare else norms:
        tensors |= {f"{name}.w": draw(c["d_model"])} | ({f"{name}.b": draw(c["d_model"])} if centred else {})
    outputs = c.get("d_vocab_out", c["d_vocab"])
    return tensors | {"unembed.W_U": draw(c["d_model"], outputs), "unembed.b_U": draw(outputs)}


def forward(c, w, tokens):
    """The network as the reference documents it."""
    length, acts = tokens.shape[1], {}

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True) if c["normalization_type"].startswith("LN") else x
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + c["eps"])
        return x * w.get(f"{name}.w", 1.0) + w.get(f"{name}.b", 0.0)

    def rotate(x):
        if "rotary_dim" not in c:
            return x
        width, y = c["rotary_dim"], x.copy()
        for t in range(length):
            for i in range(width // 2):
                a, b = (2 * i, 2 * i + 1) if c.get("rotary_adjacent_pairs") else (i, i + width // 2)
                angle = t / c["rotary_base"] ** (2 * i / width)
                y[:, t, :, a] = x[:, t, :, a] * math.cos(angle) - x[:, t, :, b] * math.sin(angle)
                y[:, t, :, b] = x[:, t, :, b] * math.cos(angle) + x[:, t, :, a] * math.sin(angle)
        return y

    def act(x):
        if c["act_fn"] == "gelu":
            return x * (1 + erf(x / 2**0.5)) / 2
        if c["act_fn"] == "silu":
            return x / (1 + np.exp(-x))
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    x = w["embed.W_E"][tokens]
    x = x + w["pos_embed.W_pos"][:length] if "pos_embed.W_pos" in w else x
    for i in range(c["n_layers"]):
        block = f"blocks.{i}."
        read = norm(x, f"{block}ln1")

        def heads(name, read=read, block=block):
            mark = "_" if f"{block}attn._W_{name}" in w else ""
            y = np.einsum("btd,hdk->bthk", read, w[f"{block}attn.{mark}W_{name}"]) + w[f"{block}attn.{mark}b_{name}"]
            return np.repeat(y, c["n_heads"] // y.shape[2], 2)

        q, k, v = rotate(heads("Q")), rotate(heads("K")), heads("V")
        scale = c.get("attn_scale", c["d_head"] ** 0.5) if c.get("use_attn_scale", True) else 1.0
        scale *= i + 1 if c.get("scale_attn_by_inverse_layer_idx") else 1
        scores = np.einsum("bthk,bshk->bhts", q, k) / scale
        cap = c.get("attn_scores_soft_cap", -1)
        scores = cap * np.tanh(scores / cap) if cap > 0 else scores
        scores = np.where(np.tri(length) > 0, scores, -np.inf)
        pattern = np.exp(scores - scores.max(-1, keepdims=True))
        pattern /= pattern.sum(-1, keepdims=True)
        acts[f"{block}attn.hook_pattern"] = pattern
        z = np.einsum("bhts,bshk->bthk", pattern, v)
        added = np.einsum("bthk,hkd->btd", z, w[f"{block}attn.W_O"]) + w[f"{block}attn.b_O"]
        post = c.get("use_normalization_before_and_after")
        added = norm(added, f"{block}ln1_post") if post else added
        middle = x + added
        if not c.get("attn_only"):
            shared = f"{block}ln2" if not c.get("parallel_attn_mlp") else f"{block}ln1"
            read = norm(x if c.get("parallel_attn_mlp") else middle, shared)
            up = read @ w[f"{block}mlp.W_in"]
            bias = w[f"{block}mlp.b_in"]
            hidden = act(read @ w[f"{block}mlp.W_gate"]) * up + bias if c.get("gated_mlp") else act(up + bias)
            added = hidden @ w[f"{block}mlp.W_out"] + w[f"{block}mlp.b_out"]
            middle = middle + (norm(added, f"{block}ln2_post") if post else added)
        x = acts[f"{block}hook_resid_post"] = middle
    logits = norm(x, "ln_final") @ w["unembed.W_U"] + w["unembed.b_U"]
    cap = c.get("output_logits_soft_cap", -1)
    return (cap * np.tanh(logits / cap) if cap > 0 else logits), acts


@pytest.mark.parametrize("style", STYLES)
def test_a_style_gives_the_logits_of_plain_numpy(style):
    config = SMALL | STYLES[style]
    tensors, tokens = drawn(config), np.random.default_rng(1).integers(0, 11, (2, 6))
    wanted, acts = forward(config, tensors, tokens)
    with jax.enable_x64(True):
        model, params = from_hooked_transformer(config, tensors)
        taps = {hook: tap for hook, tap in hook_taps(model).items() if hook in acts}
        run = capture(lambda params, tokens: model.apply({"params": params}, tokens), list(taps.values()))
        logits, values = jax.jit(run)(params, tokens)
        plain = jax.jit(lambda params, tokens: model.apply({"params": params}, tokens))(params, tokens)
    np.testing.assert_allclose(logits, wanted, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(plain, wanted, rtol=1e-9, atol=1e-11)
    for hook, tap in taps.items():
        np.testing.assert_allclose(values[tap], acts[hook], rtol=1e-9, atol=1e-11, err_msg=hook)


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"normalization_type": "BN"}, ConfigError, "config.normalization_type: unknown value 'BN'"),
        (
            {"positional_embedding_type": "alibi"},
            ConfigError,
            "config.positional_embedding_type: unknown value 'alibi'",
        ),
        ({"act_fn": "solu_ln"}, UnsupportedError, "config.act_fn: 'solu_ln' is not offered"),
        ({"use_local_attn": True}, ConfigError, "config.use_local_attn: unknown field, got True"),
        ({"attention_dir": "bidirectional"}, UnsupportedError, "config.attention_dir: 'bidirectional' is not offered"),
        ({"final_rms": True}, UnsupportedError, r"config.final_rms: True is not offered with layer norms"),
        ({"d_head": None}, ConfigError, "config.d_head: expected int, got None"),
    ],
)
def test_configs_that_are_not_offered_are_told(changes, error, told):
    config = SMALL | {"normalization_type": "LN", "act_fn": "gelu"}
    with pytest.raises(error, match=told):
        from_hooked_transformer(config | changes, drawn(config))


def test_fields_that_change_nothing_are_passed_over():
    config = SMALL | {"normalization_type": "LN", "act_fn": "gelu"}
    whole = {
        "NTK_by_parts_factor": 8.0, "NTK_original_ctx_len": 8192, "use_NTK_by_parts_rope": False, "device": "cpu",
        "init_mode": "gpt2", "initializer_range": 0.02, "n_params": 12, "window_size": None, "d_vocab_out": -1,
        "n_devices": 1, "default_prepend_bos": True, "tokenizer_name": None, "attn_scale": -1.0,
    }  # fmt: skip
    assert (
        from_hooked_transformer(config | whole, drawn(config))[0] == from_hooked_transformer(config, drawn(config))[0]
    )


def test_tensors_that_do_not_fit_are_all_told():
    config = SMALL | {"normalization_type": "LN", "act_fn": "gelu"}
    tensors = drawn(config)
    with pytest.raises(
        DataError, match=r"expected the tensors of a HookedTransformer, got none that is called embed.W_E"
    ):
        from_hooked_transformer(config, {})
    del tensors["blocks.1.mlp.W_out"]
    tensors |= {"blocks.2.ln1.w": np.ones(8), "blocks.0.attn.W_O": np.ones((3, 4, 9))}
    with pytest.raises(DataError, match=r"missing: blocks.1.mlp.W_out; unknown: blocks.2.ln1.w; of another shape: bl"):
        from_hooked_transformer(config, tensors)


def test_a_tied_head_has_no_bias():
    with pytest.raises(ConfigError, match="tied: num_outputs and head_bias need a head of its own"):
        LanguageModel(5, 4, 8, 1, 2, head_bias=True).init(jax.random.key(0), np.zeros((1, 2), int))
