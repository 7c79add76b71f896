import json
import sys

import pytest

from aijax.errors import ConfigError
from aijax.train import sinks


def write(path, steps, start=0):
    with sinks.json_lines(path, start) as sink:
        for step in steps:
            sink(step, {"seconds": step / 10, "train/loss": 1 / step})


def test_a_resumed_run_tells_each_step_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 9))
    with path.open("a") as stream:
        stream.write('{"step": 9, "train/lo')
    write(path, range(6, 8), start=5)
    assert [record["step"] for record in sinks.read_lines(path)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_line_is_on_disk_when_it_is_written_and_has_the_precision_of_a_float32(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with sinks.json_lines(path, 0) as sink:
        sink(1, {"train/loss": 0.123456789123})
        assert json.loads(path.read_text()) == {"step": 1, "train/loss": 0.12345679}


def test_event_files_hold_the_metrics(tmp_path):
    with sinks.tensorboard(tmp_path / "tensorboard", 0) as sink:
        sink(1, {"train/loss": 0.5})
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in file.read_bytes()


def test_weights_and_biases_is_asked_for_by_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(ConfigError, match=r"config\.wandb: .*aijax\[wandb\]"),
        sinks.weights_and_biases(tmp_path, {}, {}),
    ):
        pass


def test_weights_and_biases_gets_config_and_metrics(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, metrics, step):
            calls.append((step, metrics))

        def finish(self):
            calls.append("finished")

    class Wandb:
        @staticmethod
        def init(**arguments):
            calls.append(arguments)
            return Run()

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    with sinks.weights_and_biases(tmp_path, {"project": "p"}, {"seed": 1}) as sink:
        sink(3, {"train/loss": 0.5})
    assert calls == [
        {"dir": str(tmp_path), "config": {"seed": 1}, "resume": "allow", "project": "p"},
        (3, {"train/loss": 0.5}),
        "finished",
    ]
