"""Autoencoders of latent diffusion against published networks, and what codes and gradients have to satisfy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.models.autoencoder import AutoencoderKL, Codebook, Quantised, VQModel


@pytest.fixture
def run(x64):
    """`run(network, x, method)`: a method of a network in double precision."""

    def call(network, x, method):
        apply = jax.jit(lambda params, x: network.module.apply({"params": params}, x, method=method))
        return apply(jax.tree.map(lambda leaf: leaf.astype(float), network.params), jnp.asarray(x))

    return call


def test_gaussian_autoencoder_matches_the_reference(run, published_network):
    network = published_network("autoencoder-kl-b")
    np.testing.assert_allclose(run(network, network["in_image"], "encode"), network["out_moments"], atol=1e-10)
    np.testing.assert_allclose(run(network, network["in_latent"], "decode"), network["out_decoded"], atol=1e-10)


@pytest.mark.slow
def test_discrete_autoencoder_matches_the_reference(run, published_network):
    network = published_network("vq-b")
    latents = run(network, network["in_image"], "encode")
    np.testing.assert_allclose(latents, network["out_latents"], atol=1e-10)
    np.testing.assert_allclose(run(network, latents, "decode"), network["out_decoded"], atol=1e-10)


def test_codes_are_the_nearest_and_pass_the_gradient_on():
    rng = np.random.default_rng(0)
    codes, z = (rng.normal(size=shape).astype(np.float32) for shape in ((7, 3), (2, 4, 5, 3)))
    book, variables = Codebook(7, 3), {"params": {"embedding": {"embedding": codes}}}
    apply = jax.jit(lambda variables, z: book.apply(variables, z))
    values, indices, loss = jax.tree.map(np.asarray, apply(variables, z))
    distances = np.linalg.norm(z[..., None, :] - codes, axis=-1)
    np.testing.assert_array_equal(indices, distances.argmin(-1))
    np.testing.assert_allclose(values, codes[indices], atol=1e-6)
    np.testing.assert_allclose(loss, 1.25 * np.mean((z - codes[indices]) ** 2), rtol=1e-5)
    pull = jax.jit(lambda variables, z, cotangent: jax.vjp(apply, variables, z)[1](cotangent))
    still = np.zeros(indices.shape, jax.dtypes.float0)
    _, gradient = pull(variables, z, Quantised(np.cos(values), still, 0.0))
    np.testing.assert_allclose(gradient, np.cos(values), atol=1e-6)
    moved = pull(variables, z, Quantised(np.zeros_like(values), still, 1.0))[0]["params"]["embedding"]["embedding"]
    unused = np.setdiff1d(np.arange(7), indices)
    moved = np.asarray(moved)
    assert np.all(moved[unused] == 0) and np.all(np.any(moved[np.unique(indices)] != 0, axis=-1))


def test_the_last_activation_is_silu_whatever_that_of_the_blocks(random_params):
    model = VQModel(block_out_channels=(4,), norm_num_groups=2, act_fn="relu")
    image = np.zeros((1, 2, 2, 3), np.float32)
    params = random_params(model, image)
    params["encoder"]["conv_norm_out"] = {"scale": np.zeros(4), "bias": -np.ones(4)}
    last = params["encoder"]["conv_out"]
    features = jax.jit(lambda params: model.apply({"params": params}, image, method=lambda m, x: m.encoder(x)))(params)
    silu = -1 / (1 + np.e)
    np.testing.assert_allclose(
        features[0, 0, 0], last["bias"] + silu * last["kernel"][1:, 1:].sum((0, 1, 2)), rtol=1e-5
    )


def test_published_options_change_the_parameters():
    image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    make = lambda model: jax.eval_shape(model.init, jax.random.key(0), image)["params"]  # noqa: E731
    sizes = {"block_out_channels": (4, 8), "norm_num_groups": 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    blocks = ("DownEncoderBlock2D", "AttnDownEncoderBlock2D")
    params = make(
        AutoencoderKL(
            down_block_types=blocks, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False,
            mid_block_add_attention=False, **sizes,
        )
    )  # fmt: skip
    assert set(params) == {"encoder", "decoder"}
    assert "attentions_0" in params["encoder"]["down_blocks_1"]
    assert "attentions_0" not in params["encoder"]["mid_block"]
    assert params["decoder"]["conv_in"]["kernel"].shape == (3, 3, 16, 8)
    params = make(VQModel(down_block_types=blocks, vq_embed_dim=5, num_vq_embeddings=9, **sizes))
    assert params["quantize"]["embedding"]["embedding"].shape == (9, 5)
    assert params["post_quant_conv"]["kernel"].shape == (1, 1, 5, 3)


@pytest.mark.parametrize(
    ("fields", "channels", "told"),
    [
        ({}, 1, "in_channels"),
        ({"down_block_types": ("DownBlock",)}, 3, "down_block_types"),
        ({"up_block_types": ()}, 3, "up_block_types"),
        ({"norm_num_groups": 3}, 3, "norm_num_groups"),
        ({"act_fn": "sine"}, 3, "act_fn"),
    ],
)
def test_what_cannot_be_used_is_named(fields, channels, told):
    model = AutoencoderKL(**{"block_out_channels": (4,), "norm_num_groups": 2} | fields)
    with pytest.raises(ConfigError, match=told):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, channels)))
