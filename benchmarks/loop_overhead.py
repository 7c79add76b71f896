"""What the training loop costs beside its steps: the launcher's loop, everything on, against a bare jitted step.

    python benchmarks/loop_overhead.py                     a step of about 50 ms, and a tiny one
    python benchmarks/loop_overhead.py --repeats 16

Both sides run the same compiled step on the same batches, by turns in one process, in segments of a few seconds, so
that a machine that slows down for a while slows both. The loop writes metrics.jsonl and TensorBoard, shows progress and
reads its batches from the pipeline; the first of each four of its segments saves a checkpoint behind the steps' back
(every 20 s of the steps of 50 ms), and its time includes the wait for what is still to be written. The bare side has
its batches on the device beforehand and waits once, at the end. The batch of the long step is as large as takes 50 ms
here. A ratio is that of medians: of the plain segments, three parts, and of those that save, one part. Asked of the
loop: at most 3 % more for steps of 50 ms, at most 0.3 ms more a step for tiny ones.
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
from aijax.train import Checkpoints, Experiment, prepare, train
from aijax.train.fit import make_saver, open_batches, open_recorder
from aijax.train.progress import progress

CASES = {"50 ms": (512, 4, None, 100), "tiny": (16, 2, 32, 2000)}
"""Name: width and depth of the network, examples a step (None: as many as take `LONG_STEP`), steps in a segment."""
LONG_STEP = 0.05
"""Seconds."""
SEGMENTS_A_SAVE = 4
FEATURES = 64
"""Numbers in an example: as many as pixels of a handwritten digit."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=8, help="checkpoints a case; four pairs of segments each")
    options = parser.parse_args()
    print(f"{options.repeats} checkpoints, {SEGMENTS_A_SAVE * options.repeats} pairs of segments a case")
    print(f"{'case':>6} {'bare ms/step':>13} {'loop ms/step':>13} {'and saving':>11} {'ratio':>7} {'extra ms':>9}")
    for name, (width, depth, batch_size, steps) in CASES.items():
        batch_size = batch_size or batch_that_takes(LONG_STEP, width, depth)
        bare, plain, saving = compare(width, depth, batch_size, steps, options.repeats)
        looped = ((SEGMENTS_A_SAVE - 1) * plain + saving) / SEGMENTS_A_SAVE
        print(
            f"{name:>6} {1e3 * bare:13.3f} {1e3 * plain:13.3f} {1e3 * saving:11.3f} {looped / bare:7.3f} "
            f"{1e3 * (looped - bare):9.3f}",
            flush=True,
        )


def batch_that_takes(seconds: float, width: int, depth: int, trial: int = 1024) -> int:
    """Returns how many examples, a multiple of 64, make a step take so long, judged by a step of `trial`."""
    optimizer = {"name": "adamw", "learning_rate": 1e-3}
    config = {"seed": 0, "batch_size": trial, "total_steps": 60, "optimizer": optimizer}
    experiment = network(width, depth)
    run = prepare(experiment, config)
    key = jax.random.key(0)
    segment = bare_loop(run, experiment, config, run.step.lower(run.state, run.batch, run.key).compile(), key)
    a_step = statistics.median(segment(0, 20) / 20 for _ in range(4))
    return 64 * round(trial * seconds / a_step / 64)


def compare(width: int, depth: int, batch_size: int, steps: int, repeats: int) -> tuple[float, float, float]:
    """Returns the median seconds a step: bare, in the loop, in the loop with a checkpoint."""
    segments = SEGMENTS_A_SAVE * (repeats + 1)
    config = {
        "seed": 0,
        "batch_size": batch_size,
        "total_steps": segments * steps,
        "log_every_steps": max(1, steps // 25),
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "checkpoint": {"every_steps": SEGMENTS_A_SAVE * steps},
    }
    experiment = network(width, depth)
    run = prepare(experiment, config)
    step_fn = run.step.lower(run.state, run.batch, run.key).compile()
    key = jax.random.key(0)
    seconds = {"bare": [], "plain": [], "saving": []}
    with contextlib.ExitStack() as resources:
        loop = open_loop(resources, run, experiment, config, step_fn, key)
        bare = bare_loop(run, experiment, config, step_fn, key)
        for segment in range(segments):
            # by turns, and each first as often as the other
            order = ("bare", "loop") if segment % 2 else ("loop", "bare")
            measured = {side: (bare if side == "bare" else loop)(segment * steps, steps) / steps for side in order}
            if segment >= SEGMENTS_A_SAVE:
                seconds["bare"].append(measured["bare"])
                # a checkpoint is due at the end of a cycle; its writing falls into the segment after it
                seconds["plain" if segment % SEGMENTS_A_SAVE else "saving"].append(measured["loop"])
    return tuple(map(statistics.median, seconds.values()))


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


def bare_loop(run, experiment, config, step_fn, key):
    """Returns `segment(start, steps) -> seconds` of the steps alone."""
    reader = stream(experiment.source, config["batch_size"], seed=config["seed"]).iterate(0)
    batches = [put_batch(run.mesh, next(reader)) for _ in range(64)]
    state = run.init(key)

    def segment(start: int, steps: int) -> float:
        nonlocal state
        jax.block_until_ready(state)
        began = time.perf_counter()
        for index in range(steps):
            state, metrics = step_fn(state, batches[index % len(batches)], key)
        jax.block_until_ready((state, metrics))
        return time.perf_counter() - began

    return segment


def open_loop(resources, run, experiment, config, step_fn, key):
    """Returns `segment(start, steps) -> seconds` of the loop: pipeline, recorder, sinks, progress, checkpoints."""
    folder = Path(resources.enter_context(tempfile.TemporaryDirectory()))
    terminal = resources.enter_context((folder / "terminal").open("w"))
    console = Console(file=terminal, force_terminal=True)
    checkpoints = resources.enter_context(Checkpoints(folder / "checkpoints"))
    show = functools.partial(progress, console, label="benchmark")
    recorder = open_recorder(resources, run, config, folder, 0, checkpoints, show)
    batches = open_batches(resources, run, experiment, config, 0)
    save = make_saver(checkpoints, config)
    state = run.init(key)

    def segment(start: int, steps: int) -> float:
        nonlocal state
        jax.block_until_ready(state)
        began = time.perf_counter()
        if start and start % run.cadence.checkpoint_every == 0:
            save(start, state)
        state, _ = train(
            state, step_fn, batches, key=key, start=start, total_steps=start + steps, recorder=recorder, hooks=[]
        )
        jax.block_until_ready(state)
        checkpoints.wait()
        return time.perf_counter() - began

    return segment


if __name__ == "__main__":
    main()
