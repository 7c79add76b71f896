"""Text to images by latent diffusion, trained from nothing: an autoencoder, then a transformer in its latents.

    autoencoder    of `train_autoencoder`
    denoiser       |v(z_t, t, text) - (noise - z_0)|^2 at logit-normal times: a flow, by a multimodal transformer that
                   reads a text encoder trained with it; some texts are left empty, for guidance

A class is told in several phrasings; one more is never seen in training. Samples are measured as in `train_diffusion`:
`sample` without guidance, `guided`, and `held_out`, guided by the unseen phrasing; `reconstructed` are test images
through the autoencoder. Each stage resumes from its own checkpoints.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from aijax import diffusion, models
from aijax.data import ArraySource, load_source
from aijax.diffusion.diagonal_gaussian import DiagonalGaussian, draw, from_moments
from aijax.diffusion.figures import draw_grids
from aijax.diffusion.images import on_levels
from aijax.diffusion.losses import logit_normal_times
from aijax.diffusion.stable_diffusion import latent_model
from aijax.diffusion.text_conditions import as_joint_text
from aijax.errors import ConfigError
from aijax.models.clip_tokenizer import train_clip_tokenizer, write_clip_tokenizer
from aijax.train import Evaluation, Experiment, fit
from aijax.train.progress import progress
from experiments import train_autoencoder
from experiments.train_diffusion import all_of, bind_judge

SCHEDULER = ("FlowMatchEulerDiscrete", {})
TIME_SCALE = 1000.0
COLUMNS = 8


def main(config, folder):
    """Returns accuracies and distances; writes `figures/samples.png` and, for `aijax.models.load`, `model/`."""
    sources = {split: load_source(config.data, split) for split in ("train", "test")}
    data = {split: on_levels(all_of(source)["image"], config.levels) for split, source in sources.items()}
    autoencoder, code = fit_autoencoder(config, folder, sources)
    latents = {split: encode(autoencoder, code, images) for split, images in data.items()}
    scaling = float(diffusion.measured_scaling(draw(jax.random.key(config.seed), latents["train"])))
    autoencoder = autoencoder.clone(scaling_factor=scaling)

    phrases = all_phrases(config.text, len(sources["train"].classes))
    tokenize = train_clip_tokenizer([text for row in phrases for text in row[:-1]], length=config.text.length)
    tokens, null = jnp.stack([tokenize(row) for row in phrases]), jnp.asarray(tokenize(""))
    text, denoiser = build_networks(config, autoencoder, tokenize, latents["train"].mean.shape[1:])
    model = latent_model(
        text, denoiser, autoencoder, latents["train"].mean.shape[1:3], condition=as_joint_text, time_scale=TIME_SCALE,
        scheduler=SCHEDULER,
    )  # fmt: skip
    sets = {split: latent_source(latents[split], source) for split, source in sources.items()}
    params = fit_denoiser(config, folder, model, (text, denoiser), sets, tokens[:, :-1], null)
    params |= {"encoder": code, "decoder": code}
    save(folder / "model", {"vae": autoencoder, "text_encoder": text, "transformer": denoiser}, params, tokenize)

    make = functools.partial(make_images, config, params, model, tokens, null)
    classes, seen = len(phrases), list(range(len(config.text.phrasings)))
    rows = class_by_class(sources["test"].labels, classes)
    back = diffusion.decode_latents(params, (latents["test"].mean - model.shift) * model.scaling, model)
    pictures = {
        "reconstructed": on_levels(back[rows], config.levels),
        "sample": make(seen, 1.0),
        "guided": make(seen, config.sample.guidance),
        "held_out": make([len(seen)], config.sample.guidance),
    }
    judge = bind_judge(config, sources["train"])
    metrics = diffusion.compare_images(pictures, data, classes=classes, classifier=judge())
    metrics |= {"reconstruction_error": np.sqrt(np.mean((back - data["test"]) ** 2)), "latent_scaling": scaling}
    draw_figure(folder / "figures" / "samples.png", pictures, data["test"][rows], phrases)
    return {name: float(value) for name, value in metrics.items()}


def fit_autoencoder(config, folder, sources):
    """Returns the autoencoder and its parameters."""
    section = {"levels": config.levels, **config.autoencoder.to_dict()}
    experiment = train_autoencoder.build(section, sources, "config.autoencoder")
    return experiment.model, fit_stage(experiment, config, "autoencoder", folder)


def fit_denoiser(config, folder, model, networks, sets, tokens, null):
    """Returns the parameters "text" and "denoiser" of a latent model; `tokens` are `[classes, phrasings, length]`."""
    text, denoiser = networks

    def losses(params, batch, key):
        latent_key, text_key, drop_key, loss_key = jax.random.split(key, 4)
        z = draw(latent_key, DiagonalGaussian(batch["mean"], batch["log_variance"]))
        phrasing = jax.random.randint(text_key, (len(z),), 0, tokens.shape[1])
        told = diffusion.drop_condition(drop_key, tokens[batch["label"], phrasing], null[0], config.denoiser.drop_rate)
        condition = model.text(params["text"], told)
        return diffusion.flow_matching_loss(
            loss_key, lambda z, t: model.denoiser(params["denoiser"], z, t, condition), diffusion.Flow(),
            (z - model.shift) * model.scaling, times=logit_normal_times,
        )  # fmt: skip

    def init(key):
        text_key, key = jax.random.split(key)
        told = jax.ShapeDtypeStruct(null.shape, jnp.int32)
        shapes = model.latent_shape, (), (tokens.shape[-1], text.hidden_size), (text.hidden_size,)
        inputs = [jax.ShapeDtypeStruct((1, *shape), jnp.float32) for shape in shapes]
        return {"text": models.init(text_key, text, told), "denoiser": models.init(key, denoiser, *inputs)}

    experiment = Experiment(
        init=init,
        loss_fn=lambda params, batch, key: (losses(params, batch, key).mean(), {}),
        source=sets["train"],
        apply_fn=lambda params, inputs: model.denoiser(params["denoiser"], *inputs),
        evaluations={
            "test": Evaluation(sets["test"], lambda params, batch: {"loss": losses(params, batch, jax.random.key(0))})
        },
        fields=("text_encoder", "model", "drop_rate"),
    )
    return fit_stage(experiment, config, "denoiser", folder)


def fit_stage(experiment, config, name, folder):
    """Returns the average of the parameters at the end of a stage, which has a folder and a config section."""
    shown = functools.partial(progress, Console(), label=name)
    section = {"seed": config.seed, **config[name].to_dict()}
    return jax.device_get(fit(experiment, section, folder / name, progress=shown).state.best_params)


def build_networks(config, autoencoder, tokenize, latent_shape):
    """Returns the text encoder and the transformer, which read one another's and the autoencoder's sizes."""
    section = config.denoiser
    end = int(tokenize("")[0, 1])
    text = models.build(
        section.text_encoder, "config.denoiser.text_encoder", vocab_size=tokenize.vocabulary_size, eos_token_id=end,
        max_position_embeddings=tokenize.length,
    )  # fmt: skip
    side, heads = latent_shape[0], section.model.num_attention_heads * section.model.attention_head_dim
    denoiser = models.build(
        section.model, "config.denoiser.model", sample_size=side, in_channels=autoencoder.latent_channels,
        out_channels=autoencoder.latent_channels, joint_attention_dim=text.hidden_size,
        pooled_projection_dim=text.hidden_size, caption_projection_dim=heads, pos_embed_max_size=side,
    )  # fmt: skip
    return text, denoiser


def encode(autoencoder, params, images):
    return jax.jit(lambda x: from_moments(autoencoder.apply({"params": params}, x, method="encode")))(2 * images - 1)


def latent_source(latents, source):
    arrays = {"mean": np.asarray(latents.mean), "log_variance": np.asarray(latents.log_variance)}
    return ArraySource(arrays | {"label": source.labels}, source.classes)


def all_phrases(section, classes):
    """Returns the texts of each class: one for each of the phrasings, and last that of the held-out one."""
    if len(section.words) != classes:
        raise ConfigError(f"config.text.words: expected a word for each of {classes} classes, got {len(section.words)}")
    phrasings = (*section.phrasings, section.held_out)
    return [
        [phrasing.format(word=word, number=number) for phrasing in phrasings]
        for number, word in enumerate(section.words)
    ]


def make_images(config, params, model, tokens, null, phrasings, guidance):
    """Returns samples of all classes in turn, the phrasing changing from round to round."""
    order = np.arange(config.sample.count)
    told = tokens[order % len(tokens), np.array(phrasings)[order // len(tokens) % len(phrasings)]]
    options = {"null_tokens": None if guidance == 1 else null, "guidance": guidance, "steps": config.sample.steps}
    return on_levels(diffusion.generate(jax.random.key(config.seed), params, told, model, **options), config.levels)


def class_by_class(labels, classes):
    """Returns the places of examples of all classes in turn, as many of each."""
    places = [np.flatnonzero(labels == label) for label in range(classes)]
    return np.stack([rows[: min(map(len, places))] for rows in places], 1).ravel()


def save(folder, networks, params, tokenize):
    parts = {"vae": "encoder", "text_encoder": "text", "transformer": "denoiser"}
    for name, module in networks.items():
        models.save(folder / name, module, params[parts[name]])
    write_clip_tokenizer(folder / "tokenizer", tokenize)


def draw_figure(path, pictures, test, phrases):
    classes, seen = len(phrases), len(phrases[0]) - 1
    rounds = {name: x[: len(x) // classes * classes].reshape(-1, classes, *x.shape[1:]) for name, x in pictures.items()}
    # the row of a class is of one phrasing, another one for the next class
    guided = [rounds["guided"][label % seen :: seen, label][:COLUMNS] for label in range(classes)]
    columns = min(map(len, guided))
    pairs = np.stack([test.reshape(rounds["reconstructed"].shape), rounds["reconstructed"]], 1)
    pairs = pairs.reshape(-1, *pairs.shape[2:])
    panels = {
        "guided": (np.stack([row[:columns] for row in guided]), [row[i % seen] for i, row in enumerate(phrases)]),
        "a phrasing never seen": (rounds["held_out"][:columns].swapaxes(0, 1), [row[-1] for row in phrases]),
        "test images and reconstructions": (pairs[:COLUMNS].swapaxes(0, 1), None),
    }
    draw_grids(path, panels)
