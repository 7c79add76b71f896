"""Published UNet configs: what is read from them and what is refused."""

import jax
import jax.numpy as jnp
import pytest

from aijax.errors import ConfigError
from aijax.models.unet_config import unet_from_config

SMALL = {
    "_class_name": "UNet2DModel", "_diffusers_version": "0.42.1", "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1, "norm_num_groups": 4,
}  # fmt: skip
TOLD = SMALL | {
    "_class_name": "UNet2DConditionModel", "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "cross_attention_dim": 6, "attention_head_dim": 2,
}  # fmt: skip


def parameters(config, channels, **inputs):
    model = unet_from_config(config)
    inputs = jax.tree.map(jnp.ones, inputs, is_leaf=lambda shape: isinstance(shape, tuple))
    x = jnp.zeros((2, 8, 8, channels))
    out, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x, jnp.ones(2), **inputs))
    assert out.shape == x.shape
    return variables["params"]


def test_options_change_what_they_should():
    plain = parameters(SMALL, 3)
    assert "group_norm" in plain["mid_block"]["attentions_0"]
    changed = parameters(
        SMALL | {"resnet_time_scale_shift": "scale_shift", "downsample_type": "resnet", "class_embed_type": "timestep",
                 "down_block_types": ["AttnDownBlock2D", "ResnetDownsampleBlock2D"], "mid_block_scale_factor": 2}, 3,
        class_labels=(2,),
    )  # fmt: skip
    assert "group_norm" not in changed["mid_block"]["attentions_0"]
    assert "conv1" in changed["down_blocks_0"]["downsamplers_0"]
    assert changed["class_embedding"]["linear_1"]["kernel"].shape == (8, 32)
    bare = parameters(SMALL | {"mid_block_type": None, "time_embedding_type": "learned", "num_train_timesteps": 7}, 3)
    assert "mid_block" not in bare
    assert bare["time_proj"]["embedding"].shape == (7, 8)
    waves = SMALL | {"time_embedding_type": "fourier", "class_embed_type": "timestep"}
    assert parameters(waves, 3, class_labels=(2,))["class_embedding"]["linear_1"]["kernel"].shape == (16, 32)


def test_options_of_networks_with_a_context():
    changed = parameters(
        TOLD | {"use_linear_projection": True, "layers_per_block": [1, 2], "attention_head_dim": [2, 4],
                "class_embed_type": "projection", "class_embeddings_concat": True, "encoder_hid_dim": 5,
                "transformer_layers_per_block": [2, 1], "timestep_post_act": "silu"}, 4,
        class_labels=(2, 3), context=(2, 7, 5),
    )  # fmt: skip
    block = changed["down_blocks_0"]["attentions_0"]
    assert block["proj_in"]["kernel"].shape == (8, 8)
    assert "transformer_blocks_1" in block
    assert "transformer_blocks_1" not in changed["mid_block"]["attentions_0"]
    assert "resnets_2" in changed["up_blocks_0"]
    assert changed["encoder_hid_proj"]["kernel"].shape == (5, 6)
    assert changed["mid_block"]["resnets_0"]["time_emb_proj"]["kernel"].shape[0] == 64


def test_pixels_and_context_are_one_sequence_where_blocks_are_simple():
    blocks = {
        "down_block_types": ["SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D"],
        "up_block_types": ["ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"],
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "mid_block_only_cross_attention": True,
    }  # fmt: skip
    pooled = {"addition_embed_type": "text", "addition_embed_type_num_heads": 3, "encoder_hid_dim": 9}
    params = parameters(TOLD | blocks | pooled, 4, context=(2, 7, 9))
    block = params["down_blocks_0"]["attentions_0"]
    assert (block["to_k"]["kernel"].shape, block["add_k_proj"]["kernel"].shape) == ((8, 8), (6, 8))
    assert "to_k" not in params["mid_block"]["attentions_0"]
    assert "conv1" in params["up_blocks_0"]["upsamplers_0"]
    assert params["add_embedding"]["pool"]["q_proj"]["kernel"].shape == (9, 9)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (SMALL | {"block_out_chanels": [8]}, "block_out_chanels: unknown field; did you mean 'block_out_channels'"),
        (SMALL | {"_class_name": "UNet3D"}, "_class_name: unknown value 'UNet3D'"),
        (SMALL | {"block_out_channels": [8]}, "expected as many of each, got 1, 2 and 2"),
        (SMALL | {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]}, "down_block_types: unknown value"),
        (SMALL | {"downsample_type": "fir"}, "downsample_type: unknown value 'fir'"),
        (SMALL | {"resnet_time_scale_shift": "ada_group"}, "resnet_time_scale_shift: unknown value"),
        (SMALL | {"class_embed_type": "projection"}, "class_embed_type: unknown value"),
        (TOLD | {"dual_cross_attention": True}, "dual_cross_attention: only False is offered, got True"),
        (TOLD | {"attention_type": "gated"}, "attention_type: only 'default' is offered"),
        (TOLD | {"addition_embed_type": "image"}, "addition_embed_type: unknown value 'image'"),
        (TOLD | {"attention_head_dim": [2, 2, 2]}, "attention_head_dim: expected one value or 2 of them"),
        (TOLD | {"cross_attention_dim": [6, 7]}, "cross_attention_dim: expected one width"),
        (TOLD | {"transformer_layers_per_block": [[1], 1]}, "reverse_transformer_layers_per_block: expected"),
        (TOLD | {"mid_block_type": "UNetMidBlock2DCross"}, "mid_block_type: unknown value"),
    ],
)
def test_what_is_not_offered_is_refused(config, told):
    with pytest.raises(ConfigError, match=told):
        unet_from_config(config)


@pytest.mark.parametrize(
    ("config", "inputs", "told"),
    [
        (SMALL | {"in_channels": 4}, {}, "x: expected images of 4 channels"),
        (TOLD | {"in_channels": 3}, {}, "context: expected vectors of width 6"),
        (TOLD | {"in_channels": 3}, {"context": (2, 7, 5)}, "context: expected vectors of width 6"),
        (TOLD | {"in_channels": 3, "addition_embed_type": "text"}, {"context": (2, 7, 6)}, "divisor of 6, got 64"),
        (SMALL | {"norm_num_groups": 3}, {}, "norm_num_groups: expected a divisor of 8"),
        (SMALL | {"act_fn": "tanh"}, {}, "act_fn: unknown value 'tanh'"),
    ],
)
def test_inputs_and_fields_that_do_not_fit_are_named(config, inputs, told):
    with pytest.raises(ConfigError, match=told):
        parameters(config, 3, **inputs)
