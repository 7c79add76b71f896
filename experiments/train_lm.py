"""Trains a language model on a text, measures its nats a token on held-out text, and writes a sample of its own."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aijax import models
from aijax.binding import bind
from aijax.data import load_source
from aijax.errors import ConfigError
from aijax.train import Evaluation, Experiment

FIELDS = ("model", "sample")


def load(config):
    """Returns the sources that the run reads."""
    return {split: load_source(config.data, split) for split in ("train", "validation")}


def build(config, sources):
    """Returns the experiment: the model of `config.model`, trained on "train" and measured on "validation"."""
    train = sources["train"]
    tokenizer = train.tokenizer
    if tokenizer is None:
        raise ConfigError(f"config.data.source: {config.data.source!r} is not a text")
    length = train.spec["tokens"].shape[0] - 1
    model = models.build(config.model, vocab_size=tokenizer.vocabulary_size, context_length=length)

    def apply_fn(params, tokens):
        return model.apply({"params": params}, tokens)

    def loss_fn(params, batch, key):
        tokens = batch["tokens"]
        logits = model.apply({"params": params}, tokens[:, :-1], train=True, rngs={"dropout": key})
        return token_losses(logits, tokens).mean(), {}

    def measure(params, batch):
        losses = token_losses(apply_fn(params, batch["tokens"][:, :-1]), batch["tokens"]).mean(axis=-1)
        return {"loss": losses, "bits_per_token": losses / math.log(2)}

    options = bind(sample_options, config.get("sample", {}), "config.sample")()

    return Experiment(
        init=lambda key: models.init(key, model, jnp.zeros((1, length), jnp.int32)),
        loss_fn=loss_fn,
        source=train,
        apply_fn=apply_fn,
        evaluations={"validation": Evaluation(sources["validation"], measure)},
        fields=FIELDS,
        model=model,
        preprocess=lambda tokens: jnp.asarray(tokens, jnp.int32),
        tokenizer=tokenizer,
        draw=lambda params, folder: write_sample(params, apply_fn, tokenizer, length, folder, **options),
    )


def token_losses(logits, tokens):
    """Returns the cross-entropy of each next token [b, t], in nats, from logits [b, t, v] and tokens [b, t + 1]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), tokens[:, 1:])


def sample_options(*, prompt: str = "The ", length: int = 400, temperature: float = 0.8, seed: int = 0):
    """Returns the options of the sample, checked."""
    if not prompt:
        raise ConfigError("config.sample.prompt: expected a text of one character or more, got ''")
    if length < 1:
        raise ConfigError(f"config.sample.length: expected 1 token or more, got {length}")
    if temperature < 0:
        raise ConfigError(f"config.sample.temperature: expected zero or more, got {temperature}")
    return {"prompt": prompt, "length": length, "temperature": temperature, "seed": seed}


def write_sample(params, apply_fn, tokenizer, window, folder, *, prompt, length, temperature, seed):
    """Writes `sample.txt`: a text that the model goes on with from `prompt`."""
    start = jnp.asarray(tokenizer.encode(prompt), jnp.int32)[None]
    sample = jax.jit(models.generate, static_argnames=("apply_fn", "length", "window", "temperature"))
    tokens = sample(
        jax.random.key(seed), apply_fn, params, start, length=length, window=window, temperature=temperature
    )
    (folder / "sample.txt").write_text(tokenizer.decode(np.asarray(tokens[0])), encoding="utf-8")
