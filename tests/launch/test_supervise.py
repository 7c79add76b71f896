"""Two real processes on this machine: the same losses as one, a clean stop together, and a death that is told."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

CONFIG = "configs/mlp/digits.py"
pytestmark = pytest.mark.processes
WORDS = ("--config.log_every_steps=1", "--config.tensorboard=false", "--config.checkpoint.every_steps=10")


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def children(process):
    """Returns the process ids of the run's processes, in their order."""
    found = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            parent = re.search(r"^PPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1]
        except OSError:
            continue
        if "--process-id" in words and int(parent) == process.pid:
            found[int(words[words.index("--process-id") + 1])] = int(pid)
    return [found[number] for number in sorted(found)]


def step_of(folder, number):
    try:
        return int((folder / "logs" / f"step-{number}").read_text())
    except (OSError, ValueError):
        return 0


def wait_for(condition, process, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory, start_aijax, root):
    folder = tmp_path_factory.mktemp("runs") / "one"
    process = start_aijax("run", root / CONFIG, "--workdir", folder, *WORDS, "--config.total_steps=20")
    process.communicate(timeout=300)
    return losses(folder)


@pytest.mark.parametrize(
    ("layout", "mesh"),
    [
        pytest.param(("--devices", "8"), (), marks=pytest.mark.slow),
        pytest.param(("--devices", "8"), ("--config.mesh.data=1", "--config.mesh.fsdp=8"), marks=pytest.mark.slow),
        pytest.param(("--devices", "8"), ("--config.mesh.data=4", "--config.mesh.fsdp=2"), marks=pytest.mark.slow),
        (("--processes", "2", "--devices", "4"), ("--config.mesh.data=4", "--config.mesh.fsdp=2")),
    ],
    ids=["8 replicas", "8-way FSDP", "4x2 data x fsdp", "2 processes x 4 devices"],
)
def test_the_same_config_gives_the_same_losses(one_device, start_aijax, root, tmp_path, layout, mesh):
    folder = tmp_path / "many"
    words = ("--workdir", folder, *WORDS, "--config.total_steps=20", *layout, *mesh)
    process = start_aijax("run", root / CONFIG, *words)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert len(losses(folder)) == 20
    np.testing.assert_allclose(losses(folder), one_device, rtol=2e-5)


def test_sigterm_to_one_process_saves_the_same_step_on_all_and_a_death_is_told(start_aijax, root, tmp_path):
    folder = tmp_path / "two"
    words = ("run", root / CONFIG, "--workdir", folder, *WORDS, "--config.total_steps=100000", "--processes", "2")
    process = start_aijax(*words)
    wait_for(lambda: step_of(folder, 1) >= 15, process)
    os.kill(children(process)[1], signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    stopped = json.loads((folder / "summary.json").read_text())
    assert stopped["status"] == "stopped"
    assert max(int(path.name) for path in (folder / "checkpoints").glob("0*")) == stopped["step"]
    assert "To go on: " in output
    assert "Gloo" not in output

    process = start_aijax(*words)
    wait_for(lambda: step_of(folder, 1) >= stopped["step"] + 5, process)
    os.kill(children(process)[1], signal.SIGKILL)
    began = time.monotonic()
    output, errors = process.communicate(timeout=120)
    assert time.monotonic() - began < 20
    assert process.returncode == 1
    told = [line for line in errors.splitlines() if line.startswith("aijax: ")]
    assert len(told) == 1
    assert re.search(r"process 1 died \(killed by SIGKILL\) after step \d+;.* to resume .*: aijax run ", told[0])
    assert f"--workdir {folder}" in told[0]


def test_a_mistake_is_told_once_and_not_as_a_death(start_aijax, root, tmp_path):
    words = ("--workdir", tmp_path / "a", "--processes", "2", "--config.batch_size=63")
    process = start_aijax("run", root / CONFIG, *words, stdin=subprocess.DEVNULL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.strip() == "aijax: config.batch_size: 63 examples cannot be split over data x fsdp = 2 devices"
