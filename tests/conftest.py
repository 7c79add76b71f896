"""What all tests share: eight host devices in this process, and a way to run the command line in another."""

import functools
import gc
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)
# programs run once: compiling them well would take longer than they save
jax.config.update("jax_disable_most_optimizations", True)
COMPILE_FLAGS = "--xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__[:2] == (0, 10):  # its other emitters compile in half the time; later XLA has no such choice
    COMPILE_FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {COMPILE_FLAGS}"


# tracing makes many objects and few cycles: looking for these as often as Python does takes a twentieth of the time
gc.set_threshold(100_000, 20, 50)


ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Runs the files on all cores, up to eight, where pytest-xdist is installed and no `-n` was given (0: on one)."""
    started_by_xdist = "PYTEST_XDIST_WORKER" in os.environ
    if getattr(config.option, "numprocesses", 0) is None and not config.option.usepdb and not started_by_xdist:
        config.option.numprocesses, config.option.dist = min(os.cpu_count(), 8), "loadfile"


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Forgets what a file of tests has compiled: the more programs a process holds, the longer the next takes."""
    if (nextitem is None or nextitem.path != item.path) and item.path.is_relative_to(ROOT / "tests"):
        jax.clear_caches()


LONG_EXAMPLES = (
    "gp.bayesopt.init",
    "gp.iterative_gradient.evidence_and_gradient",
    "gp.laplace.Laplace",
    "gp.suggest.suggest",
    "gp.targets.predict_targets",
    "gp.variational.Variational",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the examples of docstrings as slow that compile for more than four seconds."""
    for item in items:
        if item.name.removeprefix("aijax.") in LONG_EXAMPLES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """The reference values."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def random_params():
    """`draw(module, *inputs, scale=0.3)`: random parameters without a compilation, norms and biases included."""

    def draw(module, *inputs, scale=0.3, **named):
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **named)["params"])
        rng = np.random.default_rng(0)
        return jax.tree.map(lambda leaf: np.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype), shapes)

    return draw


@dataclass(frozen=True)
class Network:
    """A published network with inputs and outputs; images are channels-last."""

    config: dict
    tensors: dict
    module: Any
    params: Any
    arrays: dict

    def __getitem__(self, name):
        return self.arrays[name]


@pytest.fixture(scope="session")
def published_network(golden):
    """`read(name) -> Network`: a published diffusion network of the reference values, in float32."""
    from aijax.models import pretrained, tensor_files

    folder = golden / "diffusion"
    cases = {case["id"]: case for case in json.loads((folder / "index.json").read_text())["cases"]}
    stored = np.load(folder / "model.npz")

    def channels_last(array):
        return np.moveaxis(array, 1, -1) if array.ndim == 4 else array

    @functools.cache
    def read(name):
        case = cases[name]
        config = {"_class_name": case["params"]["class"], **case["params"]["config"]}
        tensors = tensor_files.read_tensors(folder / case["weights"])
        module, params = pretrained.from_tensors(config, tensors)
        arrays = {array: channels_last(stored[f"{name}/{array}"]) for array in case["arrays"]}
        return Network(config, dict(tensors), module, params, arrays)

    return read


@pytest.fixture(scope="session")
def start_aijax():
    """`start(*words) -> Popen`: the command line in a process of its own, its output captured as text."""

    def start(*words: object, **options) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "aijax", *map(str, words)],
            cwd=options.pop("cwd", ROOT),
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": COMPILE_FLAGS},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return start
