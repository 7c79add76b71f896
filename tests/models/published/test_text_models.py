"""BERT, GPT-2, Llama and T5 as published: outputs, losses, gradients, training curves, and files both ways."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from aijax import models
from aijax.errors import ConfigError, DataError, UnsupportedError
from aijax.models.layout import to_published
from aijax.models.pretrained import find_architecture, from_config, read_config

CASES = ("bert_hf/base", "gpt2_hf/base", "llama_hf/gqa", "t5_hf/relu_tied")
EXACT = {"bert_hf": 1e-10, "gpt2_hf": 1e-10, "llama_hf": 5e-6, "t5_hf": 5e-6}
"""In float64; the reference of Llama and T5 rounds its norms to float32."""
LOSS = {"bert_hf": 1e-10, "gpt2_hf": 2e-6, "llama_hf": 2e-6, "t5_hf": 2e-6}
"""The reference of language models rounds losses to float32."""


class Case:
    """A published model, its inputs and what it should give."""

    def __init__(self, folder, dtype="float64"):
        self.folder, self.family = folder, folder.parent.name
        self.data = load_file(folder / "data.safetensors")
        self.train = json.loads((folder / "case.json").read_text())["train"]
        self.model, self.params = models.load(folder, dtype=dtype)
        self.labels = self.data.get("in.labels", self.data["in.input_ids"])

    def logits(self, params):
        tokens, variables = self.data["in.input_ids"], {"params": params}
        if self.family == "bert_hf":
            told = {"mask": self.data["in.attention_mask"], "token_types": self.data["in.token_type_ids"]}
            return self.model.apply(variables, tokens, **told)
        if self.family == "t5_hf":
            before = np.pad(np.where(self.labels < 0, 0, self.labels), ((0, 0), (1, 0)))[:, :-1]
            return self.model.apply(variables, tokens, before, mask=self.data["in.attention_mask"])
        return self.model.apply(variables, tokens)

    def loss(self, params):
        logits, labels = self.logits(params), self.labels
        if self.family in ("gpt2_hf", "llama_hf"):
            logits, labels = logits[:, :-1], labels[:, 1:]
        told = labels >= 0
        each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(told, labels, 0))
        return jnp.sum(each * told) / told.sum()

    def published(self, params):
        architecture = find_architecture(read_config(self.folder), "config")
        tensors = to_published(params, architecture.layout(self.model, {}))
        return {architecture.publish(name): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", [CASES[0], pytest.param(CASES[1], marks=pytest.mark.slow), *CASES[2:]])
def test_outputs_and_losses_are_those_of_the_reference(quick_jit, x64, golden, name):
    case = Case(golden / "vision_text" / name)
    logits, loss = quick_jit(lambda params: (case.logits(params), case.loss(params)))(case.params)
    np.testing.assert_allclose(logits, case.data["out.logits"], atol=EXACT[case.family])
    np.testing.assert_allclose(loss, case.train["loss"], atol=LOSS[case.family])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_outputs_in_32_bits(quick_jit, golden, name):
    case = Case(golden / "vision_text" / name, "float32")
    tolerance = 1e-5 if case.family == "gpt2_hf" else 5e-5
    np.testing.assert_allclose(quick_jit(case.logits)(case.params), case.data["out.logits"], atol=tolerance)


@pytest.mark.parametrize("name", ["llama_hf/gqa", *(pytest.param(name, marks=pytest.mark.slow) for name in CASES[:2])])
def test_gradients_of_each_tensor(quick_jit, x64, golden, name):
    case = Case(golden / "vision_text" / name)
    found, wanted = (
        case.published(quick_jit(jax.grad(case.loss))(case.params)),
        load_file(case.folder / "grads.safetensors"),
    )
    assert set(found) == set(wanted)
    for tensor, values in wanted.items():
        np.testing.assert_allclose(found[tensor], values, atol=5e-6 * max(1.0, np.abs(values).max()), err_msg=tensor)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_eight_steps_of_adamw(quick_jit, x64, golden, name):
    case = Case(golden / "vision_text" / name)
    matrices = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=0.05, mask=matrices))

    def step(carry, _):
        params, state = carry
        loss, grads = jax.value_and_grad(case.loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), (loss, optax.tree.norm(grads))

    start = case.params, optimizer.init(case.params)
    losses, norms = quick_jit(lambda carry: jax.lax.scan(step, carry, length=8))(start)[1]
    curve = case.train["adamw8"]
    np.testing.assert_allclose(losses, curve["losses"], rtol=1e-6)
    np.testing.assert_allclose(norms, curve["grad_norms_before_clip"], rtol=5e-5)


@pytest.mark.parametrize("fields", [{}, pytest.param({"scan": True}, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_what_is_saved_is_what_was_loaded(tmp_path, golden, name, fields):
    folder = golden / "vision_text" / name
    if name == "bert_hf/base":
        fields = {}
    model, params = models.load(folder, **fields)
    models.save(tmp_path, model, params)
    saved, published = load_file(tmp_path / "model.safetensors"), load_file(folder / "weights.safetensors")
    assert {n: t.tobytes() for n, t in saved.items()} == {n: t.tobytes() for n, t in published.items()}
    assert models.load(tmp_path, **fields)[0] == model


def test_old_files_of_bert_and_the_pooled_feature(tmp_path, golden):
    folder = golden / "vision_text/bert_hf/base"
    config, tensors = read_config(folder), load_file(folder / "weights.safetensors")
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()}
    pooler = {"bert.pooler.dense.weight": np.eye(32, dtype=np.float32), "bert.pooler.dense.bias": np.ones(32, "f")}
    found = models.pretrained.from_tensors(config, old | pooler)[1]
    same = models.pretrained.from_tensors(config, tensors)[1]
    jax.tree.map(np.testing.assert_array_equal, found, same)
    model, params = models.pretrained.from_tensors({**config, "architectures": ["BertModel"]}, old | pooler)
    assert (model.pool, model.projection_activation) == ("first", "tanh")
    np.testing.assert_array_equal(params["projection"]["bias"], np.ones(32))


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("gpt2_hf/base", {"add_cross_attention": True}, "add_cross_attention: True is not offered"),
        ("gpt2_hf/base", {"activation_function": "gelu_10"}, "activation_function: 'gelu_10' is not offered"),
        ("gpt2_hf/base", {"embd_pdrop": 0.1}, "embd_pdrop: expected that of resid_pdrop"),
        ("gpt2_hf/base", {"n_heads": 2}, "n_heads: unknown field, got 2; did you mean 'n_head'"),
        ("bert_hf/base", {"is_decoder": True}, "is_decoder: True is not offered"),
        ("bert_hf/base", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("llama_hf/gqa", {"rope_parameters": {"rope_type": "yarm", "factor": 2.0}}, "did you mean 'yarn'"),
        ("llama_hf/gqa", {"rope_parameters": {"rope_type": "linear"}}, "linear needs 'factor', which is missing"),
        ("llama_hf/gqa", {"rope_parameters": {"rope_type": "linear", "factr": 1.0}}, "factr: unknown field"),
        ("llama_hf/gqa", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor: only 1"),
        ("llama_hf/gqa", {"num_key_value_heads": 3}, "num_kv_heads: expected a divisor of num_heads 4, got 3"),
        ("t5_hf/relu_tied", {"feed_forward_proj": "gated-gelo"}, "feed_forward_proj: 'gated-gelo' is not offered"),
        ("t5_hf/relu_tied", {"dense_act_fn": "gelu"}, "dense_act_fn: 'gelu' is not offered, only 'relu'"),
    ],
)
def test_what_is_not_offered_is_named(golden, name, fields, told):
    folder = golden / "vision_text" / name
    with pytest.raises(ConfigError, match=told):
        models.pretrained.from_tensors({**read_config(folder), **fields}, load_file(folder / "weights.safetensors"))


def test_a_checkpoint_of_another_architecture_is_refused(golden):
    folder = golden / "vision_text"
    with pytest.raises(DataError, match=r"got 21; missing: h\.0\.attn\.c_attn\.bias.*of another shape: wte\.weight"):
        models.pretrained.from_tensors(
            read_config(folder / "gpt2_hf/base"), load_file(folder / "llama_hf/gqa/weights.safetensors")
        )
    with pytest.raises(UnsupportedError, match="unknown class 'LlamaForCausalML'; did you mean 'LlamaForCausalLM'"):
        from_config({"architectures": ["LlamaForCausalML"]})


@pytest.mark.parametrize(
    ("name", "architecture", "first"),
    [
        ("gpt2_hf/base", "GPT2Model", "wte.weight"),
        ("llama_hf/gqa", "LlamaModel", "embed_tokens.weight"),
        ("t5_hf/relu_tied", "T5Model", "shared.weight"),
    ],
)
def test_models_without_the_matrix_of_an_output_are_read_and_written(golden, tmp_path, name, architecture, first):
    module, params = models.load(golden / "vision_text" / name)
    module, params = module.clone(tied=True), {part: leaf for part, leaf in params.items() if part != "head"}
    models.save(tmp_path, module, params, architecture=architecture)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [architecture]
    tensors = load_file(tmp_path / "model.safetensors")
    assert first in tensors
    assert not any(tensor.startswith(("lm_head.", "model.", "transformer.")) for tensor in tensors)
    read, again = models.load(tmp_path)
    assert read == module
    jax.tree.map(np.testing.assert_array_equal, again, params)
    with pytest.raises(ConfigError, match="has no matrix of an output, so expected True, got False"):
        models.save(tmp_path, module.clone(tied=False), params, architecture=architecture)
