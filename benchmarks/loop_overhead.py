"""What the training loop costs beside its steps: the launcher's loop, everything on, against a bare jitted step.

    python benchmarks/loop_overhead.py                     a step of about 50 ms, and a tiny one
    python benchmarks/loop_overhead.py --repeats 7

Both sides run the same compiled step on the same batches, by turns in one process. The loop writes metrics.jsonl and
TensorBoard, shows progress, reads its batches from the pipeline and saves a checkpoint behind the steps' back half-way
(after 20 s of the steps of 50 ms). The bare side has its batches on the device beforehand and waits once, at the end.
Asked of the loop: at most 3 % more for steps of 50 ms, at most 0.3 ms more a step for tiny ones.
"""

import argparse
import contextlib
import functools
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from aijax.data import ArraySource, stream
from aijax.parallel import put_batch
from aijax.train import Checkpoints, Experiment, Hook, prepare, train
from aijax.train.fit import make_saver, open_batches, open_recorder
from aijax.train.progress import progress

CASES = {"50 ms": (512, 4, 1024, 400), "tiny": (16, 2, 32, 3000)}
"""Name: width and depth of the network, examples a step, steps."""
FEATURES = 64
"""Numbers in an example: as many as pixels of a handwritten digit."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="pairs of measurements a case")
    options = parser.parse_args()
    print(f"medians of {options.repeats}")
    print(f"{'case':>6} {'bare ms/step':>13} {'loop ms/step':>13} {'ratio':>7} {'extra ms':>9}")
    for name, (width, depth, batch_size, steps) in CASES.items():
        bare, looped = zip(*compare(width, depth, batch_size, steps, options.repeats), strict=True)
        ratio = statistics.median(b / a for a, b in zip(bare, looped, strict=True))
        extra = statistics.median(b - a for a, b in zip(bare, looped, strict=True))
        print(
            f"{name:>6} {1e3 * statistics.median(bare):13.3f} {1e3 * statistics.median(looped):13.3f} {ratio:7.3f} "
            f"{1e3 * extra:9.3f}"
        )


def compare(width: int, depth: int, batch_size: int, steps: int, repeats: int):
    """Yields `(bare, loop)` seconds a step."""
    config = {
        "seed": 0,
        "batch_size": batch_size,
        "total_steps": steps,
        "log_every_steps": max(1, steps // 100),
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "checkpoint": {"every_steps": steps // 2},
    }
    experiment = network(width, depth)
    run = prepare(experiment, config)
    step_fn = run.step.lower(run.state, run.batch, run.key).compile()
    key = jax.random.key(0)
    for _ in range(repeats + 1):
        bare = bare_loop(run, experiment, config, step_fn, key, steps)
        looped = full_loop(run, experiment, config, step_fn, key, steps)
        if _:
            yield bare / steps, looped / steps


def network(width: int, depth: int) -> Experiment:
    """Returns a multilayer perceptron on random numbers as an experiment."""
    random = np.random.default_rng(0)
    source = ArraySource({"x": random.normal(size=(4096, FEATURES)).astype(np.float32)})
    widths = [FEATURES, *[width] * depth, FEATURES]

    def init(key):
        shapes = list(itertools.pairwise(widths))
        return [
            jax.random.normal(k, s) * s[0] ** -0.5
            for k, s in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
        ]

    def apply_fn(params, x):
        for weight in params:
            x = jnp.tanh(x @ weight)
        return x

    def loss_fn(params, batch, key):
        return jnp.mean((apply_fn(params, batch["x"]) - batch["x"]) ** 2), {}

    return Experiment(init=init, loss_fn=loss_fn, source=source, apply_fn=apply_fn)


def bare_loop(run, experiment, config, step_fn, key, steps: int) -> float:
    """Returns the seconds of the steps alone."""
    reader = stream(experiment.source, config["batch_size"], seed=config["seed"]).iterate(0)
    batches = [put_batch(run.mesh, next(reader)) for _ in range(min(steps, 64))]
    state = jax.block_until_ready(run.init(key))
    began = time.perf_counter()
    for index in range(steps):
        state, metrics = step_fn(state, batches[index % len(batches)], key)
    jax.block_until_ready((state, metrics))
    return time.perf_counter() - began


def full_loop(run, experiment, config, step_fn, key, steps: int) -> float:
    """Returns the seconds of the loop: pipeline, recorder, sinks, progress, asynchronous checkpoints."""
    with contextlib.ExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        terminal = resources.enter_context((folder / "terminal").open("w"))
        console = Console(file=terminal, force_terminal=True)
        checkpoints = resources.enter_context(Checkpoints(folder / "checkpoints"))
        show = functools.partial(progress, console, label="benchmark")
        recorder = open_recorder(resources, run, config, folder, 0, checkpoints, show)
        batches = open_batches(resources, run, experiment, config, 0)
        hooks = [Hook(run.cadence.checkpoint_every, make_saver(checkpoints, config))]
        state = jax.block_until_ready(run.init(key))
        began = time.perf_counter()
        state, _ = train(state, step_fn, batches, key=key, start=0, total_steps=steps, recorder=recorder, hooks=hooks)
        jax.block_until_ready(state)
        seconds = time.perf_counter() - began
    return seconds


if __name__ == "__main__":
    main()
