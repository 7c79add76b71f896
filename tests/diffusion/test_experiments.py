"""`aijax run configs/diffusion/...`, at small size: the numbers are there and the figures are drawn."""

import json

import pytest

from aijax.diffusion.build import build_process, build_sampler
from aijax.errors import ConfigError
from aijax.launch.cli import main


@pytest.fixture
def run(root, tmp_path):
    """`run(name, *words, folder="run") -> metrics, names of figures` of the config."""

    def start(name, *words, folder="run"):
        config = str(root / f"configs/diffusion/{name}.py")
        assert main(["run", config, "--workdir", str(tmp_path / folder), *words]) == 0
        figures = list((tmp_path / folder / "figures").glob("*.png"))
        assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in figures)
        metrics = json.loads((tmp_path / folder / "summary.json").read_text())["metrics"]
        return metrics, {figure.stem for figure in figures}

    return start


def test_a_mixture_in_the_plane(run):
    metrics, figures = run(
        "mixture2d", "--config.processes=('flow',)", "--config.samplers=('ddim',)", "--config.steps=60",
        "--config.batch_size=128", "--config.num_samples=300", "--config.num_likelihoods=10",
        "--config.sampler.ddim.steps=10", "--config.model.widths=(32,)",
    )  # fmt: skip
    assert 0 < metrics["exact"] < metrics["flow_ddim"] < 1
    assert abs(metrics["flow_gap"]) < 2
    assert figures == {"distances", "samples", "trajectories"}


@pytest.mark.slow
def test_digits_with_classes_and_what_is_distilled_of_them(run, tmp_path):
    metrics, figures = run(
        "digits", "--config.total_steps=3", "--config.model.width=16", "--config.model.depth=1",
        "--config.sample.count=20", "--config.sample.block=15", "--config.sample.steps=2", "--config.judge.epochs=1",
        "--config.judge.model.widths=(8,)", "--config.likelihood.examples=3", "--config.likelihood.probes=1",
    )  # fmt: skip
    assert 0 <= metrics["guided_class_accuracy"] <= 1
    assert metrics["test_pixel_frechet_distance"] == pytest.approx(0.41, abs=0.02)
    assert metrics["sample_frechet_distance"] > metrics["test_frechet_distance"]
    assert 3 < metrics["test_bits_per_dim"] < 8
    assert figures >= {"curves", "samples"}
    student, figures = run(
        "consistency_digits", f"--config.teacher={tmp_path / 'run'}", "--config.stages=(3,5)", "--config.steps=2",
        "--config.num_samples=20", "--config.judge.epochs=1", "--config.judge.model.widths=(8,)", folder="student",
    )  # fmt: skip
    assert student["test_pixel_frechet_distance"] == metrics["test_pixel_frechet_distance"]
    assert {f"{name}_class_accuracy" for name in ("one_step", "two_step", "teacher")} < set(student)
    assert figures == {"samples"}


@pytest.mark.parametrize(
    ("build", "section", "told"),
    [
        (build_process, {"name": "vpp"}, "did you mean 'vp'"), (build_process, {}, "config.process.name: missing"),
        (build_sampler, {"name": "heun", "chrun": 1.0}, "did you mean 'churn'"),
        (build_sampler, {"name": "multistep", "order": 2.5}, "config.sampler.order: expected"),
    ],
)  # fmt: skip
def test_sections_that_cannot_be_built_are_told(build, section, told):
    with pytest.raises(ConfigError, match=told):
        build(section)
