"""Where metrics are written: a file of JSON lines, TensorBoard event files, Weights & Biases.

A sink is a function `sink(step, metrics)`. A run that is resumed at a step continues its files from there: what an
interrupted run had written beyond it is taken out, so that each step is told once.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aijax.errors import ConfigError
from aijax.train.recorder import Sink


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a file of JSON lines; a last line that a killed run left unfinished is passed over."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


@contextlib.contextmanager
def json_lines(path: Path, start: int) -> Iterator[Sink]:
    """Gives a sink that appends a line a record to `path`, keeping of what is there the steps up to `start`."""
    kept = [record for record in read_lines(path) if record["step"] <= start]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
    os.replace(temporary, path)
    with path.open("a", buffering=1) as stream:

        def sink(step: int, metrics: Mapping[str, float]) -> None:
            stream.write(json.dumps({"step": step} | {name: _rounded(value) for name, value in metrics.items()}) + "\n")

        yield sink


@contextlib.contextmanager
def tensorboard(folder: Path, start: int) -> Iterator[Sink]:
    """Gives a sink that writes TensorBoard event files into `folder`, beyond the step `start`."""
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder), purge_step=start + 1)

    def sink(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    try:
        yield sink
    finally:
        writer.close()


@contextlib.contextmanager
def weights_and_biases(folder: Path, section: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Sink]:
    """Gives a sink that logs to Weights & Biases; `section` holds the arguments of `wandb.init`, such as `project`."""
    try:
        import wandb
    except ImportError:
        raise ConfigError("config.wandb: needs the package wandb; install it with pip install 'aijax[wandb]'") from None
    run = wandb.init(dir=str(folder), config=dict(config), resume="allow", **section)
    try:
        yield lambda step, metrics: run.log(dict(metrics), step=step)
    finally:
        run.finish()


def _rounded(value: float) -> float:
    """Returns the value at float32's precision, so that a line shows what was measured and no more."""
    return float(f"{value:.8g}") if math.isfinite(value) else value
