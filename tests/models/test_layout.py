"""Published tensors to parameters and back, and files that are not what they should be."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax.errors import DataError
from aijax.models.layout import from_published, published_name, to_published
from aijax.models.tensor_files import read_tensors, write_tensors

NAMES = st.sampled_from(["conv1", "norm", "blocks_0", "down_blocks_11", "linear_1", "proj_out_2", "to_out_0"])
LEAVES = st.sampled_from(["kernel", "bias", "scale", "pos_embed"])
SHAPES = {"kernel": st.sampled_from([(2, 3), (1, 3, 2), (3, 2, 4, 5)]), "bias": st.just((3,)), "scale": st.just((2,))}


@st.composite
def trees(draw):
    def leaf(name):
        shape = draw(SHAPES.get(name, st.just((1, 2, 3))))
        return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)

    # "kernel" and "scale" of one module are published as the same name
    def module():
        names = draw(st.sets(LEAVES, min_size=1, max_size=3))
        return {name: leaf(name) for name in names - ({"scale"} if "kernel" in names else set())}

    return {name: {inner: module() for inner in draw(st.sets(NAMES, min_size=1, max_size=2))}
            for name in draw(st.sets(NAMES, min_size=1, max_size=3))}  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(trees())
def test_parameters_come_back_as_they_were(params):
    back = from_published(to_published(params), params)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for got, want in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(got, want)


def test_names_and_layouts_are_those_of_published_files():
    assert published_name("down_blocks_0/attentions_1/to_out_0/kernel") == "down_blocks.0.attentions.1.to_out.0.weight"
    assert published_name("time_embedding/linear_1/bias") == "time_embedding.linear_1.bias"
    assert published_name("quantize/embedding/embedding") == "quantize.embedding.weight"
    assert published_name("time_proj/weight") == "time_proj.weight"
    kernel = np.arange(3 * 2 * 4 * 5).reshape(3, 2, 4, 5)
    published = to_published({"conv": {"kernel": kernel}})["conv.weight"]
    assert published.shape == (5, 4, 3, 2)
    assert published[4, 1, 2, 0] == kernel[2, 0, 1, 4]


def test_all_that_does_not_fit_is_listed():
    shapes = jax.tree.map(jnp.zeros, {"a": {"kernel": (2, 3), "bias": (3,)}, "b": {"bias": (4,)}}, is_leaf=is_shape)
    tensors = {"a.weight": np.ones((2, 3)), "a.bias": np.ones(3), "c.weight": np.ones(1)}
    with pytest.raises(DataError) as error:
        from_published(tensors, shapes, where="file")
    assert str(error.value) == (
        "file: expected the 3 tensors of the model, got 3; missing: b.bias; unknown: c.weight; "
        "of another shape: a.weight (2, 3) in place of (3, 2)"
    )


def test_a_tensor_without_numbers_is_passed_over():
    tensors = {"a.bias": np.ones(3), "registers": np.ones((1, 0, 4))}
    assert from_published(tensors, {"a": {"bias": jnp.zeros(3)}})["a"]["bias"].tolist() == [1, 1, 1]


def is_shape(node):
    return isinstance(node, tuple)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_files_keep_types_until_another_is_asked_for(tmp_path, dtype):
    params = {"layer": {"kernel": jnp.arange(6.0).reshape(2, 3).astype(dtype), "bias": jnp.ones((), dtype)}}
    write_tensors(tmp_path / "model.safetensors", to_published(params))
    tensors = read_tensors(tmp_path)
    for wanted, found in ((None, dtype), (jnp.float32, np.float32)):
        back = from_published(tensors, params, dtype=wanted)["layer"]
        assert back["kernel"].dtype == back["bias"].dtype == found
        np.testing.assert_array_equal(back["kernel"].astype(float), np.arange(6.0).reshape(2, 3))


def test_a_folder_of_several_files_is_read_by_its_index(tmp_path):
    write_tensors(tmp_path / "model-1.safetensors", {"a": np.ones(2)})
    write_tensors(tmp_path / "model-2.safetensors", {"b": np.zeros(3), "c": np.full(1, 7)})
    places = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    tensors = read_tensors(tmp_path)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"a": (2,), "b": (3,)}
    index.write_text(json.dumps({"weight_map": places | {"d": "model-1.safetensors"}}))
    with pytest.raises(DataError, match="missing: d"):
        read_tensors(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "model-3.safetensors"}}))
    with pytest.raises(DataError, match=r"model-3"):
        read_tensors(tmp_path)
    index.write_text("{}")
    with pytest.raises(DataError, match="weight_map"):
        read_tensors(index)


def test_a_variant_gives_way_to_the_plain_file(tmp_path):
    write_tensors(tmp_path / "model.fp16.safetensors", {"a": np.ones(2, np.float16)})
    assert read_tensors(tmp_path)["a"].dtype == np.float16
    write_tensors(tmp_path / "model.safetensors", {"a": np.ones(2, np.float32)})
    assert read_tensors(tmp_path)["a"].dtype == np.float32
    write_tensors(tmp_path / "other.safetensors", {"a": np.ones(2)})
    assert read_tensors(tmp_path)["a"].dtype == np.float32
    (tmp_path / "model.safetensors").rename(tmp_path / "another.safetensors")
    with pytest.raises(DataError, match=r"got another.safetensors, other.safetensors"):
        read_tensors(tmp_path)


def test_damaged_files_are_told(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(DataError, match="got none"):
        read_tensors(tmp_path)
    with pytest.raises(DataError, match="there is none"):
        read_tensors(path)
    write_tensors(path, {"first": np.ones(4), "second": np.ones(4)})
    whole = path.read_bytes()
    for content, told in (
        (whole[:-8], "cut short or damaged at the tensor 'second'"),
        (whole[:20], "cut short or of another format"),
        (b"\x10", "cut short or of another format"),
        (whole[:8] + b"x" + whole[9:], "the header of a safetensors file"),
        (whole.replace(b'"F64"', b'"F65"'), "F65"),
        (whole.replace(b"[4]", b"[5]"), "damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=told):
            read_tensors(path)
