"""`aijax run configs/interp/...`, at small size: the numbers are there and the figures are drawn."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from aijax.errors import ConfigError
from aijax.launch.cli import main
from aijax.launch.config import load
from aijax.launch.projects import import_experiment


@pytest.fixture
def run(root, tmp_path):
    """`run(name, *words, folder="run") -> metrics, names of figures` of the config."""

    def start(name, *words, folder="run"):
        config = str(root / f"configs/{name}.py")
        assert main(["run", config, "--workdir", str(tmp_path / folder), *words]) == 0
        figures = list((tmp_path / folder / "figures").glob("*.png"))
        assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in figures)
        metrics = json.loads((tmp_path / folder / "summary.json").read_text())["metrics"]
        return metrics, {figure.stem for figure in figures}

    return start


def build(root, *overrides):
    loaded = load(str(root / "configs/interp/grokking.py"), overrides)
    module = import_experiment(loaded.experiment, loaded.project)
    return module, module.build(loaded.config, module.load(loaded.config))


def test_the_loss_of_grokking_keeps_its_digits(root):
    module, _ = build(root)
    logits, label = np.array([[40.0, 1.0, 2.0]], np.float32), np.array([0])
    exact = np.log1p(np.exp(-39.0) + np.exp(-38.0))
    loss, slope = jax.value_and_grad(lambda z: module.precise_cross_entropy(z, label)[0])(logits)
    assert loss == pytest.approx(exact, rel=1e-5)
    np.testing.assert_allclose(slope[0], [-exact, np.exp(-39.0), np.exp(-38.0)], rtol=1e-5)


def test_what_grokking_cannot_do_is_told(root):
    module, _ = build(root)
    with pytest.raises(ConfigError, match=r"config.num_frequencies: expected 1 to 56, got 57"):
        build(root, ("num_frequencies", "57"))
    with pytest.raises(ConfigError, match=r"config.data.source: expected modular_addition, got 'digits'"):
        module.load(ConfigDict({"data": {"source": "digits"}}))


@pytest.mark.slow
def test_grokking_is_measured_on_any_number_of_devices(run):
    small = (
        "--config.data.modulus=7", "--config.data.train_size=24", "--config.batch_size=24", "--config.total_steps=4",
        "--config.evaluate_every_steps=2", "--config.model.width=8", "--config.model.mlp_width=16",
        "--config.model.num_heads=2", "--config.num_frequencies=2", "--config.tensorboard=False",
        "--config.schedule.warmup_steps=1",
    )  # fmt: skip
    metrics, figures = run("interp/grokking", *small)  # the tests' eight devices do not divide 49 pairs
    assert figures == {"curves", "grokking"}
    assert 1 < metrics["progress/restricted_loss"] < 3 and 0 <= metrics["test/accuracy"] <= 1
    assert {metrics["key_frequency_0"], metrics["key_frequency_1"]} <= {1, 2, 3}


@pytest.mark.slow
def test_inside_of_a_vision_transformer(run, tmp_path):
    run("vit/digits", "--config.total_steps=8", "--config.tensorboard=False", "--config.batch_size=16")
    metrics, figures = run(
        "interp/vit_digits", f"--config.run={tmp_path / 'run'}", "--config.image.steps=2", folder="inside"
    )
    assert figures == {"vit_digits"}
    assert metrics["lens_accuracy_after_2_blocks"] == pytest.approx(metrics["accuracy"], abs=1e-6)
    assert metrics["probe_accuracy_after_2_blocks"] > 0.5 > metrics["block_1_mean_explained_variance"] > 0
    assert metrics["accuracy_without_a_quarter_by_gradient"] <= metrics["accuracy"]


@pytest.mark.slow
def test_sparse_autoencoders_of_a_vision_transformer(run, tmp_path):
    run("vit/digits", "--config.total_steps=8", "--config.tensorboard=False", "--config.batch_size=16")
    small = ("--config.total_steps=150", "--config.latents=96", "--config.learning_rate=0.01")
    metrics, figures = run("interp/sae_digits", f"--config.run={tmp_path / 'run'}", *small, folder="inside")
    assert figures == {"sae"}
    for block in range(2):
        told = {name.split("/")[-1]: value for name, value in metrics.items() if f"block_{block}" in name}
        assert told["explained_variance"] > 0.2 and told["l0"] == pytest.approx(8, abs=0.5)
        assert told["loss_recovered"] <= 1.5 and 0 <= told["dead_share"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2])
def test_induction_heads_are_looked_for(run, depth):
    small = (
        "--config.data.size=64", "--config.data.held_out_size=32", "--config.batch_size=16", "--config.total_steps=4",
        "--config.evaluate_every_steps=2", "--config.model.width=16", f"--config.model.depth={depth}",
        "--config.tensorboard=False", "--config.schedule.warmup_steps=1",
    )  # fmt: skip
    metrics, figures = run("interp/induction", *small)
    assert figures == {"curves", "induction"}
    assert metrics["induction_heads"] == metrics["previous_token_heads"] == 0
    assert metrics["validation/repeat_loss"] == pytest.approx(np.log(40), abs=1)
    assert {f"validation/induction_{depth - 1}_3", "validation/previous_token_0_0"} <= set(metrics)
