"""Searches: the space, the trials, what is gone on with, what is refused."""

import json
import math
import os
import signal
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.launch import proposals, search
from aijax.launch.space import Axis, draw_points, list_axis, range_axis, texts_at, unit_at

CONFIG = "configs/small/nothing.py"
RATE = "optimizer.learning_rate=1e-5:1e-1:log"

CHILD = textwrap.dedent("""
    import json, math, os, pathlib, signal, sys, time
    folder, mode = pathlib.Path(sys.argv[1]), os.environ.get("MODE")
    fields = dict(word[9:].split("=") for word in sys.argv[2:])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "starts").open("a") as file:
        file.write("x")
    if mode == "wait":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        time.sleep(60)
    rate = float(fields["optimizer.learning_rate"])
    if mode == "fail" or (mode == "fail_high" and rate > 0.01):
        sys.exit("the loss is nan")
    (folder / "config.json").write_text(json.dumps({"experiment": "e", "name": folder.name}))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 3, "train/loss": 0.5}) + "\\n")
    error = (math.log10(rate) + 2.7) ** 2
    metrics = {"test/loss": error, "test/accuracy": -error}
    (folder / "summary.json").write_text(json.dumps({"status": "finished", "step": 3, "metrics": metrics}))
""")


@pytest.fixture
def children(monkeypatch):
    """Puts a stand-in for `aijax run` under every trial: a parabola in the logarithm of the learning rate."""
    real = search.command
    monkeypatch.setattr(
        search, "command", lambda plan, trial: [sys.executable, "-c", CHILD, *_folder_and_fields(real(plan, trial))]
    )


@pytest.fixture
def guesses(monkeypatch):
    """Puts a draw without a model in the place of proposals."""

    def guess(axes, scores, pending, seed):
        generator = np.random.default_rng([seed, len(scores) + len(pending)])
        return draw_points(generator, axes, 1, None)[0]

    monkeypatch.setattr(search, "propose", guess)


def _folder_and_fields(command):
    place = command.index("--workdir") + 1
    return [command[place], *command[place + 1 :]]


def trials(folder):
    return json.loads((folder / "sweep.json").read_text())["trials"]


def starts(folder):
    return {path.parent.name: path.read_text() for path in folder.glob("*/starts")}


@pytest.mark.parametrize(
    ("axis", "middle"),
    [
        (range_axis("a", "0:0.5", float), "0.25"),
        (range_axis("a", "1e-4:1e-2:log", float), "0.001"),
        (range_axis("a", "16:1024:log", int), "128"),
        (list_axis("a", "8,2,4", ["8", "2", "4"], [8, 2, 4]), "4"),
    ],
)
def test_axes_put_their_values_in_order_on_a_line(axis, middle):
    assert axis.text_at([0.5]) == middle
    places = np.linspace(0, 1, 9)
    values = [float(axis.text_at([place])) for place in places]
    assert values == sorted(values)
    for text in {axis.text_at([place]) for place in places}:
        assert axis.text_at(axis.place(text)) == text


def test_choices_without_order_lie_at_equal_distances():
    axis = list_axis("name", "sgd,adam,lion", ["sgd", "adam", "lion"], ["sgd", "adam", "lion"])
    corners = np.array([axis.place(text) for text in axis.options])
    distances = np.linalg.norm(corners[:, None] - corners, axis=-1)
    np.testing.assert_allclose(distances[np.triu_indices(3, 1)], 1.0)
    both = (axis, range_axis("rate", "0:1", float))
    assert texts_at(both, unit_at(both, ("lion", "0.125"))) == ("lion", "0.125")


def test_proposals_exhaust_a_small_space_without_repeating(monkeypatch):
    axes = (Axis("a", "1,2", ("1", "2")), Axis("b", "x,y,z", ("x", "y", "z"), ordered=False))
    monkeypatch.setattr(proposals, "_ask", lambda axes, scores, pending, units, seed: units[0] * 0)
    scores = {}
    while (texts := proposals.propose(axes, scores, [], seed=0)) is not None:
        assert texts not in scores
        scores[texts] = math.nan
    assert len(scores) == 6
    assert proposals.propose(axes, {}, list(scores), seed=0) is None


def test_a_search_finds_the_best_value(project, aijax, children):
    words = ("sweep", CONFIG, "--bayesopt", "test/loss", "--axis", RATE, "--workdir", "s", "--jobs", "2")
    answer = aijax(*words, "--trials", 9)
    assert answer.status == 0, answer.err
    assert "9 trials in s for the smallest test/loss" in answer.out
    best = answer.out.splitlines()[-1]
    assert best.startswith("best: trial=") and float(best.split()[-1]) < 0.02
    rates = [float(trial["values"][0]) for trial in trials(project / "s")]
    assert len(set(rates)) == 9 and all(1e-5 <= rate <= 1e-1 for rate in rates)


def test_a_search_goes_on_where_it_was_killed(project, aijax, children, guesses, monkeypatch):
    words = ("sweep", CONFIG, "--bayesopt", "test/loss", "--axis", RATE, "--workdir", "s")
    assert aijax(*words, "--trials", 3).status == 0
    first = trials(project / "s")
    (project / "s" / first[1]["name"] / "summary.json").unlink()
    again = aijax(*words, "--trials", 5)
    assert again.status == 0 and "2 ended before" in again.out
    assert trials(project / "s")[:3] == first and len(trials(project / "s")) == 5
    assert [starts(project / "s")[trial["name"]] for trial in first] == ["x", "xx", "x"]
    # the results are those of the folders: another objective among the same trials
    other = aijax("sweep", CONFIG, "--bayesopt", "test/accuracy", "--axis", RATE, "--workdir", "s", "--trials", 5)
    assert other.status == 0 and "for the largest test/accuracy, 5 ended before" in other.out
    assert other.out.splitlines()[-1].split(":")[1] == again.out.splitlines()[-1].split(":")[1]


def test_an_interrupted_search_lets_its_children_save(project, aijax, children, guesses, monkeypatch):
    monkeypatch.setenv("MODE", "wait")

    def interrupt():
        deadline = time.time() + 30
        while len(list((project / "s").glob("*/starts"))) < 2 and time.time() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    words = ("sweep", CONFIG, "--bayesopt", "test/loss", "--axis", RATE, "--workdir", "s", "--trials", "4")
    answer = aijax(*words, "--jobs", 2)
    thread.join()
    assert answer.status == 130
    assert answer.err == "aijax: search stopped: 0 of 4 trials have ended; the same command goes on from here\n"
    monkeypatch.delenv("MODE")
    assert aijax(*words).status == 0
    assert sorted(starts(project / "s").values()) == ["x", "x", "xx", "xx"]


def test_failed_trials_are_told_kept_and_not_run_again(project, aijax, children, guesses, monkeypatch):
    monkeypatch.setenv("MODE", "fail_high")
    words = ("sweep", CONFIG, "--bayesopt", "test/loss", "--axis", "optimizer.learning_rate=1e-3,0.1", "--workdir", "s")
    monkeypatch.setattr(search, "propose", lambda axes, scores, pending, seed: [("0.1",), ("1e-3",)][len(scores)])
    answer = aijax(*words, "--trials", 2)
    assert answer.status == 0
    failed = trials(project / "s")[0]
    assert failed["failure"] == "exit 1: the loss is nan"
    assert answer.err == f"{failed['name']}: exit 1: the loss is nan\n"
    assert aijax(*words, "--trials", 2).status == 0
    assert set(starts(project / "s").values()) == {"x"}


def test_a_search_whose_first_trials_all_fail_stops(project, aijax, children, guesses, monkeypatch):
    monkeypatch.setenv("MODE", "fail")
    answer = aijax("sweep", CONFIG, "--bayesopt", "test/loss", "--axis", RATE, "--workdir", "s", "--trials", 40)
    assert answer.status == 1 and len(trials(project / "s")) == search.MAX_FIRST_FAILURES
    assert "none of 5 trials gave a value of test/loss" in answer.err


def test_a_metric_that_no_trial_has_is_named(project, aijax, children, guesses):
    answer = aijax("sweep", CONFIG, "--bayesopt", "test/los", "--axis", RATE, "--workdir", "s", "--trials", 4)
    assert answer.status == 2
    assert "has no such metric; did you mean 'test/loss'?" in answer.err
    assert len(trials(project / "s")) == 1


def test_a_folder_of_another_sweep_is_refused(project, aijax, children, guesses):
    words = ("sweep", CONFIG, "--bayesopt", "test/loss", "--trials", 1, "--workdir", "s")
    assert aijax(*words, "--axis", RATE).status == 0
    axes = aijax(*words, "--axis", "optimizer.learning_rate=1e-4:1e-1:log")
    assert axes.status == 2 and "holds a search with other axes" in axes.err
    config = aijax(*words, "--axis", RATE, "--config.model.depth=9")
    assert config.status == 2 and "another config (config.model.depth: 4 -> 9)" in config.err
    grid = aijax("sweep", CONFIG, "--axis", "seed=0:2", "--workdir", "s")
    assert grid.status == 2 and "holds a search by --bayesopt" in grid.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--axis", RATE), "a range to search in, which needs --bayesopt METRIC --trials N"),
        (("--axis", RATE, "--bayesopt", "test/loss"), "--trials: missing; --bayesopt needs the number of runs"),
        (("--axis", RATE, "--trials", "3"), "--trials: is of a search; give --bayesopt METRIC too"),
        (("--axis", RATE, "--bayesopt", "x", "--trials", "3", "--slurm"), "--slurm: a search chooses each run"),
        (
            (
                "--axis",
                "optimizer.learning_rate=0:1:log",
            ),
            "begins above 0, got 0",
        ),
        (
            (
                "--axis",
                "optimizer.learning_rate=1:0.1",
            ),
            "expected LOW:HIGH with LOW below HIGH",
        ),
        (
            (
                "--axis",
                "optimizer.learning_rate=1e-3",
            ),
            "one value; a search needs two or a range",
        ),
        (
            (
                "--axis",
                "optimizer.learning_rat=0:1",
            ),
            "did you mean 'learning_rate'?",
        ),
        (
            (
                "--axis",
                "model.depth=1:8.5:log",
            ),
            "expected an int, got '8.5'",
        ),
        (
            (
                "--axis",
                "seed=1,1e0",
            ),
            "1e0 is given twice",
        ),
    ],
)
def test_mistakes_are_told_before_anything_starts(project, aijax, children, words, told):
    if len(words) == 2 and words[1] != RATE:
        words = (*words, "--bayesopt", "test/loss", "--trials", "3")
    answer = aijax("sweep", CONFIG, *words)
    assert answer.status == 2 and told in answer.err, answer.err
    assert not (project / "runs").exists()


def test_the_command_line_is_read_without_jax(project):
    import subprocess

    code = "import sys, aijax.launch.search, aijax.launch.proposals; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_same_results_propose_the_same_trial():
    with pytest.raises(ConfigError, match="one value"):
        list_axis("a", "1", ["1"], [1])
    axes = (range_axis("a", "0:1", float),)
    scores = {("0.1",): 1.0, ("0.5",): 2.0, ("0.9",): math.nan}
    assert proposals.propose(axes, scores, [("0.4",)], 0) == proposals.propose(axes, scores, [("0.4",)], 0)
