"""Runs in processes of their own that are killed, stopped and damaged, and end as if nothing had happened."""

import json
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from aijax.launch.config import load
from aijax.launch.projects import import_experiment
from aijax.train import Checkpoints, prepare

CONFIG = "configs/mlp/digits.py"
pytestmark = pytest.mark.processes
TOTAL = 1500
WORDS = (
    f"--config.total_steps={TOTAL}", "--config.checkpoint.every_steps=100", "--config.log_every_steps=20",
    "--config.evaluate_every_steps=500",
)  # fmt: skip


def last_state(folder):
    """Returns the whole state of the newest checkpoint, as arrays by place."""
    loaded = load(str(folder))
    module = import_experiment(loaded.experiment, loaded.project)
    experiment = module.build(loaded.config, module.load(loaded.config))
    target = prepare(experiment, loaded.config.to_dict() | {"mesh": {}}, devices=jax.devices()[:1]).state
    with Checkpoints(folder / "checkpoints") as checkpoints:
        step, state, _ = checkpoints.restore_latest(target, pytest.fail)
    return step, [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def logged_step(folder):
    try:
        return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    except (OSError, ValueError, IndexError, KeyError):
        return 0


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, start_aijax, root):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    process = start_aijax("run", root / CONFIG, "--workdir", folder, *WORDS)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return folder


def resume_to_the_end(start_aijax, root, folder):
    process = start_aijax("run", root / CONFIG, "--workdir", folder, *WORDS)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


def assert_same_end(folder, uninterrupted):
    step, state = last_state(folder)
    expected_step, expected = last_state(uninterrupted)
    assert step == expected_step == TOTAL
    for a, b in zip(state, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def records(folder):
    drop = ("seconds", "train/examples_per_second")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in drop} for line in lines]


def test_killed_at_any_instant_it_ends_bit_for_bit_the_same(uninterrupted, start_aijax, root, tmp_path):
    folder = tmp_path / "killed"
    for at in (0, 130, 700):
        process = start_aijax("run", root / CONFIG, "--workdir", folder, *WORDS)
        if at == 0:
            wait_for(lambda: (folder / "config.json").exists(), process)
        else:
            wait_for(lambda at=at: logged_step(folder) >= at, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert "resumes from the checkpoint of step" in resume_to_the_end(start_aijax, root, folder)
    assert_same_end(folder, uninterrupted)
    evaluated = [line for line in records(folder) if "test/loss" in line]
    assert evaluated == [line for line in records(uninterrupted) if "test/loss" in line]
    trained = [line["step"] for line in records(folder) if "train/loss" in line]
    assert trained == sorted(set(trained))


def test_sigterm_saves_and_exits_cleanly_and_a_damaged_newest_checkpoint_is_survived(
    uninterrupted, start_aijax, root, tmp_path
):
    folder = tmp_path / "stopped"
    process = start_aijax("run", root / CONFIG, "--workdir", folder, *WORDS)
    wait_for(lambda: logged_step(folder) >= 300, process)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "stopped"
    assert "To go on: " in output
    assert str(folder) in output
    step, _ = last_state(folder)
    assert step == summary["step"] < TOTAL

    files = [path for path in (folder / "checkpoints" / f"{step:09d}" / "state").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    output = resume_to_the_end(start_aijax, root, folder)
    assert f"checkpoint {step} is damaged" in output
    assert_same_end(folder, uninterrupted)


def test_two_at_once_in_one_folder_are_refused(start_aijax, root, tmp_path):
    folder = tmp_path / "shared"
    first = start_aijax("run", root / CONFIG, "--workdir", folder, *WORDS)
    wait_for(lambda: (folder / "config.json").exists(), first)
    second = start_aijax("run", root / CONFIG, "--workdir", folder, *WORDS)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 2
    assert "another process is running in" in errors
    first.kill()
    first.communicate()


@pytest.mark.parametrize(
    "sizes", [pytest.param({"data": 1, "fsdp": 8}, marks=pytest.mark.slow), {"data": 4, "fsdp": 2}]
)
def test_a_run_resumes_on_another_mesh(uninterrupted, tmp_path, root, sizes):
    from aijax.launch.cli import main

    folder = shutil.copytree(uninterrupted, tmp_path / "moved")
    newest = max((folder / "checkpoints").glob("0*"))
    shutil.rmtree(newest)
    (folder / "summary.json").unlink()
    mesh = [f"--config.mesh.{axis}={size}" for axis, size in sizes.items()]
    assert main(["run", str(root / CONFIG), "--workdir", str(folder), *WORDS, *mesh]) == 0
    step, state = last_state(folder)
    _, expected = last_state(uninterrupted)
    assert step == TOTAL
    for a, b in zip(state, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
