"""The command line: its help, a fuzz of mistakes, and what it does not import."""

import argparse
import os
import subprocess
import sys
import time
import types

import pytest

from aijax.errors import DataError, RunError
from aijax.launch import cli

CONFIG = "configs/small/nothing.py"

MISTAKES = [
    ("rnu",),
    ("rum", CONFIG),
    ("--workdir", "a", "run", CONFIG),
    (CONFIG,),
    ("run",),
    ("check",),
    ("sweep",),
    ("report",),
    ("run", "configs/small/nothin.py"),
    ("run", "config/small/nothing.py"),
    ("run", "nowhere/at/all.py"),
    ("run", "configs"),
    ("run", "."),
    ("run", ""),
    ("run", CONFIG, "extra"),
    ("run", CONFIG, "optimizer.lr=3"),
    ("run", CONFIG + ":"),
    ("run", CONFIG, "--fesh"),
    ("run", CONFIG, "--fresh=1"),
    ("run", CONFIG, "-workdir", "a"),
    ("run", CONFIG, "-w", "a"),
    ("run", CONFIG, "--work", "a"),
    ("run", CONFIG, "--workdir"),
    ("run", CONFIG, "--workdir="),
    ("run", CONFIG, "--devices", "x"),
    ("run", CONFIG, "--devices", "0"),
    ("run", CONFIG, "--devices", "-1"),
    ("run", CONFIG, "--processes=1.5"),
    ("run", CONFIG, "--coordinator", "localhost"),
    ("run", CONFIG, "--coordinator", "localhost:99999"),
    ("run", CONFIG, "--coordinator", "localhost:1234"),
    ("run", CONFIG, "--process-id", "0"),
    ("run", CONFIG, "--coordinator", "a:1", "--num-processes", "2", "--process-id", "2"),
    ("run", CONFIG, "--coordinator", "a:1", "--num-processes", "2", "--process-id", "0", "--processes", "2"),
    ("run", CONFIG, "--confg.seed=3"),
    ("run", CONFIG, "--Config.seed=3"),
    ("run", CONFIG, "-config.seed=3"),
    ("run", CONFIG, "--model.depth=3"),
    ("run", CONFIG, "--config"),
    ("run", "--config", CONFIG),
    ("run", f"--config={CONFIG}"),
    ("run", CONFIG, "--config.=3"),
    ("run", CONFIG, "--config.seed"),
    ("run", CONFIG, "--config.seed", "--fresh"),
    ("run", CONFIG, "--config..seed=3"),
    ("run", CONFIG, "--config.seed=1.5"),
    ("run", CONFIG, "--config.seed="),
    ("run", CONFIG, "--config.lr=3"),
    ("run", CONFIG, "--config.model=mlp"),
    ("run", CONFIG, "--config.model.varient=b"),
    ("run", CONFIG, "--config.model.bias=maybe"),
    ("run", CONFIG, "--config.model.dropout=nan"),
    ("run", CONFIG, "--config.model.widths=a"),
    ("run", CONFIG, "--config.model.widths[9]=1"),
    ("run", CONFIG, "--config.seed=1", "--config.seed=2"),
    ("run", CONFIG, "--config.total_steps=1", "--config.total_epochs=2"),
    ("run", CONFIG, "--config.experiment=train_nothin"),
    ("run", CONFIG, "--config.experiment=None"),
    ("run", CONFIG, "--config.note=\n1e999"),
    ("check", CONFIG, "--devices", "many"),
    ("check", CONFIG, "--fresh"),
    ("sweep", CONFIG),
    ("sweep", CONFIG, "--axis"),
    ("sweep", CONFIG, "--axis", "seed"),
    ("sweep", CONFIG, "--axis", "=1,2"),
    ("sweep", CONFIG, "--axis", "seed="),
    ("sweep", CONFIG, "--axis", "seed=1,,2"),
    ("sweep", CONFIG, "--axis", "seed=4:4"),
    ("sweep", CONFIG, "--axis", "seed=0:4:0"),
    ("sweep", CONFIG, "--axis", "seed=0:999999999"),
    ("sweep", CONFIG, "--axis", "seed=a,b"),
    ("sweep", CONFIG, "--axis", "sed=1,2"),
    ("sweep", CONFIG, "--axis", "seed=1,1e0"),
    ("sweep", CONFIG, "--axis", "seed=1", "--axis", "seed=2"),
    ("sweep", CONFIG, "--axis", "seed=1,2", "--config.seed=3"),
    ("sweep", CONFIG, "--axis", "seed=1,2", "--jobs", "0"),
    ("sweep", CONFIG, "--axis", "seed=1,2", "--workdir", CONFIG),
    ("report", "nowhere"),
    ("report", CONFIG),
    ("report", "configs"),
    ("report", ".", "--config.seed=3"),
    ("list", "vit"),
    ("list", "--all"),
]


@pytest.mark.parametrize("argv", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_sentence_on_stderr_and_status_2(project, aijax, argv):
    answer = aijax(*argv)
    assert answer.status == 2
    assert answer.out == ""
    assert answer.err.startswith("aijax: ") and answer.err.endswith("\n")
    assert answer.err.count("\n") == 1
    assert "Traceback" not in answer.err and "argparse" not in answer.err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("rnu",), "'rnu': unknown command; did you mean 'run'?"),
        ((CONFIG,), "did you mean 'aijax run configs/small/nothing.py'?"),
        (("run",), "run: CONFIG is missing; see aijax run --help"),
        (("run", CONFIG, "--confg.seed=3"), "unknown flag; did you mean '--config.seed=3'?"),
        (("run", CONFIG, "--model.depth=3"), "unknown flag; did you mean '--config.model.depth=3'?"),
        (("run", CONFIG, "model.depth=3"), "did you mean '--config.model.depth=3'?"),
        (("run", CONFIG, "-workdir", "a"), "-workdir: unknown flag; did you mean '--workdir'?"),
        (("run", CONFIG, "--work", "a"), "--work: unknown flag; did you mean '--workdir'?"),
        (("run", "--config", CONFIG), f"the config file is given without a flag: aijax run {CONFIG}"),
        (("run", CONFIG, "--config.seed"), "--config.seed: no value; expected --config.seed=VALUE"),
        (("run", CONFIG, "--devices", "x"), "--devices: expected a whole number, 1 or more, got 'x'"),
        (("run", CONFIG, "--workdir"), "--workdir: expected a value after it"),
        (("run", CONFIG, "--process-id", "0"), "--coordinator and --num-processes: missing"),
        (("run", CONFIG, "--config.model.varient=b"), "config.model.varient: unknown field; did you mean 'variant'?"),
    ],
)
def test_a_sentence_says_what_to_type(project, aijax, argv, sentence):
    assert sentence in aijax(*argv).err


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a module in the place of `aijax.launch.run` and keeps what it was called with."""
    calls = []
    module = types.ModuleType("aijax.launch.run")

    def run_command(options, loaded):
        calls.append((options, loaded))
        return 0

    module.run_command = run_command
    monkeypatch.setitem(sys.modules, "aijax.launch.run", module)
    monkeypatch.setattr("aijax.launch.run", module, raising=False)
    return calls


def test_run_gets_its_options_and_the_resolved_config(project, aijax, stand_in):
    words = ["--config.seed", "-3", "--workdir=w", "--fresh", "--config.note=a=b c", "--devices", "4"]
    assert aijax("run", *words, CONFIG, "--processes", "2").status == 0
    ((options, loaded),) = stand_in
    assert isinstance(options, argparse.Namespace)
    assert (options.workdir, options.fresh, options.devices, options.processes) == ("w", True, 4, 2)
    assert (options.coordinator, options.num_processes, options.process_id) == (None, None, None)
    assert (loaded.config.seed, loaded.config.note) == (-3, "a=b c")


def test_run_takes_its_place_among_processes(project, aijax, stand_in):
    aijax("run", CONFIG, "--coordinator", "[::1]:1234", "--num-processes", "2", "--process-id", "1")
    ((options, _),) = stand_in
    assert (options.coordinator, options.num_processes, options.process_id) == ("[::1]:1234", 2, 1)


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (RunError("the loss is\nnan"), 1, "aijax: the loss is nan\n"),
        (DataError("train.idx: bad"), 2, "aijax: train.idx: bad\n"),
        (KeyboardInterrupt(), 130, "aijax: interrupted\n"),
    ],
)
def test_what_a_run_raises_is_told(project, aijax, stand_in, monkeypatch, error, status, told):
    def fail(options, loaded):
        raise error

    monkeypatch.setattr(sys.modules["aijax.launch.run"], "run_command", fail)
    answer = aijax("run", CONFIG)
    assert (answer.status, answer.err) == (status, told)


def test_a_bug_keeps_its_traceback(project, aijax, stand_in, monkeypatch):
    def fail(options, loaded):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(sys.modules["aijax.launch.run"], "run_command", fail)
    with pytest.raises(ZeroDivisionError):
        aijax("run", CONFIG)


def test_help_has_examples(aijax):
    for argv in ([], ["--help"], ["-h"], *([name, "--help"] for name in cli.COMMANDS)):
        answer = aijax(*argv)
        assert answer.status == 0 and answer.err == ""
        assert "example" in answer.out and "aijax" in answer.out
    assert "--axis" in aijax("sweep", "--axis", "--help").out


def test_version(aijax):
    from aijax import __version__

    assert aijax("--version").out == f"aijax {__version__}\n"


GUARD = """
import sys
from aijax.launch.cli import main
status = main(sys.argv[1:])
heavy = [name for name in ("jax", "flax", "optax", "orbax", "grain", "matplotlib", "sklearn") if name in sys.modules]
print("heavy:", heavy, "status:", status)
"""


def start(argv, folder):
    return subprocess.Popen(
        [sys.executable, "-c", GUARD, *argv],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["--help"], 0),
        (["list"], 0),
        (["run", CONFIG, "--config.model.varient=3"], 2),
        (["run", CONFIG, "--config.experiment=train_nothin"], 2),
        (["report", "runs"], 0),
        (["sweep", CONFIG, "--axis", "seed=0:3", "--slurm"], 0),
    ],
)
def test_jax_stays_out(project, make_run, argv, status):
    make_run(project / "runs" / "a", records=[{"step": 1, "train/loss": 1.0}])
    began = time.perf_counter()
    process = start(argv, project)
    out, err = process.communicate(timeout=60)
    print(f"aijax {' '.join(argv)}: {time.perf_counter() - began:.2f} s")
    assert out.splitlines()[-1] == f"heavy: [] status: {status}", err


def test_python_dash_m_is_the_same_command(project):
    done = subprocess.run(
        [sys.executable, "-m", "aijax", "run", CONFIG, "--config.lr=1"],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "aijax: config.lr: unknown field; did you mean 'config.optimizer.learning_rate'?\n"
