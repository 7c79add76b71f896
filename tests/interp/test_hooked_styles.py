"""Language models of every style that transformer-lens' configs can tell, against a forward pass in NumPy."""

import jax
import numpy as np
import pytest

from aijax.interp import capture
from aijax.models.published.transformer_lens import from_hooked_transformer, hook_taps

CONFIG = {
    "n_layers": 2, "d_model": 8, "n_ctx": 6, "d_head": 4, "n_heads": 2, "n_key_value_heads": None, "d_vocab": 11,
    "d_vocab_out": 11, "d_mlp": 6, "act_fn": "gelu_new", "normalization_type": "LN", "eps": 1e-3, "gated_mlp": False,
    "positional_embedding_type": "standard", "rotary_dim": None, "rotary_base": 10000, "rotary_adjacent_pairs": False,
    "parallel_attn_mlp": False, "attn_scale": 2.0, "use_attn_scale": True,
}  # fmt: skip
ROTARY = {"positional_embedding_type": "rotary", "rotary_dim": 4}
GPT_J = ROTARY | {"rotary_dim": 2, "rotary_adjacent_pairs": True, "parallel_attn_mlp": True}
STYLES = {
    "gpt_j": GPT_J | {"d_vocab_out": 7},
    "two norms of parallel branches": ROTARY | {"parallel_attn_mlp": True, "two_norms": True, "act_fn": "relu"},
    "one head of keys": ROTARY
    | {"n_key_value_heads": 1, "normalization_type": "RMS", "gated_mlp": True, "act_fn": "silu"},
    "no scale, bare norms": {"use_attn_scale": False, "normalization_type": "LNPre", "act_fn": "silu"},
    "no norms, wide heads, a smaller base": ROTARY | {"normalization_type": None, "d_head": 6, "rotary_base": 100},
    "scale of its own, by depth": {"attn_scale": 1.5, "scale_attn_by_inverse_layer_idx": True, "gated_mlp": True},
}
ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}


@pytest.mark.parametrize(
    "style", [pytest.param(name, marks=[pytest.mark.slow] if place > 2 else []) for place, name in enumerate(STYLES)]
)
def test_a_style_gives_the_logits_and_patterns_of_its_equations(style):
    config = CONFIG | STYLES[style]
    two_norms = config.pop("two_norms", not config["parallel_attn_mlp"])
    rng = np.random.default_rng(0)
    weights, tokens = drawn(rng, config, two_norms), rng.integers(0, 11, (2, 5))
    logits, found = forward(config, weights, tokens)
    with jax.enable_x64(True):
        model, params = from_hooked_transformer(config, weights)
        names = {hook: tap for hook, tap in hook_taps(model).items() if hook in found}
        run = jax.jit(capture(lambda params, tokens: model.apply({"params": params}, tokens), list(names.values())))
        ours, values = run(params, tokens)
    assert len(names) == len(found) == 6
    np.testing.assert_allclose(ours, logits, rtol=1e-9, atol=1e-11)
    for hook, tap in names.items():
        np.testing.assert_allclose(values[tap], found[hook], rtol=1e-9, atol=1e-11, err_msg=hook)


def drawn(rng, config, two_norms):
    draw = lambda *shape: 0.6 * rng.normal(size=shape)  # noqa: E731
    d, k, m, h = (config[name] for name in ("d_model", "d_head", "d_mlp", "n_heads"))
    groups, norms = config["n_key_value_heads"] or h, ["ln_final"]
    weights = {"embed.W_E": draw(11, d), "unembed.W_U": draw(d, config["d_vocab_out"])}
    weights["unembed.b_U"] = draw(config["d_vocab_out"])
    if config["positional_embedding_type"] == "standard":
        weights["pos_embed.W_pos"] = draw(config["n_ctx"], d)
    for layer in range(config["n_layers"]):
        shapes = {"attn.W_Q": (h, d, k), "attn.b_Q": (h, k), "attn.W_O": (h, k, d), "attn.b_O": (d,)}
        for name in "KV":
            mark = "_" if groups < h else ""
            shapes |= {f"attn.{mark}W_{name}": (groups, d, k), f"attn.{mark}b_{name}": (groups, k)}
        shapes |= {"mlp.W_in": (d, m), "mlp.b_in": (m,), "mlp.W_out": (m, d), "mlp.b_out": (d,)}
        shapes |= {"mlp.W_gate": (d, m)} if config["gated_mlp"] else {}
        weights |= {f"blocks.{layer}.{name}": draw(*shape) for name, shape in shapes.items()}
        norms += [f"blocks.{layer}.ln{place}" for place in range(1, 2 + two_norms)]
    kind = config["normalization_type"]
    weights |= {f"{name}.w": 1 + draw(d) for name in norms if kind in ("LN", "RMS")}
    return weights | {f"{name}.b": draw(d) for name in norms if kind == "LN"}


def forward(config, weights, tokens):
    """The logits, and by their hooks the patterns and the outputs of both branches."""
    kind, length, found = config["normalization_type"], tokens.shape[1], {}
    heads = config["n_heads"]
    groups = config["n_key_value_heads"] or heads

    def norm(name, x):
        if kind is None:
            return x
        x = x - x.mean(-1, keepdims=True) if kind.startswith("LN") else x
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + config["eps"])
        return x * weights.get(f"{name}.w", 1) + weights.get(f"{name}.b", 0)

    def turned(x):
        width = config["rotary_dim"]
        for i in range((width or 0) // 2):
            pair = [2 * i, 2 * i + 1] if config["rotary_adjacent_pairs"] else [i, i + width // 2]
            unit = np.exp(1j * np.arange(length) * config["rotary_base"] ** (-2 * i / width))
            z = (x[..., pair[0]] + 1j * x[..., pair[1]]) * unit
            x = x.copy()
            x[..., pair[0]], x[..., pair[1]] = z.real, z.imag
        return x

    x = weights["embed.W_E"][tokens]
    x = x + weights["pos_embed.W_pos"][:length] if "pos_embed.W_pos" in weights else x
    for layer in range(config["n_layers"]):
        own = {name.split(".", 2)[2].replace("_W", "W").replace("_b", "b"): value for name, value in weights.items()
               if name.startswith(f"blocks.{layer}.")}  # fmt: skip
        read, patterns, added = norm(f"blocks.{layer}.ln1", x), [], own["attn.b_O"]
        for head in range(heads):
            group = head * groups // heads
            q, k, v = (
                read @ own[f"attn.W_{name}"][place] + own[f"attn.b_{name}"][place]
                for name, place in (("Q", head), ("K", group), ("V", group))
            )
            scores = turned(q) @ turned(k).swapaxes(1, 2) / (config["attn_scale"] if config["use_attn_scale"] else 1)
            scores = scores / (layer + 1 if config.get("scale_attn_by_inverse_layer_idx") else 1)
            odds = np.exp(scores) * np.tri(length)
            patterns.append(odds / odds.sum(-1, keepdims=True))
            added = added + patterns[-1] @ v @ own["attn.W_O"][head]
        between = x if config["parallel_attn_mlp"] else x + added
        read = norm(f"blocks.{layer}.ln{1 if config['parallel_attn_mlp'] and 'ln2.w' not in own else 2}", between)
        act = ACTIVATIONS[config["act_fn"]]
        if config["gated_mlp"]:
            hidden = act(read @ own["mlp.W_gate"]) * (read @ own["mlp.W_in"]) + own["mlp.b_in"]
        else:
            hidden = act(read @ own["mlp.W_in"] + own["mlp.b_in"])
        more = hidden @ own["mlp.W_out"] + own["mlp.b_out"]
        found[f"blocks.{layer}.attn.hook_pattern"] = np.stack(patterns, 1)
        found |= {f"blocks.{layer}.hook_attn_out": added, f"blocks.{layer}.hook_mlp_out": more}
        x = x + added + more
    return norm("ln_final", x) @ weights["unembed.W_U"] + weights["unembed.b_U"], found
