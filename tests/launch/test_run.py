"""`aijax run` in this process, on its eight host devices."""

import itertools
import json

import numpy as np
import pytest

import aijax as package
from aijax.launch.cli import main

MLP = "configs/mlp/digits.py"
SHORT = ("--config.total_steps=40", "--config.checkpoint.every_steps=10", "--config.evaluate_every_steps=20")


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("runs") / "a"
    assert main(["run", str(root / MLP), "--workdir", str(folder), *SHORT]) == 0
    return folder


def test_a_run_leaves_a_whole_folder(finished):
    assert {path.name for path in finished.iterdir()} >= {
        "config.json", "run.json", "data.json", "metrics.jsonl", "tensorboard", "figures", "checkpoints",
        "summary.json", "experiments",
    }  # fmt: skip
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["step"] == summary["total_steps"] == 40
    assert summary["parameters"] == 26_122
    assert summary["metrics"]["test/accuracy"] > 0.7
    about = json.loads((finished / "run.json").read_text())
    assert about["versions"]["jax"]
    assert about["devices"] == [f"TFRT_CPU_{i}" for i in range(8)] or len(about["devices"]) == 8
    assert (finished / "figures" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert any((finished / "tensorboard").iterdir())


def test_each_step_is_told_once(finished):
    records = lines(finished)
    trained = [record["step"] for record in records if "train/loss" in record]
    assert trained == sorted(set(trained))
    assert [record["step"] for record in records if "test/accuracy" in record] == [20, 40]
    assert all(a["seconds"] <= b["seconds"] for a, b in itertools.pairwise(records))


def test_a_finished_run_has_nothing_left_to_do(finished, root, capsys):
    before = lines(finished)
    assert main(["run", str(root / MLP), "--workdir", str(finished), *SHORT]) == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert lines(finished) == before


def test_another_config_is_refused_with_the_difference(finished, root, capsys):
    status = main(["run", str(root / MLP), "--workdir", str(finished), *SHORT, "--config.optimizer.learning_rate=0.5"])
    assert status == 2
    told = capsys.readouterr().err
    assert "config.optimizer.learning_rate: 0.002 -> 0.5" in told
    assert len(told.splitlines()) == 1


def test_another_mesh_is_not_another_config(finished, root):
    assert main(["run", str(root / MLP), "--workdir", str(finished), *SHORT, "--config.mesh.fsdp=2"]) == 0


def test_fresh_moves_the_run_aside(root, tmp_path):
    folder = tmp_path / "a"
    words = ["run", str(root / MLP), "--workdir", str(folder), "--config.total_steps=2"]
    assert main(words) == 0
    assert main([*words, "--config.seed=1", "--fresh"]) == 0
    assert json.loads((folder / "config.json").read_text())["seed"] == 1
    assert json.loads((tmp_path / "a.before" / "config.json").read_text())["seed"] == 0


def test_a_run_folder_is_enough_to_repeat_the_run(finished, tmp_path):
    assert main(["run", str(finished / "config.json"), "--workdir", str(tmp_path / "b")]) == 0
    first, second = package.open_run(finished), package.open_run(tmp_path / "b")
    assert first.config == second.config
    np.testing.assert_array_equal(first.params["head"]["kernel"], second.params["head"]["kernel"])


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(root, tmp_path, capsys):
    words = ["run", str(root / MLP), "--workdir", str(tmp_path / "a"), *SHORT, "--config.optimizer.learning_rate=1e25"]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "aijax: step " in told
    assert "train/loss is nan" in told or "is inf" in told or "is nan" in told
    assert "checkpoint" in told
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["message"] in told


def test_a_folder_that_holds_no_run_is_left_alone(root, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    assert main(["run", str(root / MLP), "--workdir", str(tmp_path), "--fresh"]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.batch_size=60", "config.batch_size: 60 examples cannot be split over data x fsdp = 8"),
        ("--config.mesh.fsdp=3", "does not make the 8 devices"),
        ("--config.model.name=mpl", "config.model.name: unknown value 'mpl'; did you mean 'mlp'"),
        ("--config.data.source=digit", "did you mean 'digits'"),
        ("--config.optimizer.name=adan", "config.optimizer.name: unknown value 'adan'"),
        ("--config.optimizer.learning_rate=-1", "config.optimizer.learning_rate: expected a number, zero or more"),
        ("--config.seed=-1", "config.seed: expected 0 to"),
    ],
)
def test_a_config_that_cannot_run_is_told_in_a_sentence_and_leaves_no_folder(root, tmp_path, capsys, override, message):
    assert main(["run", str(root / MLP), "--workdir", str(tmp_path / "a"), override]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "a").exists()


@pytest.fixture
def project(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "experiments" / "count.py").write_text(
        '"""Counts."""\n\ndef main(config, folder):\n    (folder / "figures" / "note.txt").write_text("hello")\n'
        '    return {"count": config.upto * 2}\n'
    )
    (tmp_path / "configs" / "count.py").write_text(
        '"""Counting."""\nfrom ml_collections import ConfigDict\n\ndef get_config():\n'
        '    return ConfigDict({"experiment": "count", "upto": 3})\n'
    )
    return tmp_path


def test_an_experiment_of_the_users_own_project_runs(project):
    assert main(["run", str(project / "configs" / "count.py"), "--workdir", str(project / "a"), "--config.upto=4"]) == 0
    assert json.loads((project / "a" / "summary.json").read_text())["metrics"] == {"count": 8}
    assert (project / "a" / "figures" / "note.txt").exists()


def test_an_unknown_field_of_a_users_config_is_refused(project, capsys):
    (project / "configs" / "typo.py").write_text(
        "from ml_collections import ConfigDict\n\ndef get_config():\n"
        '    return ConfigDict({"experiment": "train_classifier", "seed": 0, "batch_size": 8, "total_steps": 1,\n'
        '        "evaluate_evry_steps": 1, "data": {"source": "digits"}, "model": {"name": "mlp"},\n'
        '        "optimizer": {"learning_rate": 0.1}})\n'
    )
    assert main(["run", str(project / "configs" / "typo.py"), "--workdir", str(project / "a")]) == 2
    assert "config.evaluate_evry_steps: unknown field; did you mean 'evaluate_every_steps'?" in capsys.readouterr().err
