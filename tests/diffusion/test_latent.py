"""Latent diffusion: exact where the denoiser knows the answer, and against published pipelines."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import DDPM, UniPC, decode_latents, encode_images, generate, image_to_image, measured_scaling
from aijax.diffusion.diagonal_gaussian import DiagonalGaussian
from aijax.diffusion.latent import LatentModel
from aijax.diffusion.stable_diffusion import latent_model
from aijax.errors import ConfigError
from aijax.parallel import batch_sharding, make_mesh, replicated

SHAPE = (2, 3, 1)
SCHEDULER = ("DDIM", {"prediction_type": "sample", "clip_sample": False})


def text(params, tokens):
    return {"wanted": params[tokens].sum(1)}


def denoiser(params, z, t, condition):
    return params * jnp.broadcast_to(condition["wanted"][:, None, None, None], z.shape)


def encoder(params, images):
    return DiagonalGaussian(images * params, jnp.full(images.shape, 2 * np.log(0.5)))


def decoder(params, z):
    return z * params


MODEL = LatentModel(text, denoiser, encoder, decoder, SHAPE, scaling=2.0, shift=0.5, scheduler=SCHEDULER)
PARAMS = {
    "text": jnp.array([0.0, 0.1, 0.2]),
    "denoiser": jnp.ones(()),
    "encoder": jnp.ones(()),
    "decoder": jnp.ones(()),
}
TOKENS = jnp.array([[1, 1], [1, 2]])
NULL = jnp.array([[0, 1]])
KEY = jax.random.key(0)


def image_of(z):
    return np.clip((np.asarray(z) / 2 + 0.5) / 2 + 0.5, 0, 1)


def run(*args, **options):
    return generate(KEY, PARAMS, TOKENS, MODEL, **{"steps": 4, "null_tokens": NULL} | options)


@pytest.mark.parametrize("sampler", [None, UniPC()])
def test_what_is_wanted_is_made_and_pushed_away_from_what_is_not(sampler):
    wanted, unwanted = np.array([0.2, 0.3]), 0.1
    images = run(guidance=3.0, sampler=sampler)
    assert images.shape == (2, *SHAPE)
    z = unwanted + 3 * (wanted - unwanted)
    np.testing.assert_allclose(images, np.broadcast_to(image_of(z)[:, None, None, None], images.shape), atol=1e-6)


def test_without_guidance_no_null_is_needed():
    np.testing.assert_allclose(run(guidance=1.0, null_tokens=None)[:, 0, 0, 0], image_of([0.2, 0.3]), atol=1e-6)


def test_is_one_pure_function():
    whole = jax.jit(functools.partial(run, trajectory=True))
    images, seen = whole()
    np.testing.assert_allclose(images, run(), atol=1e-6)
    assert seen.states.shape == (4, 2, *SHAPE)
    made = functools.partial(generate, null_tokens=NULL, guidance=2.0, steps=4)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(made(KEY, params, TOKENS, MODEL))))(PARAMS)
    # each of 6 pixels of both images moves by 1/4 with z = 2 wanted - unwanted
    np.testing.assert_allclose(gradient["text"], [-2 * 1.5, (2 * 3 - 2) * 1.5, 2 * 1.5], rtol=1e-4)
    many = jax.eval_shape(jax.vmap(lambda key: made(key, PARAMS, TOKENS, MODEL)), jax.random.split(KEY, 3))
    assert many.shape == (3, 2, *SHAPE)


def test_a_batch_over_eight_devices_is_that_of_one():
    def mixing(params, z, t, condition):
        mixed = jnp.einsum("nhwc,hwHW->nHWc", z, params)
        return jnp.tanh(mixed) + jnp.cos(t) * condition["wanted"][:, None, None, None]

    model = dataclasses.replace(MODEL, denoiser=mixing)
    params = PARAMS | {"denoiser": jax.random.normal(KEY, (2, 3, 2, 3))}
    tokens = jax.random.randint(KEY, (16, 2), 0, 3)
    made = functools.partial(generate, KEY, model=model, null_tokens=NULL, guidance=2.0, steps=4, sampler=DDPM())
    mesh = make_mesh(data=4, fsdp=2)
    split = batch_sharding(mesh)
    images = made(jax.device_put(params, replicated(mesh)), jax.device_put(tokens, split), sharding=split)
    assert len(images.sharding.device_set) == 8 and images.addressable_shards[0].data.shape[0] == 2
    np.testing.assert_allclose(images, made(params, tokens), atol=1e-6)


def test_latents_are_drawn_scaled_and_decoded_again():
    rng = np.random.default_rng(0)
    images, noise = (rng.uniform(size=(2, *SHAPE)).astype(np.float32) for _ in range(2))
    z = encode_images(KEY, PARAMS, images, MODEL, noise=noise)
    np.testing.assert_allclose(z, (2 * images - 1 + 0.5 * noise - 0.5) * 2, atol=1e-6)
    still = encode_images(KEY, PARAMS, images, MODEL, noise=np.zeros_like(images))
    np.testing.assert_allclose(decode_latents(PARAMS, still, MODEL), images, atol=1e-6)
    np.testing.assert_allclose(measured_scaling(z), 1 / np.std(z), rtol=1e-5)


def test_an_image_is_changed_from_the_level_that_its_strength_says():
    images, noise = jnp.full((2, *SHAPE), 0.5), jnp.ones((2, *SHAPE))
    changed, seen = image_to_image(
        KEY, PARAMS, images, TOKENS, MODEL, strength=0.5, steps=4, null_tokens=NULL, latent_noise=0 * noise,
        start_noise=noise, trajectory=True,
    )  # fmt: skip
    assert seen.times.tolist() == [250, 0]
    np.testing.assert_allclose(seen.inputs[0], seen.alphas[0] * -1.0 + seen.sigmas[0], atol=1e-5)
    np.testing.assert_allclose(changed, run(), atol=1e-6)


@pytest.mark.parametrize("name", ["DPMSolverMultistep", "DPMSolverSinglestep"])
def test_the_order_of_steps_begins_anew_where_sampling_does(name):
    model = dataclasses.replace(MODEL, scheduler=(name, {"prediction_type": "sample"}))
    images = image_to_image(KEY, PARAMS, jnp.zeros((2, *SHAPE)), TOKENS, model, strength=0.6, steps=6, null_tokens=NULL)
    np.testing.assert_allclose(images, run(), atol=1e-6)


def test_a_network_that_is_told_the_guidance_guides_by_itself():
    def guided(params, z, t, condition):
        assert condition["time_condition"].shape == (2, 6)
        # the first number is sin(1000 (w - 1))
        told = jnp.arcsin(condition["time_condition"][:, 0]) / 1000
        return params * jnp.broadcast_to((condition["wanted"] + told)[:, None, None, None], z.shape)

    model = dataclasses.replace(MODEL, denoiser=guided, guidance_width=6)
    images = generate(KEY, PARAMS, TOKENS, model, guidance=1.001, steps=2)
    np.testing.assert_allclose(images[:, 0, 0, 0], image_of([0.201, 0.301]), atol=1e-5)
    with pytest.raises(ConfigError, match="null_tokens: expected none, as the network is told the guidance"):
        generate(KEY, PARAMS, TOKENS, model, null_tokens=NULL)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"null_tokens": None}, "null_tokens: a guidance of 7.5 needs"),
        ({"null_tokens": jnp.ones((3, 2), int)}, r"null_tokens: expected shape \(1, 2\) or \(2, 2\), got \(3, 2\)"),
        ({"init": jnp.ones((2, 3, 3, 1))}, "init"),
        ({"steps": 0}, "steps"),
        ({"rescale": 2.0}, "rescale"),
    ],
)
def test_what_cannot_be_used_is_named(options, told):
    with pytest.raises(ConfigError, match=told):
        run(**options)


def test_an_image_needs_an_encoder():
    model = LatentModel(text, denoiser, None, decoder, SHAPE)
    with pytest.raises(ConfigError, match="model: an image needs an encoder"):
        image_to_image(KEY, PARAMS, jnp.zeros((2, *SHAPE)), TOKENS, model, guidance=1.0)


@pytest.mark.slow
@pytest.mark.golden("pipeline")
def test_published_pipelines_step_by_step(case, float64, published_network):
    config = case.params["config"]
    networks = {name: published_network(config[name]) for name in ("text_encoder", "unet", "vae")}
    modules = (networks[name].module for name in ("text_encoder", "unet", "vae"))
    scheduler = (config["scheduler"], config["scheduler_config"])
    size = networks["unet"].config["sample_size"]
    model = latent_model(*modules, (size, size), scaling=config["scaling_factor"], scheduler=scheduler)
    parts = {"text": "text_encoder", "denoiser": "unet", "encoder": "vae", "decoder": "vae"}
    params = {part: jax.tree.map(jnp.float64, networks[name].params) for part, name in parts.items()}
    tokens, null = (jnp.asarray(case[f"in_{name}_ids"]) for name in ("input", "uncond"))
    options = {
        "null_tokens": null, "guidance": config["guidance_scale"], "steps": config["num_steps"], "trajectory": True,
    }  # fmt: skip
    channels_last = lambda name: jnp.moveaxis(jnp.asarray(case[name]), -3, -1)  # noqa: E731
    if "in_latents" in case:
        images, seen = generate(KEY, params, tokens, model, init=channels_last("in_latents"), **options)
        case.close(np.moveaxis(seen.states, -1, -3), case["out_latents"][1:])
    else:
        given = (channels_last("in_image") + 1) / 2
        noise = {"latent_noise": channels_last("in_posterior_noise"), "start_noise": channels_last("in_noise")}
        z = encode_images(KEY, params, given, model, noise=noise["latent_noise"])
        case.close(np.moveaxis(z, -1, -3), "out_z0")
        strength = 1 - config["start_index"] / config["num_steps"]
        images, seen = image_to_image(KEY, params, given, tokens, model, strength=strength, **noise, **options)
        np.testing.assert_array_equal(seen.times, case["in_timesteps"])
        case.close(np.moveaxis(seen.inputs[0], -1, -3), "out_x_start")
        case.close(np.moveaxis(seen.states[-1], -1, -3), "out_latent")
    case.close(np.moveaxis(images, -1, -3), "out_image")
