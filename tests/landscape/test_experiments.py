"""`aijax run configs/landscape/...`, at small size: the numbers are right and the figures are drawn."""

import json

import jax
import pytest

from aijax.launch.cli import main


@pytest.fixture(autouse=True)
def single():
    with jax.enable_x64(False):
        yield


@pytest.fixture
def run(root, tmp_path):
    """`run(name, *words) -> metrics, names of figures` of the config."""

    def start(name, *words):
        config = str(root / f"configs/landscape/{name}.py")
        assert main(["run", config, "--workdir", str(tmp_path / "run"), *words]) == 0
        figures = {figure.name for figure in (tmp_path / "run" / "figures").glob("*.png")}
        return json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"], figures

    return start


@pytest.mark.slow
def test_the_edge_of_stability_is_met(run):
    words = ("--config.examples=100", "--config.steps=400", "--config.learning_rates=(0.1,1.6)")
    metrics, figures = run("edge_of_stability", *words)
    assert figures == {"edge_of_stability.png"}
    assert metrics["0.1_reached"] == -1 and metrics["0.1_rises"] == 0
    assert metrics["1.6_reached"] > 0 and metrics["1.6_ratio"] == pytest.approx(1, abs=0.1)
    assert metrics["1.6_rises"] > 0.1


@pytest.mark.slow
def test_the_landscape_of_digits(run):
    words = (
        "steps=300", "grid=5", "measurements=3", "probes=2", "lanczos_steps=20", "trace_products=20", "curve.steps=100",
    )  # fmt: skip
    metrics, figures = run("digits", *(f"--config.{word}" for word in words))
    assert figures == {"surface.png", "relief.png", "way.png", "spectrum.png", "paths.png"}
    assert metrics["barrier_matched"] < metrics["barrier_straight"]
    assert metrics["barrier_bezier"] < metrics["barrier_straight"]
    assert metrics["accuracy"] > 0.9
    assert metrics["way_explained"] > 0.9


def test_what_cannot_be_run_is_told(run, root, tmp_path, capsys):
    for name, word, told in (
        ("edge_of_stability", "learning_rates=(0.0,)", "config.learning_rates: expected positive numbers, got (0.0,)"),
        ("digits", "model.name=cnn", "config.model.name: units are exchanged of an mlp, got 'cnn'"),
    ):
        config = str(root / f"configs/landscape/{name}.py")
        assert main(["run", config, "--workdir", str(tmp_path / name), f"--config.{word}"]) == 2
        assert told in capsys.readouterr().err
