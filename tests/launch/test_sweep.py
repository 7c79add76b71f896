"""Sweeps: the grid, the folder, the children, the array script."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from aijax.errors import ConfigError
from aijax.launch import sweep
from aijax.launch.runs import is_finished
from aijax.launch.slurm import array_script

CONFIG = "configs/small/nothing.py"

CHILD = textwrap.dedent("""
    import json, os, pathlib, signal, sys, time
    folder, mode = pathlib.Path(sys.argv[1]), os.environ.get("MODE", "finish")
    folder.mkdir(parents=True, exist_ok=True)
    if mode == "wait":
        def save(*_):
            (folder / "saved").write_text("yes")
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        (folder / "started").write_text("yes")
        time.sleep(60)
    if mode == "fail" and "seed=1" in folder.name:
        print("first line")
        sys.exit("the seed is unlucky")
    (folder / "config.json").write_text(json.dumps({"experiment": "e", "name": folder.name}))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 3, "train/loss": 0.5}) + "\\n")
    metrics = {"test/accuracy": float("0." + folder.name[-1])}
    summary = {"status": "stopped" if mode == "stop" else "finished", "step": 3, "metrics": metrics}
    with (folder / "starts").open("a") as file:
        file.write("x")
    (folder / "summary.json").write_text(json.dumps(summary))
""")


@pytest.fixture
def children(monkeypatch):
    """Puts a stand-in for `aijax run` under every point."""
    monkeypatch.setattr(
        sweep, "command", lambda plan, point: [sys.executable, "-c", CHILD, str(plan.folder / point.name)]
    )


def starts(folder):
    return {path.parent.name: path.read_text() for path in folder.glob("*/starts")}


def test_a_grid_is_worked_out_in_full(project):
    plan = sweep.plan_sweep(CONFIG, ["optimizer.learning_rate=1e-3,3e-4", "seed=0:4:2"], [("model.depth", "2")])
    assert [point.name for point in plan.points] == [
        "optimizer.learning_rate=0.001,seed=0",
        "optimizer.learning_rate=0.001,seed=2",
        "optimizer.learning_rate=0.0003,seed=0",
        "optimizer.learning_rate=0.0003,seed=2",
    ]
    assert plan.axes == {"optimizer.learning_rate": [1e-3, 3e-4], "seed": [0, 2]}
    assert plan.points[1].values == {"optimizer.learning_rate": 1e-3, "seed": 2}
    assert plan.folder.as_posix() == "runs/small-nothing-sweep"
    command = sweep.command(plan, plan.points[3])
    folder = "runs/small-nothing-sweep/optimizer.learning_rate=0.0003,seed=2"
    assert command == [sys.executable, "-m", "aijax", "run", CONFIG, "--workdir", folder] + [
        "--config.model.depth=2",
        "--config.optimizer.learning_rate=3e-4",
        "--config.seed=2",
    ]


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("seed=0:3", ["0", "1", "2"]),
        ("seed=3:0:-1", ["3", "2", "1"]),
        ("seed=0:2,10,-1:1", ["0", "1", "10", "-1", "0"]),
        ("config.model.widths=(1,2),[3]", ["(1,2)", "[3]"]),
        ("--config.note=None,'a,b'", ["None", "'a,b'"]),
    ],
)
def test_axes_take_ranges_lists_and_brackets(axis, values):
    assert sweep.parse_axis(axis)[1] == values


def test_odd_values_make_folders_with_distinct_names(project):
    long = "x" * 200
    plan = sweep.plan_sweep(CONFIG, [f"model.variant=a/b,a:b,../c,{long}", "model.widths=(1,2),3"], [])
    names = [point.name for point in plan.points]
    assert len(set(names)) == 8
    assert all("/" not in name and len(name) <= 120 for name in names)
    assert [point.values["model.widths"] for point in plan.points[:2]] == [(1, 2), (3,)]


def test_an_axis_may_be_a_duration_or_an_item(project):
    plan = sweep.plan_sweep(CONFIG, ["total_steps=10,20", "model.widths[1]=1,2"], [])
    assert plan.points[3].values == {"total_steps": 20, "model.widths[1]": 2}
    assert plan.first.config.total_epochs is None


def test_the_whole_grid_is_checked_before_anything_starts(project, aijax, children):
    answer = aijax("sweep", CONFIG, "--axis", "seed=0,1,oops")
    assert (answer.status, answer.err) == (2, "aijax: config.seed: expected an int, got 'oops'\n")
    assert not (project / "runs").exists()


def test_a_sweep_runs_every_point_and_skips_what_has_finished(project, aijax, children):
    words = ("sweep", CONFIG, "--axis", "seed=0:3", "--workdir", "s", "--jobs", "2")
    answer = aijax(*words)
    assert answer.status == 0, answer.err
    assert starts(project / "s") == {"seed=0": "x", "seed=1": "x", "seed=2": "x"}
    assert answer.out.rindex("seed=2") < answer.out.rindex("seed=1") < answer.out.rindex("seed=0")
    record = json.loads((project / "s" / "sweep.json").read_text())
    assert record["axes"] == {"seed": [0, 1, 2]}
    assert record["points"] == {f"seed={seed}": {"seed": seed} for seed in range(3)}
    (project / "s" / "seed=1" / "summary.json").unlink()
    again = aijax(*words)
    assert again.status == 0 and "2 finished before" in again.out
    assert starts(project / "s") == {"seed=0": "x", "seed=1": "xx", "seed=2": "x"}


def test_failed_points_are_listed_with_their_last_words(project, aijax, children, monkeypatch):
    monkeypatch.setenv("MODE", "fail")
    answer = aijax("sweep", CONFIG, "--axis", "seed=0:3", "--workdir", "s")
    assert answer.status == 1
    assert answer.err.splitlines()[0] == "seed=1: exit 1: the seed is unlucky"
    assert answer.err.splitlines()[1].startswith("aijax: 1 of 3 runs did not finish; see s/logs")
    assert is_finished(project / "s" / "seed=2") and not is_finished(project / "s" / "seed=1")


def test_points_that_were_stopped_have_not_finished(project, aijax, children, monkeypatch):
    monkeypatch.setenv("MODE", "stop")
    answer = aijax("sweep", CONFIG, "--axis", "seed=0:1", "--workdir", "s")
    assert answer.status == 1 and answer.err.startswith("seed=0: stopped")


def test_another_sweep_in_the_same_folder_is_refused(project, aijax, children):
    assert aijax("sweep", CONFIG, "--axis", "seed=0:2", "--workdir", "s").status == 0
    axes = aijax("sweep", CONFIG, "--axis", "seed=0:3", "--workdir", "s")
    assert axes.status == 2
    assert axes.err == "aijax: s: holds a sweep with other axes (seed: 0,1 -> 0,1,2); give another --workdir\n"
    config = aijax("sweep", CONFIG, "--axis", "seed=0:2", "--workdir", "s", "--config.model.depth=9")
    assert config.status == 2 and "another config (config.model.depth: 4 -> 9)" in config.err
    (project / "s" / "sweep.json").write_text("{")
    broken = aijax("sweep", CONFIG, "--axis", "seed=0:2", "--workdir", "s")
    assert broken.status == 2 and "not valid JSON" in broken.err


def test_a_run_folder_is_no_sweep_folder(project, aijax, make_run):
    make_run(project / "r")
    answer = aijax("sweep", CONFIG, "--axis", "seed=0:2", "--workdir", "r")
    assert answer.status == 2 and "a run folder, not a sweep folder" in answer.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_lets_its_children_save(project, aijax, children, monkeypatch, number):
    monkeypatch.setenv("MODE", "wait")

    def interrupt():
        deadline = time.time() + 30
        while len(list((project / "s").glob("*/started"))) < 2 and time.time() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    answer = aijax("sweep", CONFIG, "--axis", "seed=0:4", "--workdir", "s", "--jobs", "2")
    thread.join()
    assert answer.status == 130
    assert answer.err == "aijax: sweep stopped: 0 of 4 runs have finished; the same command goes on from here\n"
    assert sorted(path.parent.name for path in (project / "s").glob("*/saved")) == ["seed=0", "seed=1"]


def test_slurm_gets_an_array_script_that_maps_indices_to_runs(project, aijax, children, tmp_path):
    words = ("sweep", CONFIG, "--axis", "seed=0:4", "--workdir", "s", "--slurm")
    answer = aijax(*words, "--jobs", "2")
    assert answer.status == 0 and answer.out.splitlines()[-1] == "sbatch s/sweep.sbatch"
    script = project / "s" / "sweep.sbatch"
    assert os.access(script, os.X_OK) and "#SBATCH --array=0-3%2\n" in script.read_text()
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "2"}
    subprocess.run([str(script)], check=True, env=environment, timeout=30, cwd="/")
    assert list(starts(project / "s")) == ["seed=2"]
    odd = subprocess.run([str(script)], env=environment | {"SLURM_ARRAY_TASK_ID": "9"}, capture_output=True, timeout=30)
    assert odd.returncode == 2 and b"no run has the index '9'" in odd.stderr
    aijax(*words)
    assert "#SBATCH --array=0-1,3\n" in script.read_text()


def test_array_script_quotes_what_the_shell_would_read(tmp_path):
    text = array_script({0: ["printf", "%s", "a b;$(c)'"]}, tmp_path, tmp_path, None)
    script = tmp_path / "x.sh"
    script.write_text(text)
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "0"}
    done = subprocess.run(
        ["bash", str(script)], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "a b;$(c)'"


def test_equal_points_are_refused(project):
    with pytest.raises(ConfigError, match="seed=1 and seed=1e0 are the same run"):
        sweep.plan_sweep(CONFIG, ["seed=1,1e0"], [])
