"""`aijax run configs/gp/...`, at small size: the numbers are right and the figures are drawn."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from aijax.errors import ConfigError
from aijax.launch.cli import main
from aijax.launch.config import load
from aijax.launch.projects import import_experiment


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


@pytest.fixture
def experiment(root):
    """`experiment(name) -> (module, config)` of a config, to be called without the launcher."""

    def load_both(name):
        loaded = load(str(root / f"configs/gp/{name}.py"), [])
        return import_experiment(loaded.experiment, loaded.project), ConfigDict(loaded.config)

    return load_both


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


def test_regression_of_a_table_finds_what_scikit_learn_finds(run):
    metrics = run("diabetes", "--config.data.test_fraction=0.8", "--config.restarts=2")
    assert metrics["test/log_evidence"] > metrics["scikit_learn/log_evidence"] - 1e-3
    assert metrics["test/rmse"] == pytest.approx(metrics["scikit_learn/rmse"], abs=0.1)
    assert 0.85 < metrics["test/share_within_two_standard_deviations"] <= 1


def test_the_functions_to_be_optimised_have_their_published_maxima(experiment):
    module, config = experiment("bayesopt")
    for at in ((-np.pi, 12.275), (np.pi, 2.275), (9.42478, 2.475)):
        assert module.branin(jnp.array(at)) == pytest.approx(module.FUNCTIONS["branin"][2], abs=1e-5)
    at = jnp.array([0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573])
    assert module.hartmann6(at) == pytest.approx(module.FUNCTIONS["hartmann6"][2], abs=1e-5)
    assert config.seeds == 20
    config.evaluations.branin = 3
    with pytest.raises(ConfigError, match=r"config.evaluations.branin: expected at least 6, .* got 3"):
        module.main(config, None)


@pytest.mark.slow
def test_optimisation_beats_random_search(experiment, tmp_path):
    module, config = experiment("bayesopt")
    (tmp_path / "figures").mkdir()
    config.seeds = 4
    del config.evaluations.hartmann6
    config.evaluations.branin = 20
    metrics = module.main(config, tmp_path)
    assert 0 <= metrics["branin/regret"] < 0.5 < metrics["branin/random_search_regret"]
    assert (tmp_path / "figures" / "bayesopt.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_classification_one_against_the_rest_is_that_of_scikit_learn(run):
    metrics = run("digits", "--config.methods=('one_vs_rest','scikit_learn')", "--config.examples=60")
    assert metrics["one_vs_rest_nlpd"] == pytest.approx(metrics["scikit_learn_nlpd"], abs=0.02)
    assert metrics["one_vs_rest_error"] == pytest.approx(metrics["scikit_learn_error"], abs=0.02)
    assert metrics["one_vs_rest_error"] < 0.3


@pytest.mark.slow
def test_classification_by_softmax_and_by_inducing_points(run):
    words = ("--config.methods=('softmax','sparse_variational')", "--config.examples=60")
    steps = ("--config.sparse_variational.steps=40", "--config.sparse_variational.inducing_points=30")
    metrics = run("digits", *words, *steps)
    assert metrics["softmax_error"] < 0.3 and 0.3 < metrics["softmax_nlpd"] < 2
    assert metrics["sparse_variational_error"] < 0.15 and metrics["sparse_variational_nlpd"] < 1


def test_an_unknown_method_is_refused(experiment):
    module, config = experiment("digits")
    config.methods = ("softmax", "forest")
    with pytest.raises(ConfigError, match=r"config.methods: expected some of softmax, .* got 'forest'"):
        module.main(config, None)


@pytest.mark.slow
def test_many_points(run):
    words = ("points=1500", "test_points=200", "fit.points=300", "fit.max_steps=10", "features=512", "curve=(500,)")
    more = ("preconditioner.ranks=(8,)", "solver.rank=400", "samples=16")
    metrics = run("large", *(f"--config.{word}" for word in words + more))
    assert metrics["converged"] and metrics["evidence/converged"] and metrics["evidence/standard_error"] > 0
    assert metrics["rmse"] < metrics["500/rmse"] < 0.5
    assert metrics["nlpd"] < metrics["nlpd_of_the_truth"] + 0.15
