"""What all tests share: eight host devices in this process, and a way to run the command line in another."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
# programs run once: compiling them well would take longer than they save
jax.config.update("jax_disable_most_optimizations", True)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Runs the files on all cores, up to eight, where pytest-xdist is installed and no `-n` was given (0: on one)."""
    started_by_xdist = "PYTEST_XDIST_WORKER" in os.environ
    if getattr(config.option, "numprocesses", 0) is None and not config.option.usepdb and not started_by_xdist:
        config.option.numprocesses, config.option.dist = min(os.cpu_count(), 8), "loadfile"


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """The reference values."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def start_aijax():
    """`start(*words) -> Popen`: the command line in a process of its own, its output captured as text."""

    def start(*words: object, **options) -> subprocess.Popen:
        environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
        return subprocess.Popen(
            [sys.executable, "-m", "aijax", *map(str, words)],
            cwd=options.pop("cwd", ROOT),
            env=environment | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return start
