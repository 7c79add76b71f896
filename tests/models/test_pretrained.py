"""Published folders to modules and back, and folders that are not what they should be."""

import json

import jax
import numpy as np
import pytest

from aijax.errors import ConfigError, DataError, UnsupportedError
from aijax.models import layout, pretrained, tensor_files

NETWORKS = ["autoencoder-kl-b", "vq-b", "dit-b", "mmdit-a"]


def write(folder, config, tensors):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensor_files.write_tensors(folder / "model.safetensors", tensors)
    return folder


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_saved_is_loaded_again(published_network, tmp_path, name):
    network = published_network(name)
    tensors = layout.to_published(network.params)
    assert set(tensors) == set(network.tensors)
    assert all(np.array_equal(tensors[tensor], values) for tensor, values in network.tensors.items())
    pretrained.save(tmp_path / "new", network.module, network.params)
    module, params = pretrained.load(tmp_path / "new")
    assert module == network.module
    assert same(params, network.params)
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert "commitment" not in config
    assert network.config.items() <= (config | {"_class_name": network.config["_class_name"]}).items()


def test_the_type_of_parameters_may_be_chosen(published_network, tmp_path):
    network = published_network("clip-text-b")
    pretrained.save(tmp_path, network.module, network.params)
    _, params = pretrained.load(tmp_path, dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}


def test_old_names_and_tables_that_are_no_parameters_are_understood(published_network, tmp_path):
    network = published_network("vq-b")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def older(name):
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        return name

    renamed = {older(name): tensor for name, tensor in network.tensors.items()}
    assert set(renamed) != set(network.tensors)
    folder = write(tmp_path / "vq", network.config | {"_diffusers_version": "0.1", "latents_mean": None}, renamed)
    assert same(pretrained.load(folder)[1], network.params)

    network = published_network("clip-text-b")
    prefixed = {f"text_model.{name}": tensor for name, tensor in network.tensors.items()}
    prefixed["text_model.embeddings.position_ids"] = np.arange(16)[None]
    config = {name: value for name, value in network.config.items() if name != "_class_name"}
    config |= {"architectures": ["CLIPTextModel"], "torch_dtype": "float32", "dropout": 0.0, "projection_dim": 9}
    folder = write(tmp_path / "text", config, prefixed)
    assert same(pretrained.load(folder)[1], network.params)
    pretrained.save(tmp_path / "new", network.module, network.params)
    saved = tensor_files.read_tensors(tmp_path / "new")
    assert set(saved) == {f"text_model.{name}" for name in network.tensors}


def test_published_fields_that_change_no_output_are_passed_over():
    old = {"_class_name": "Transformer2DModel", "norm_type": "ada_norm_zero", "attention_type": "default"}
    assert pretrained.from_config(old).norm_type == "ada_norm_zero"
    assert pretrained.from_config({"_class_name": "VQModel", "lookup_from_codebook": True}).latent_channels == 3


def test_the_class_is_named_in_three_ways():
    for named in (
        {"_class_name": "CLIPTextModel"},
        {"architectures": ["CLIPTextModel"]},
        {"architectures": ["Another"], "model_type": "clip_text_model"},
    ):
        assert pretrained.from_config(named | {"vocab_size": 9}).vocab_size == 9


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"_class_name": "VQModl"}, UnsupportedError, "unknown class 'VQModl'; did you mean 'VQModel'"),
        ({"_class_name": None}, UnsupportedError, "it names no class"),
        ({"latent_chanels": 4}, ConfigError, "latent_chanels: unknown field; did you mean 'latent_channels'"),
        ({"latent_channels": "4"}, ConfigError, "latent_channels: expected int, got '4'"),
        ({"latent_channels": 5}, DataError, "of another shape: .*quant_conv"),
        ({"layers_per_block": 2}, DataError, "missing: .* and 26 more"),
    ],
)
def test_configs_that_do_not_fit_are_told(published_network, change, error, told):
    network = published_network("vq-b")
    with pytest.raises(error, match=told):
        pretrained.from_tensors(network.config | change, network.tensors)


def test_folders_without_a_config_are_told(tmp_path):
    with pytest.raises(DataError, match=r"config.json"):
        pretrained.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(DataError, match="got list"):
        pretrained.load(tmp_path)


def test_modules_that_are_not_published_are_not_saved(tmp_path):
    from aijax.models import MLP

    with pytest.raises(UnsupportedError, match="MLP is no published class"):
        pretrained.save(tmp_path, MLP(), {})


def test_of_two_kinds_that_fit_a_folder_gets_that_of_safetensors(tmp_path):
    from aijax.models import ViT

    model = ViT(
        img_size=4, patch_size=2, in_channels=3, embed_dim=4, depth=1, num_heads=2, num_classes=3,
        activation="gelu_tanh", token_positions="class", position_resize="bicubic",
    )  # fmt: skip
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 4, 4, 3), np.float32))["params"]
    params = jax.tree.map(lambda shape: np.ones(shape.shape, shape.dtype), shapes)
    pretrained.save(tmp_path, model, params)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    module, again = pretrained.load(tmp_path)
    assert module.published_as == "ViTForImageClassification" and same(again, params)
