"""A run: prepare, restore or initialise, train with evaluations and checkpoints, and say how it ended."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from aijax import parallel
from aijax.data import evaluation_batches, stream
from aijax.train import sinks
from aijax.train.checkpoints import Checkpoints
from aijax.train.evaluate import evaluate, make_evaluate_step
from aijax.train.experiment import Experiment
from aijax.train.loop import Hook, train
from aijax.train.prepare import Prepared, plain, prepare
from aijax.train.progress import Advance
from aijax.train.recorder import Recorder
from aijax.train.state import TrainState
from aijax.typing import Batch, Params

Progress = Callable[..., contextlib.AbstractContextManager[Advance]]


@contextlib.contextmanager
def silent(*, start: int, total: int) -> Iterator[Advance]:
    """The progress of a run that shows none."""
    yield lambda step, loss, rate: None


@dataclasses.dataclass(frozen=True)
class Fitted:
    """How a run ended.

    Attributes:
      state: the last state.
      step: steps made.
      total_steps: steps of the whole run; more than `step` when it was stopped.
      metrics: the latest value of each metric.
      seconds: the run's age, time before it was resumed included.
    """

    state: TrainState
    step: int
    total_steps: int
    metrics: dict[str, float]
    seconds: float


def fit(
    experiment: Experiment,
    config: Mapping[str, Any],
    folder: Path,
    *,
    prepared: Prepared | None = None,
    stop: Callable[[int], bool] = lambda step: False,
    report: Callable[[str], None] = print,
    progress: Progress = silent,
) -> Fitted:
    """Trains an experiment as a config says, in a run folder, from its newest checkpoint when there is one.

    What is written: `checkpoints/`, `metrics.jsonl`, `tensorboard/`. Every random number derives from `config.seed` and
    the step, and the data from the step, so that a run that was stopped or killed and is fitted again ends with the
    parameters, bit for bit, of one that never was (on the same devices).

    Args:
      experiment: what to train.
      config: the resolved config (see `prepare`).
      folder: the run folder, on a file system that all processes share.
      prepared: what `prepare(experiment, config)` gave, when the caller has it.
      stop: asked after each step, on every process alike; true saves a checkpoint and returns.
      report: told in a sentence what a user should know.
      progress: `progress(start=, total=)`, a context that gives what is told of each step.

    Raises:
      ConfigError: the config cannot be used (before any device work).
      RunError: a metric is not finite, or the disk is full; the checkpoints written before stand.
    """
    config = plain(config)
    run = prepared or prepare(experiment, config)
    folder = Path(folder)
    key = parallel.replicate_key(jax.random.key(config["seed"]), run.mesh)
    with contextlib.ExitStack() as resources:
        # The step, which takes longest to compile, begins first; the rest is made ready while it compiles.
        compiler = resources.enter_context(ThreadPoolExecutor(1))
        step_fn = compiler.submit(run.step.lower(run.state, run.batch, run.key).compile)
        checkpoints = resources.enter_context(
            Checkpoints(folder / "checkpoints", keep_last=run.cadence.keep_last, keep_every=run.cadence.keep_every)
        )
        restored = checkpoints.restore_latest(run.state, report)
        if restored:
            start, state, _ = restored
            report(f"resumes from the checkpoint of step {start} of {run.cadence.total}")
        else:
            start, state = 0, run.init(key)
        recorder = open_recorder(resources, run, config, folder, start, checkpoints, progress)
        batches = open_batches(resources, run, experiment, config, start)
        hooks = [
            Hook(run.cadence.evaluate_every, make_evaluation(run, experiment)),
            Hook(run.cadence.checkpoint_every, make_saver(checkpoints, config)),
        ]
        state, step = train(
            state,
            step_fn.result(),
            batches,
            key=key,
            start=start,
            total_steps=run.cadence.total,
            recorder=recorder,
            hooks=hooks,
            stop=stop,
        )
        hooks[-1].run(step, state)
        checkpoints.wait()
        return Fitted(state, step, run.cadence.total, recorder.latest, recorder.seconds)


def open_recorder(resources, run: Prepared, config, folder: Path, start: int, checkpoints, progress) -> Recorder:
    """Returns the recorder of a run with its sinks open; only process 0 writes."""
    path = folder / "metrics.jsonl"
    before = [record for record in sinks.read_lines(path) if record["step"] <= start]
    opened = []
    if jax.process_index() == 0:
        opened.append(resources.enter_context(sinks.json_lines(path, start)))
        if config.get("tensorboard", True):
            opened.append(resources.enter_context(sinks.tensorboard(folder / "tensorboard", start)))
        if config.get("wandb"):
            opened.append(resources.enter_context(sinks.weights_and_biases(folder, config["wandb"], config)))

    def last_good() -> str:
        steps = checkpoints.steps()
        return f"The last good checkpoint is of step {steps[-1]}." if steps else "No checkpoint was written before it."

    recorder = Recorder(
        opened,
        every=run.cadence.log_every,
        batch_size=config["batch_size"],
        total_steps=run.cadence.total,
        seconds_before=before[-1]["seconds"] if before else 0.0,
        advance=resources.enter_context(progress(start=start, total=run.cadence.total)),
        last_good=last_good,
    )
    for record in before:
        recorder.latest |= {name: value for name, value in record.items() if name not in ("step", "seconds")}
    return recorder


def open_batches(resources, run: Prepared, experiment: Experiment, config, start: int) -> Iterator[Batch]:
    """Returns the batches of a run from step `start` on, each sent to the devices one step ahead of its use."""
    index, count = parallel.process_share(run.mesh, config["batch_size"])
    reader = stream(
        experiment.source, config["batch_size"], seed=config["seed"], process_index=index, process_count=count
    ).iterate(start)
    resources.callback(reader.close)
    sent = (parallel.put_batch(run.mesh, batch) for batch in itertools.islice(reader, run.cadence.total - start))
    return ahead(sent)


def ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Yields the items, asking for each one before the one ahead of it is given out."""
    waiting = list(itertools.islice(items, 1))
    while waiting:
        waiting += itertools.islice(items, 1)
        yield waiting.pop(0)


def make_evaluation(run: Prepared, experiment: Experiment) -> Callable[[int, TrainState], dict[str, float]]:
    """Returns the hook's function that measures on every set of the experiment."""
    sums = {
        name: make_evaluate_step(parallel.on_mesh(evaluation.metrics, run.mesh))
        for name, evaluation in experiment.evaluations.items()
    }

    def run_evaluations(step: int, state: TrainState) -> dict[str, float]:
        results: dict[str, float] = {}
        for name, evaluation in experiment.evaluations.items():
            measured = evaluate_source(run, evaluation, sums[name], state.best_params)
            results |= {f"{name}/{metric}": value for metric, value in measured.items()}
        return results

    return run_evaluations


def evaluate_source(run: Prepared, evaluation: Any, sums: Callable, params: Params) -> dict[str, float]:
    """Returns the means of an evaluation's metrics over its source."""
    batch_size = evaluation.batch_size or next(iter(run.batch.values())).shape[0]
    index, count = parallel.process_share(run.mesh, batch_size)
    batches = evaluation_batches(evaluation.source, batch_size, index, count)
    return evaluate(sums, params, (parallel.put_batch(run.mesh, batch) for batch in batches))


def make_saver(checkpoints: Checkpoints, config: Mapping[str, Any]) -> Callable[[int, TrainState], None]:
    """Returns the hook's function that begins a checkpoint: the state, the data's position and the config."""

    def save(step: int, state: TrainState) -> None:
        checkpoints.save(step, state, {"step": step, "data": {"next_batch": step}, "config": config})

    return save
