"""A small project in a temporary folder, and the command line called in this process."""

import dataclasses
import json
import textwrap

import pytest

CONFIG = '''
"""A small classifier of nothing.

The second paragraph is not listed.
"""

from ml_collections import ConfigDict, config_dict


def get_config(size="small"):
    config = ConfigDict()
    config.experiment = "train_nothing"
    config.seed = 0
    config.total_epochs = 60
    config.note = None
    config.model = ConfigDict(
        {"variant": "plain", "depth": 4, "dropout": 0.1, "bias": True, "widths": (8, 16), "names": ["a", "b"]}
    )
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 1e-3, "betas": (0.9, 0.99), "empty": ()})
    config.schedule = ConfigDict({"warmup_fraction": 0.1, "decay_epochs": config.get_ref("total_epochs") * 2})
    config.limit = config_dict.placeholder(int)
    if size == "large":
        config.model.depth = 40
    return config
'''


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command line answered."""

    status: int
    out: str
    err: str


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with one config and one experiment, the current folder meanwhile."""
    (tmp_path / "configs" / "small").mkdir(parents=True)
    (tmp_path / "experiments" / "deep").mkdir(parents=True)
    (tmp_path / "configs" / "small" / "nothing.py").write_text(CONFIG)
    (tmp_path / "experiments" / "train_nothing.py").write_text('"""Trains nothing at all."""\n\nANSWER = 42\n')
    (tmp_path / "experiments" / "deep" / "train_more.py").write_text('"""Trains more."""\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_config(project):
    """Writes a config file with a body of its own and returns its path below the project."""

    def write(body, name="own"):
        path = project / "configs" / f"{name}.py"
        path.write_text(textwrap.dedent(body))
        return f"configs/{name}.py"

    return write


@pytest.fixture
def aijax(capsys):
    """Calls the command line in this process and returns its status, stdout and stderr."""
    from aijax.launch.cli import main

    def call(*argv):
        capsys.readouterr()
        status = main([str(word) for word in argv])
        captured = capsys.readouterr()
        return Answer(status, captured.out, captured.err)

    return call


@pytest.fixture
def make_run():
    """Writes a run folder by hand."""

    def make(folder, config=None, records=(), summary=None, tail=""):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"experiment": "train_nothing", **(config or {})}))
        (folder / "run.json").write_text("{}")
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
        if summary is not None:
            (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    return make
