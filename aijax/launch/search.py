"""A search: the launcher chooses each run of a sweep folder from the results of those before it.

    aijax sweep CONFIG --bayesopt test/accuracy --trials 30 --axis optimizer.learning_rate=1e-4:1e-1:log

`sweep.json` holds the axes and the trials in the order in which they were chosen. The results are read from the trials'
own folders, so that a search that was killed at any instant goes on where it was, and another objective may be sought
among the same trials. A trial that failed is kept as a bad one and not run again. This module imports no jax.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from aijax.errors import ConfigError, DataError, RunError, did_you_mean
from aijax.launch.config import Loaded, load
from aijax.launch.files import read_json_object, write_text
from aijax.launch.plain import difference, render_difference
from aijax.launch.proposals import propose
from aijax.launch.report import make_console, terminal_table
from aijax.launch.runs import is_finished, lower_is_better, read_run
from aijax.launch.space import Axis, list_axis, range_axis
from aijax.launch.sweep import Overrides, folder_name, last_line, parse_axis, split_axis, value_at
from aijax.launch.sweep_jobs import Job, run_jobs

MAX_FIRST_FAILURES = 5
"""So many trials may fail before the first one gives a value."""


@dataclasses.dataclass
class Trial:
    """One run: its folder's name, its values in the order of the axes, and how it failed, if it did."""

    name: str
    texts: tuple[str, ...]
    failure: str | None = None


@dataclasses.dataclass(frozen=True)
class Search:
    """A search worked out: where it goes, its axes, what it seeks, and the config at the axes' first values."""

    folder: Path
    spec: str
    axes: tuple[Axis, ...]
    overrides: tuple[tuple[str, str], ...]
    objective: str
    maximize: bool
    first: Loaded


def search_command(options: argparse.Namespace, overrides: Overrides) -> int:
    """Returns the exit status of `aijax sweep --bayesopt`: 0 when all trials have ended and one of them gave a value.

    Raises:
      ConfigError: an axis or a field that does not fit the config, a folder made with other axes, a metric that the
        trials do not have.
      RunError: trials that were stopped, or failed from the first on.
    """
    search = plan_search(options, overrides)
    trials = open_folder(search)
    console = make_console()
    ended = sum(is_ended(search, trial) for trial in trials)
    told = f", {ended} ended before" if ended else ""
    aim = "largest" if search.maximize else "smallest"
    console.print(f"{options.trials} trials in {search.folder} for the {aim} {search.objective}{told}", soft_wrap=True)
    by_name = {trial.name: trial for trial in trials}

    def end(job: Job, status: int) -> None:
        if status != 0:
            by_name[job.name].failure = f"exit {status}: {last_line(job.log)}"
            write_record(search, trials)

    jobs = _jobs(search, trials, by_name, options.trials)
    try:
        run_jobs(jobs, options.jobs, console, total=max(options.trials - ended, 0), ended=end)
    except KeyboardInterrupt:
        ended = sum(is_ended(search, trial) for trial in trials)
        told = f"{ended} of {options.trials} trials have ended; the same command goes on from here"
        print(f"aijax: search stopped: {told}", file=sys.stderr)
        return 130
    _show_results(search, trials, console)
    _raise_unended(search, trials)
    return 0


def plan_search(options: argparse.Namespace, overrides: Overrides) -> Search:
    """Returns the search that the command line describes, both ends of each axis tried on the config.

    Raises:
      ConfigError: a malformed axis, a field given twice, ends or options that do not fit the field.
    """
    axes: dict[str, Axis] = {}
    for text in options.axis:
        path, values = split_axis(text)
        if path in axes:
            raise ConfigError(f"--axis {path}: given twice; put all its values in one --axis")
        axes[path] = _read_axis(options.config, path, values, overrides)
    own = [(axis.path, axis.text_at([0.0] * axis.size)) for axis in axes.values()]
    first = load(options.config, [*overrides, *own])
    base = load(options.config, overrides)
    workdir = Path("runs", f"{base.name.replace('/', '-')}-search")
    folder = Path(options.workdir).expanduser() if options.workdir else workdir
    maximize = options.direction == "maximize"
    if options.direction is None:
        maximize = not lower_is_better(options.bayesopt)
    return Search(folder, options.config, tuple(axes.values()), tuple(overrides), options.bayesopt, maximize, first)


def open_folder(search: Search) -> list[Trial]:
    """Returns the trials that the folder holds, making it and its `sweep.json` where there is none.

    Raises:
      ConfigError: the folder holds a grid, a run, or a search with other axes or of another config.
      DataError: a record that cannot be read.
    """
    record = search.folder / "sweep.json"
    if not record.exists():
        if search.folder.exists() and not search.folder.is_dir():
            raise ConfigError(f"--workdir {search.folder}: a file; expected a folder")
        if (search.folder / "config.json").exists():
            raise ConfigError(f"--workdir {search.folder}: a run folder, not a sweep folder; give another")
        write_record(search, [])
        return []
    old = read_json_object(record)
    if "points" in old:
        raise ConfigError(f"{search.folder}: holds the sweep of a grid; give another --workdir")
    try:
        trials = [Trial(row["name"], tuple(row["values"]), row["failure"]) for row in old["trials"]]
        axes, config = dict(old["axes"]), dict(old["config"])
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{record}: not the record of a search; expected axes, config and trials") from None
    new = {axis.path: axis.text for axis in search.axes}
    if axes != new:
        told = " -> ".join(" ".join(f"{path}={text}" for path, text in each.items()) for each in (axes, new))
        raise ConfigError(f"{search.folder}: holds a search with other axes ({told}); give another --workdir")
    changes = render_difference(difference(config, search.first.config.to_dict()))
    if changes:
        raise ConfigError(f"{search.folder}: holds a search of another config ({changes}); give another --workdir")
    return trials


def write_record(search: Search, trials: Sequence[Trial]) -> None:
    """Writes `sweep.json`."""
    record = search.folder / "sweep.json"
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    data = {
        "spec": search.spec,
        "started": read_json_object(record)["started"] if record.exists() else started,
        "axes": {axis.path: axis.text for axis in search.axes},
        "trials": [{"name": t.name, "values": list(t.texts), "failure": t.failure} for t in trials],
        "config": search.first.config.to_dict(),
    }
    write_text(record, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def score(search: Search, trial: Trial) -> float:
    """Returns the objective of a trial that ended, negated where it is to be small; NaN where it failed.

    Raises:
      ConfigError: the run has finished without such a metric.
    """
    if trial.failure is not None:
        return math.nan
    metrics = read_run(search.folder / trial.name, trial.name).metrics
    if search.objective not in metrics:
        near = did_you_mean(search.objective, metrics)
        raise ConfigError(f"--bayesopt {search.objective}: {trial.name} has no such metric{near}")
    value = metrics[search.objective]
    return (value if search.maximize else -value) if math.isfinite(value) else math.nan


def is_ended(search: Search, trial: Trial) -> bool:
    """Returns whether a trial failed or its run has finished."""
    return trial.failure is not None or is_finished(search.folder / trial.name)


def _jobs(search: Search, trials: list[Trial], by_name: dict[str, Trial], count: int) -> Iterator[Job]:
    """Yields the runs that were cut short, then new ones, each chosen when it is its turn."""
    for trial in list(trials):
        if not is_ended(search, trial):
            yield _job(search, trial)
    while len(trials) < count:
        scores = {trial.texts: score(search, trial) for trial in trials if is_ended(search, trial)}
        if len(scores) >= MAX_FIRST_FAILURES and all(map(math.isnan, scores.values())):
            return
        pending = [trial.texts for trial in trials if not is_ended(search, trial)]
        texts = propose(search.axes, scores, pending, seed=0)
        if texts is None:
            return
        values = dict(zip((axis.path for axis in search.axes), texts, strict=True))
        trial = Trial(folder_name({"trial": len(trials), **values}), texts)
        trials.append(trial)
        by_name[trial.name] = trial
        write_record(search, trials)
        yield _job(search, trial)


def _job(search: Search, trial: Trial) -> Job:
    folder = search.folder / trial.name
    return Job(trial.name, folder, search.folder / "logs" / f"{trial.name}.log", command(search, trial))


def command(search: Search, trial: Trial) -> list[str]:
    """Returns the command of one trial, an ordinary `aijax run`."""
    own = zip((axis.path for axis in search.axes), trial.texts, strict=True)
    fields = [f"--config.{path}={text}" for path, text in (*search.overrides, *own)]
    run = [sys.executable, "-m", "aijax", "run", search.spec, "--workdir", str(search.folder / trial.name)]
    return run + fields


def _read_axis(spec: str, path: str, text: str, overrides: Overrides) -> Axis:
    """Returns the axis, its range read as the kind of number that the field holds."""
    ends = text.split(":")[:2] if ":" in text and "," not in text else []
    if ends:
        values = [value_at(load(spec, [*overrides, (path, end)]).config, path) for end in ends]
        kind = int if all(type(value) is int for value in values) else float
        kind = kind if all(type(value) in (int, float) for value in values) else None
        found = range_axis(path, text, kind)
        if found is not None:
            return found
    options = parse_axis(f"{path}={text}")[1]
    values = [value_at(load(spec, [*overrides, (path, option)]).config, path) for option in options]
    for i, value in enumerate(values):
        if any(repr(value) == repr(other) for other in values[:i]):
            raise ConfigError(f"--axis {path}={text}: {options[i]} is given twice; keep one")
    return list_axis(path, text, options, values)


def _show_results(search: Search, trials: Sequence[Trial], console: Any) -> None:
    finished = [trial for trial in trials if is_finished(search.folder / trial.name)]
    if finished:
        console.print(terminal_table([read_run(search.folder / t.name, t.name) for t in finished], fields=False))
    scores = {trial.name: score(search, trial) for trial in finished}
    good = {name: value for name, value in scores.items() if math.isfinite(value)}
    for trial in trials:
        if trial.failure is not None:
            print(f"{trial.name}: {trial.failure}", file=sys.stderr)
        elif trial.name in scores and trial.name not in good:
            print(f"{trial.name}: {search.objective} is not finite", file=sys.stderr)
    if good:
        best = max(good, key=good.get)
        value = good[best] if search.maximize else -good[best]
        console.print(f"best: {best}: {search.objective} {value:.6g}", markup=False, soft_wrap=True)


def _raise_unended(search: Search, trials: Sequence[Trial]) -> None:
    stopped = [trial.name for trial in trials if not is_ended(search, trial)]
    if stopped:
        raise RunError(f"{stopped[0]}: stopped, {len(stopped)} of {len(trials)} trials; the same command goes on")
    if all(math.isnan(score(search, trial)) for trial in trials):
        logs = search.folder / "logs"
        raise RunError(f"none of {len(trials)} trials gave a value of {search.objective}; see {logs}")
