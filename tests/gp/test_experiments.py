"""`aijax run configs/gp/...`, at small size: the numbers are right and the figures are drawn."""

import json

import pytest

from aijax.launch.cli import main


@pytest.fixture
def run(root, tmp_path):
    """`run(name, *words) -> metrics` of the config, whose figures must be there."""

    def start(name, *words):
        config = str(root / f"configs/gp/{name}.py")
        assert main(["run", config, "--workdir", str(tmp_path / "run"), *words]) == 0
        figures = list((tmp_path / "run" / "figures").glob("*.png"))
        assert figures and all(figure.read_bytes().startswith(b"\x89PNG") for figure in figures)
        return json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]

    return start


def test_regression_on_a_line(run):
    metrics = run("regression_1d", "--config.grid=60", "--config.restarts=2")
    assert metrics["log_marginal_likelihood_fitted"] > metrics["log_marginal_likelihood"] + 10
    assert 0.05 < metrics["noise_std"] < 0.3
    assert metrics["share_within_two_standard_deviations"] > 0.8


@pytest.mark.slow
def test_digits_on_the_kernel_of_a_network(run):
    words = ("--config.kernels=('nngp','rbf')", "--config.sizes=(60,)", "--config.test_images=60", "--config.depth=1")
    metrics = run("ntk_digits", *words, "--config.draws=200")
    assert metrics["nngp_60_accuracy"] > 0.6
    assert 0 < metrics["nngp_60_nlpd"] < 1.3
    assert metrics["rbf_60_accuracy"] > 0.6
