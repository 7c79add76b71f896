"""`aijax run configs/diffusion/latent_digits.py`, at small size."""

import json

import jax
import numpy as np
import pytest

from aijax import models
from aijax.errors import ConfigError
from aijax.launch.cli import main
from aijax.launch.config import load
from aijax.launch.projects import import_experiment
from aijax.models.clip_tokenizer import read_clip_tokenizer

SMALL = (
    "--config.autoencoder.total_steps=2", "--config.autoencoder.model.block_out_channels=(4,4)",
    "--config.autoencoder.model.norm_num_groups=2", "--config.denoiser.total_steps=2",
    "--config.denoiser.model.num_layers=1", "--config.denoiser.model.attention_head_dim=4",
    "--config.denoiser.text_encoder.hidden_size=8", "--config.sample.count=40", "--config.sample.steps=2",
    "--config.judge.epochs=1", "--config.judge.model.widths=(8,)",
)  # fmt: skip


@pytest.fixture(scope="module")
def config(root):
    return str(root / "configs/diffusion/latent_digits.py")


@pytest.fixture(scope="module")
def module(config):
    loaded = load(config, [])
    return import_experiment(loaded.experiment, loaded.project), loaded.config


@pytest.mark.slow
def test_trains_both_stages_and_resumes_them(config, tmp_path, capsys):
    def run():
        assert main(["run", config, "--workdir", str(tmp_path / "run"), *SMALL]) == 0
        return json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]

    metrics = run()
    assert all(np.isfinite(value) for value in metrics.values())
    assert {f"{name}_class_accuracy" for name in ("reconstructed", "sample", "guided", "held_out")} < set(metrics)
    assert metrics["reconstruction_error"] < 1 and metrics["latent_scaling"] > 0
    assert (tmp_path / "run" / "figures" / "samples.png").read_bytes().startswith(b"\x89PNG")
    saved = tmp_path / "run" / "model"
    autoencoder, params = models.load(saved / "vae")
    assert autoencoder.scaling_factor == pytest.approx(metrics["latent_scaling"])
    assert jax.eval_shape(autoencoder.apply, {"params": params}, np.zeros((1, 8, 8, 1))).shape == (1, 8, 8, 1)
    text, denoiser = (models.load(saved / name)[0] for name in ("text_encoder", "transformer"))
    tokens = read_clip_tokenizer(saved / "tokenizer")("a three in ink")
    assert tokens.shape == (1, text.max_position_embeddings) and tokens.max() < text.vocab_size
    assert denoiser.joint_attention_dim == text.hidden_size
    # as if it had been killed after its stages
    (tmp_path / "run" / "summary.json").unlink()
    capsys.readouterr()
    assert run() == metrics
    assert capsys.readouterr().out.count("resumes from the checkpoint of step 2 of 2") == 2


def test_each_class_has_a_text_in_each_phrasing(module):
    experiment, config = module
    phrases = experiment.all_phrases(config.text, 10)
    assert phrases[3] == ["a handwritten three", "a three in ink", "the digit 3", "three", "a handwritten 3"]
    with pytest.raises(ConfigError, match=r"config.text.words: expected a word for each of 3 classes, got 10"):
        experiment.all_phrases(config.text, 3)


def test_examples_of_all_classes_in_turn(module):
    labels = np.array([1, 0, 0, 1, 0])
    assert module[0].class_by_class(labels, 2).tolist() == [1, 0, 2, 3]


@pytest.mark.slow
def test_the_first_stage_alone(config, tmp_path):
    words = ("--config.total_steps=2", "--config.model.block_out_channels=(4,4)", "--config.model.norm_num_groups=2")
    assert main(["run", config + ":autoencoder", "--workdir", str(tmp_path / "run"), *words]) == 0
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert np.isfinite(metrics["test/square_error"])
    assert (tmp_path / "run" / "figures" / "reconstructions.png").read_bytes().startswith(b"\x89PNG")
