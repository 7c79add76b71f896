"""State dicts of transformer-lens' `HookedTransformer` (Nanda and Bloom 2022): small models whose insides are known.

Its matrices of attention lie head by head, W_Q [h, d, k], where a kernel here is [d, h k]. A gated MLP there is
(act(x W_gate) * (x W_in) + b_in) W_out + b_out: b_in is folded, b_out + b_in W_out, so that its `mlp.hook_post` is b_in
more than what is tapped here as "hidden". Norms without parameters ("LNPre", "RMSPre") get those that change nothing.
`hook_taps` says what the values are called that it calls hooks.
"""

import math
import re
from collections.abc import Mapping

import jax
import numpy as np

from aijax.errors import DataError, UnsupportedError, choose
from aijax.models.init import init
from aijax.models.layout import SAME, Entry, Layout, from_published
from aijax.models.lm import LanguageModel
from aijax.models.published.architecture import Fields
from aijax.models.published.transformers import take_activation
from aijax.typing import Any, Params

NORMS = {"LN": "layer", "LNPre": "layer", "RMS": "rms", "RMSPre": "rms"}
POSITIONS = {"standard": "learned", "rotary": "rotary"}
BLOCK = "decoder/block_{i}/"
NORM_NAMES = {
    "ln1": "norm_attention", "ln2": "norm_mlp", "ln1_post": "norm_attention_output", "ln2_post": "norm_mlp_output",
}  # fmt: skip
PARTS = {
    "attn.W_Q": "attention/query/kernel", "attn.b_Q": "attention/query/bias", "attn.W_K": "attention/key/kernel",
    "attn.b_K": "attention/key/bias", "attn.W_V": "attention/value/kernel", "attn.b_V": "attention/value/bias",
    "attn.W_O": "attention/out/kernel", "attn.b_O": "attention/out/bias", "mlp.W_in": "mlp/up/kernel",
    "mlp.b_in": "mlp/up/bias", "mlp.W_gate": "mlp/gate/kernel", "mlp.W_out": "mlp/down/kernel",
    "mlp.b_out": "mlp/down/bias",
    **{f"{name}.w": f"{own}/scale" for name, own in NORM_NAMES.items()},
    **{f"{name}.b": f"{own}/bias" for name, own in NORM_NAMES.items()},
}  # fmt: skip
ATTENTION_HOOKS = {
    "q": "queries", "k": "keys", "v": "values", "attn_scores": "scores", "pattern": "weights", "z": "heads",
    "result": "results",
}  # fmt: skip
WHOLE = {
    "embed.W_E": "embedding/embedding", "pos_embed.W_pos": "positions", "ln_final.w": "decoder/norm/scale",
    "ln_final.b": "decoder/norm/bias", "unembed.W_U": "head/kernel", "unembed.b_U": "head/bias",
}  # fmt: skip
LAYOUT = Layout(
    tuple(Entry(f"blocks.{{i}}.{name}", BLOCK + own, SAME) for name, own in PARTS.items())
    + tuple(Entry(name, own, SAME) for name, own in WHOLE.items()),
    ignored=(r"blocks\.\d+\.attn\.(mask|IGNORE|rotary_sin|rotary_cos)",),
)
WITHOUT_EFFECT = (
    "NTK_by_parts_factor", "NTK_by_parts_high_freq_factor", "NTK_by_parts_low_freq_factor", "NTK_original_ctx_len",
    "checkpoint_index", "checkpoint_label_type", "checkpoint_value", "default_prepend_bos", "device", "dtype",
    "from_checkpoint", "init_mode", "init_weights", "initializer_range", "load_in_4bit", "model_name", "n_devices",
    "n_params", "seed", "tokenizer_name", "tokenizer_prepends_bos", "trust_remote_code",
    "ungroup_grouped_query_attention", "use_attn_in", "use_attn_result", "use_hook_mlp_in",
    "use_hook_tokens", "use_split_qkv_input", "window_size",
)  # fmt: skip
"""Fields of configs that change no output, such as those of positions and windows that are not in use."""


def from_hooked_transformer(
    config: Mapping[str, Any], tensors: Mapping[str, Any], *, dtype: Any = None, where: str = "config"
) -> tuple[LanguageModel, Params]:
    """Returns the language model that a `HookedTransformerConfig` describes, and its parameters from a state dict.

    Args:
      config: its fields, as of `config.to_dict()`.
      tensors: by the names of the state dict, `blocks.0.attn.W_Q` and so on.
      dtype: of the parameters; None keeps that of the tensors. In float64 rotary angles are of 64 bits too, as there.
      where: what they are, for messages.

    Raises:
      ConfigError, UnsupportedError: a field that is unknown or missing, or a value that is not offered.
      DataError: tensors that are missing, unknown or of another shape; all are listed.
    """
    tensors = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    if "embed.W_E" not in tensors:
        raise DataError(f"{where}: expected the tensors of a HookedTransformer, got none that is called embed.W_E")
    dtype = jax.dtypes.canonicalize_dtype(tensors["embed.W_E"].dtype if dtype is None else dtype)
    model = _model(config, dtype, where)
    tokens = jax.ShapeDtypeStruct((1, 1), np.int32)
    shapes = jax.eval_shape(lambda tokens: init(jax.random.key(0), model, tokens), tokens)
    tensors = _prepared(tensors, model, bare=config.get("normalization_type") in ("LNPre", "RMSPre"))
    return model, from_published(tensors, shapes, LAYOUT, dtype=dtype, where=where)


def hook_taps(model: LanguageModel) -> dict[str, str]:
    """Returns what each hook of a `HookedTransformer` is called in `aijax.interp.capture`, for a stack that is looped.

    >>> model = LanguageModel(vocab_size=7, context_length=4, width=8, depth=2, num_heads=2)
    >>> hook_taps(model)["blocks.1.attn.hook_z"]
    'decoder/block_1/attention/heads'
    """
    kept = {f"attn.hook_{name}": f"attention/{own}" for name, own in ATTENTION_HOOKS.items()}
    kept |= {"hook_resid_pre": "residual", "hook_attn_out": "branch_attention"}
    kept["hook_resid_post"] = "residual_mlp" if _has_mlp(model) else "residual_attention"
    if model.positions == "rotary":
        kept |= {"attn.hook_rot_q": "attention/rotated_queries", "attn.hook_rot_k": "attention/rotated_keys"}
    if _has_mlp(model):
        kept |= {"hook_mlp_out": "branch_mlp", "mlp.hook_post": "mlp/hidden"}
        kept |= (
            {"mlp.hook_pre": "mlp/gate", "mlp.hook_pre_linear": "mlp/up"} if model.gated else {"mlp.hook_pre": "mlp/up"}
        )
        kept |= {} if model.parallel else {"hook_resid_mid": "residual_attention"}
    for name in _norms(model):
        kept |= _norm_taps(name, NORM_NAMES[name])
    blocks = {
        f"blocks.{i}.{hook}": f"decoder/block_{i}/{own}" for i in range(model.depth) for hook, own in kept.items()
    }
    whole = {"hook_embed": "embedding"} | (
        {"hook_pos_embed": "position_embedding"} if model.positions == "learned" else {}
    )
    whole |= {} if model.norm == "none" else _norm_taps("ln_final", "decoder/norm")
    return whole | blocks | {"unembed.hook_in": "decoder", "unembed.hook_out": "head"}


def _has_mlp(model):
    return model.mlp_width != 0


def _norms(model):
    """The norms of a block, by the names they have there."""
    branches = [] if model.norm == "none" else ["ln1", "ln2"] if _has_mlp(model) else ["ln1"]
    return [name + end for name in branches for end in ("", "_post")[: 1 + model.output_norm]]


def _norm_taps(name, own):
    return {f"{name}.hook_scale": f"{own}/divisor", f"{name}.hook_normalized": f"{own}/normalized"}


def _model(config, dtype, where):
    fields = Fields(config, where)
    width, head_width = fields.take("d_model", int), fields.take("d_head", int)
    heads = fields.take("n_heads", int, None)
    heads = width // head_width if heads in (None, -1) else heads
    kv_heads, vocabulary = fields.take("n_key_value_heads", int, None), fields.take("d_vocab", int)
    outputs = fields.take("d_vocab_out", int, None)
    norm = choose(NORMS, fields.take("normalization_type", str, "LN"), f"{where}.normalization_type")
    norm = "none" if config.get("normalization_type", "LN") is None else norm
    rotary = fields.take("positional_embedding_type", str, "standard")
    positions = choose(POSITIONS, rotary, f"{where}.positional_embedding_type")
    attention_only, gated = fields.take("attn_only", bool, False), fields.take("gated_mlp", bool, False)
    hidden = fields.take("d_mlp", int, None)
    rotary_width, base = fields.take("rotary_dim", int, None), float(fields.take("rotary_base", float, 10000))
    interleaved = fields.take("rotary_adjacent_pairs", bool, False)
    own_scale = fields.take("attn_scale", float, None)
    own_scale = math.sqrt(head_width) if own_scale in (None, -1) else own_scale
    own_scale = own_scale if fields.take("use_attn_scale", bool, True) else 1.0
    if fields.take("final_rms", bool, False) and norm == "layer":
        raise UnsupportedError(f"{where}.final_rms: True is not offered with layer norms, only False")
    fields.expect("attention_dir", "causal")
    model = LanguageModel(
        vocab_size=vocabulary,
        context_length=fields.take("n_ctx", int),
        width=width,
        depth=fields.take("n_layers", int),
        num_heads=heads,
        head_width=None if heads * head_width == width else head_width,
        num_kv_heads=None if kv_heads == heads else kv_heads,
        mlp_width=0 if attention_only else 4 * width if hidden in (None, -1) else hidden,
        gated=gated and not attention_only,
        activation="relu" if attention_only else take_activation(fields, "act_fn", "relu"),
        biases=("query", "key", "value", "out", "down") + (() if gated else ("up",)),
        norm=norm,
        norm_epsilon=fields.take("eps", float, 1e-5),
        positions=positions,
        tied=False,
        head_bias=True,
        num_outputs=None if outputs in (None, -1, vocabulary) else outputs,
        attention_scale=None if math.isclose(own_scale, math.sqrt(head_width)) else 1 / own_scale,
        scale_by_depth=fields.take("scale_attn_by_inverse_layer_idx", bool, False),
        attention_soft_cap=_cap(fields.take("attn_scores_soft_cap", float, -1.0)),
        logit_soft_cap=_cap(fields.take("output_logits_soft_cap", float, -1.0)),
        output_norm=fields.take("use_normalization_before_and_after", bool, False),
        parallel=fields.take("parallel_attn_mlp", bool, False),
        rotary_base=base,
        rotary_width=None if rotary_width == head_width else rotary_width,
        rotary_interleaved=interleaved,
        rotary_dtype="float64" if dtype == np.float64 else "float32",
        param_dtype=dtype.name,
        scan=False,
    )
    fields.skip("act_fn", "original_architecture", *WITHOUT_EFFECT)
    fields.done()
    return model


def _cap(value):
    return value if value > 0 else None


def _prepared(tensors, model, *, bare):
    """The tensors under one name each, with all the parameters of norms, and attention's as matrices."""
    tensors = {re.sub(r"\.attn\._(?=[Wb]_[KV]$)", ".attn.", name): tensor for name, tensor in tensors.items()}
    for i in range(model.depth):
        block = f"blocks.{i}."
        for name in "QKV":
            tensors = _changed(
                tensors, f"{block}attn.W_{name}", 3, lambda w: np.moveaxis(w, 0, 1).reshape(w.shape[1], -1)
            )
            tensors = _changed(tensors, f"{block}attn.b_{name}", 2, np.ravel)
        tensors = _changed(tensors, f"{block}attn.W_O", 3, lambda w: w.reshape(-1, w.shape[-1]))
        if model.gated and {f"{block}mlp.b_in", f"{block}mlp.W_out"} <= set(tensors):
            shift = tensors.pop(f"{block}mlp.b_in") @ tensors[f"{block}mlp.W_out"]
            tensors = _changed(tensors, f"{block}mlp.b_out", 1, lambda b, shift=shift: b + shift)
        if model.parallel and f"{block}ln2.w" not in tensors:
            tensors |= {f"{block}ln2.{p}": tensors[f"{block}ln1.{p}"] for p in "wb" if f"{block}ln1.{p}" in tensors}
    if bare:
        for name in [f"blocks.{i}.{norm}" for i in range(model.depth) for norm in _norms(model)] + ["ln_final"]:
            tensors |= {f"{name}.w": np.ones(model.width)} | (
                {f"{name}.b": np.zeros(model.width)} if model.norm == "layer" else {}
            )
    return tensors


def _changed(tensors, name, ndim, change):
    if name not in tensors or tensors[name].ndim != ndim:
        return tensors  # what is missing, or of another shape, is told when all are compared
    return tensors | {name: change(tensors[name])}
