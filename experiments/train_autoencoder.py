"""Trains an autoencoder of images with Gaussian latents, in which a latent diffusion can be trained.

    mean (x - decoder(z))^2 + kl_weight KL(q(z | x) | N(0, I)) / pixels,        z from q(z | x)

(Rombach et al. 2022, appendix G, without its adversary). The images of `config.data` have `levels` grey values. When
the run has ended, test images are drawn beside what the means of their latents decode to.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from aijax import models
from aijax.data import load_source
from aijax.diffusion.diagonal_gaussian import draw, from_moments, kl_to_standard
from aijax.diffusion.figures import draw_pictures
from aijax.diffusion.images import as_levels
from aijax.train import Evaluation, Experiment

FIELDS = ("model", "levels", "kl_weight")
COLUMNS, ROWS = 10, 8


def load(config):
    """Returns the sources that the run reads."""
    return {split: load_source(config.data, split) for split in ("train", "test")}


def build(config, sources, where="config"):
    """Returns the experiment: the autoencoder of `config.model`, trained on "train" and measured on "test"."""
    train, test, levels = sources["train"], sources["test"], config["levels"]
    shape = train.spec["image"].shape
    channels = {"in_channels": shape[-1], "out_channels": shape[-1]}
    module = models.build(config["model"], f"{where}.model", **channels)

    def encode(params, x):
        return from_moments(module.apply({"params": params}, x, method="encode"))

    def decode(params, z):
        return module.apply({"params": params}, z, method="decode")

    def preprocess(images):
        return 2 * as_levels(images, levels) / (levels - 1) - 1

    def losses(params, batch, latents_of):
        x = preprocess(batch["image"])
        latents = encode(params, x)
        error = jnp.mean((decode(params, latents_of(latents)) - x) ** 2, (1, 2, 3))
        kl = kl_to_standard(latents)
        return {"loss": error + config["kl_weight"] * kl / np.prod(shape), "square_error": error, "kl": kl}

    def loss_fn(params, batch, key):
        seen = {name: value.mean() for name, value in losses(params, batch, functools.partial(draw, key)).items()}
        return seen.pop("loss"), seen

    def conclude(params, folder):
        x = preprocess(test[np.arange(min(len(test), COLUMNS * ROWS))]["image"])
        back = jax.jit(lambda x: decode(params, encode(params, x).mean))(x)
        pictures = {"test": x, "reconstructed": back}
        pictures = {name: np.clip(np.asarray(x + 1) / 2, 0, 1) for name, x in pictures.items()}
        draw_pictures(folder / "reconstructions.png", pictures, columns=COLUMNS, rows=ROWS)

    return Experiment(
        init=lambda key: models.init(key, module, jax.ShapeDtypeStruct((1, *shape), jnp.float32)),
        loss_fn=loss_fn,
        source=train,
        apply_fn=lambda params, x: module.apply({"params": params}, x),
        evaluations={"test": Evaluation(test, lambda params, batch: losses(params, batch, lambda z: z.mean))},
        fields=FIELDS,
        model=module,
        preprocess=preprocess,
        draw=conclude,
    )
