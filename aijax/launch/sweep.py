"""A sweep: one config run at every point of a grid, each point an ordinary `aijax run` in one sweep folder.

Every point is resolved before the first one starts, so that a mistake in an axis costs nothing. `sweep.json` holds the
axes and the points; what has finished is skipped when the sweep is started again. This module imports no jax.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from aijax.errors import ConfigError, DataError, RunError
from aijax.launch.config import Loaded, load
from aijax.launch.files import read_json_object, write_text
from aijax.launch.plain import difference, render_difference
from aijax.launch.report import make_console, terminal_table
from aijax.launch.runs import is_finished, read_run
from aijax.launch.slurm import array_script
from aijax.launch.space import is_log_range
from aijax.launch.sweep_jobs import Job, run_jobs
from aijax.launch.values import split_items

MAX_POINTS = 10_000
_RANGE = re.compile(r"(-?\d{1,12}):(-?\d{1,12})(?::(-?\d{1,12}))?")

Overrides = Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a sweep: its run folder's name, its value on each axis, and the overrides that make it."""

    name: str
    values: dict[str, Any]
    overrides: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep worked out in full: where it goes, what its axes are, its points, and the first point's config."""

    folder: Path
    spec: str
    axes: dict[str, list[Any]]
    points: tuple[Point, ...]
    first: Loaded


def sweep_command(options: argparse.Namespace, overrides: Overrides) -> int:
    """Returns the exit status of `aijax sweep`: 0 when every point has finished.

    Raises:
      ConfigError: an axis or a field that does not fit the config, a sweep folder made with other axes.
      RunError: points that failed or were stopped.
    """
    plan = plan_sweep(options.config, options.axis, overrides, options.workdir)
    open_folder(plan)
    left = [point for point in plan.points if not is_finished(plan.folder / point.name)]
    console = make_console()
    done = len(plan.points) - len(left)
    console.print(
        f"{len(plan.points)} runs in {plan.folder}{f', {done} finished before' if done else ''}", soft_wrap=True
    )
    if options.slurm:
        return _write_script(plan, left, options.jobs)
    jobs = [Job(point.name, plan.folder / point.name, log_file(plan, point), command(plan, point)) for point in left]
    try:
        statuses = run_jobs(jobs, options.jobs, console)
    except KeyboardInterrupt:
        finished = sum(is_finished(plan.folder / point.name) for point in plan.points)
        told = f"{finished} of {len(plan.points)} runs have finished; the same command goes on from here"
        print(f"aijax: sweep stopped: {told}", file=sys.stderr)
        return 130
    _show_results(plan, console)
    _raise_unfinished(plan, statuses)
    return 0


def plan_sweep(spec: str, axes: Sequence[str], overrides: Overrides, workdir: str | None = None) -> Plan:
    """Returns the plan of a sweep, every point's config resolved and checked.

    Args:
      spec: the config, as `load` takes it.
      axes: texts such as `"optimizer.learning_rate=1e-3,3e-4"` and `"seed=0:4"`.
      overrides: `(path, text)` pairs that hold at every point.
      workdir: the sweep folder; by default `runs/NAME-sweep`.

    Raises:
      ConfigError: a malformed axis, an override that does not fit, two points that are the same.
    """
    texts: dict[str, list[str]] = {}
    for axis in axes:
        path, values = parse_axis(axis)
        if path in texts:
            raise ConfigError(f"--axis {path}: given twice; put all its values in one --axis")
        texts[path] = values
    if math.prod(map(len, texts.values())) > MAX_POINTS:
        raise ConfigError(f"--axis: {math.prod(map(len, texts.values()))} runs; a sweep has at most {MAX_POINTS}")
    points, first, seen = [], None, {}
    columns: dict[str, dict[str, Any]] = {path: {} for path in texts}
    for row in itertools.product(*texts.values()):
        own = tuple(zip(texts, row, strict=True))
        loaded = load(spec, [*overrides, *own])
        first = first or loaded
        values = {path: value_at(loaded.config, path) for path, _ in own}
        for path, text in own:
            columns[path][text] = values[path]
        if repr(values) in seen:
            raise ConfigError(f"--axis: {_words(seen[repr(values)])} and {_words(own)} are the same run; keep one")
        seen[repr(values)] = own
        points.append(Point(folder_name(values), values, (*overrides, *own)))
    folder = Path(workdir).expanduser() if workdir else Path("runs", f"{first.name.replace('/', '-')}-sweep")
    return Plan(folder, spec, {path: list(column.values()) for path, column in columns.items()}, tuple(points), first)


def parse_axis(text: str) -> tuple[str, list[str]]:
    """Returns the field and the texts of its values of one `--axis`.

    >>> parse_axis("seed=0:4"), parse_axis("model.widths=(32,),(64,64)")
    (('seed', ['0', '1', '2', '3']), ('model.widths', ['(32,)', '(64,64)']))
    """
    path, values = split_axis(text)
    items = []
    if is_log_range(values):
        raise ConfigError(f"--axis {text}: a range to search in, which needs --bayesopt METRIC --trials N")
    for item in split_items(values):
        span = _RANGE.fullmatch(item)
        items += _range(text, *span.groups()) if span else [item]
    if not all(items):
        raise ConfigError(f"--axis {text}: an empty value; expected {path}=VALUE,VALUE,...")
    return path, items


def split_axis(text: str) -> tuple[str, str]:
    """Returns the field and the text of its values of one `--axis`."""
    path, equals, values = text.partition("=")
    path = path.strip().removeprefix("--config.").removeprefix("config.")
    if not equals or not path:
        raise ConfigError(
            f"--axis {text}: expected FIELD=VALUES, such as seed=0:4 or optimizer.learning_rate=1e-3,3e-4"
        )
    return path, values


def open_folder(plan: Plan) -> None:
    """Makes the sweep folder and its `sweep.json`; a folder that holds another sweep is refused with the difference."""
    record = plan.folder / "sweep.json"
    config = plan.first.config.to_dict()
    if record.exists():
        old = read_json_object(record)
        if "trials" in old:
            raise ConfigError(f"{plan.folder}: holds a search by --bayesopt; give another --workdir")
        if not isinstance(old.get("axes"), dict) or not isinstance(old.get("config"), dict):
            raise DataError(f"{record}: not the record of a sweep; expected axes and config")
        changes = _axis_changes(old["axes"], plan.axes)
        if changes:
            raise ConfigError(f"{plan.folder}: holds a sweep with other axes ({changes}); give another --workdir")
        changes = render_difference(difference(old["config"], config))
        if changes:
            raise ConfigError(f"{plan.folder}: holds a sweep of another config ({changes}); give another --workdir")
        return
    if plan.folder.exists() and not plan.folder.is_dir():
        raise ConfigError(f"--workdir {plan.folder}: a file; expected a folder")
    if (plan.folder / "config.json").exists():
        raise ConfigError(f"--workdir {plan.folder}: a run folder, not a sweep folder; give another")
    points = {point.name: point.values for point in plan.points}
    data = {
        "spec": plan.spec,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "axes": plan.axes,
        "points": points,
        "config": config,
    }
    write_text(record, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def command(plan: Plan, point: Point) -> list[str]:
    """Returns the command of one point, an ordinary `aijax run`."""
    fields = [f"--config.{path}={text}" for path, text in point.overrides]
    run = [sys.executable, "-m", "aijax", "run", plan.spec, "--workdir", str(plan.folder / point.name)]
    return run + fields


def log_file(plan: Plan, point: Point) -> Path:
    """Returns the file that takes what the run of `point` prints."""
    return plan.folder / "logs" / f"{point.name}.log"


def _write_script(plan: Plan, left: Sequence[Point], jobs: int) -> int:
    if not left:
        print("every run has finished; nothing to submit")
        return 0
    (plan.folder / "logs").mkdir(exist_ok=True)
    index = {point.name: number for number, point in enumerate(plan.points)}
    commands = {index[point.name]: command(plan, point) for point in left}
    script = plan.folder / "sweep.sbatch"
    logs = (plan.folder / "logs").resolve()
    write_text(script, array_script(commands, logs, Path.cwd(), jobs if jobs > 1 else None), executable=True)
    print(f"sbatch {script}")
    return 0


def _show_results(plan: Plan, console: Any) -> None:
    runs = [
        read_run(plan.folder / point.name, point.name) for point in plan.points if is_finished(plan.folder / point.name)
    ]
    if runs:
        console.print(terminal_table(runs, fields=False))


def _raise_unfinished(plan: Plan, statuses: Mapping[str, int]) -> None:
    unfinished = {name: status for name, status in statuses.items() if not is_finished(plan.folder / name)}
    if not unfinished:
        return
    logs = {point.name: log_file(plan, point) for point in plan.points}
    for name, status in unfinished.items():
        print(f"{name}: {'stopped' if status == 0 else f'exit {status}'}: {last_line(logs[name])}", file=sys.stderr)
    raise RunError(
        f"{len(unfinished)} of {len(plan.points)} runs did not finish; see {plan.folder / 'logs'}; the same command "
        "runs them again"
    )


def last_line(log: Path) -> str:
    """Returns the last line of a log that says something."""
    try:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1].strip() if lines else "(an empty log)"


def _axis_changes(old: Mapping[str, list], new: Mapping[str, list]) -> str:
    def told(axes: Mapping[str, list], path: str) -> str:
        return ",".join(str(value) for value in axes[path]) if path in axes else "(no such axis)"

    changed = [path for path in {**old, **new} if json.dumps(old.get(path)) != json.dumps(new.get(path))]
    return ", ".join(f"{path}: {told(old, path)} -> {told(new, path)}" for path in changed)


def _range(axis: str, start: str, stop: str, step: str | None) -> list[str]:
    if step is not None and int(step) == 0:
        raise ConfigError(f"--axis {axis}: a range with step 0; expected START:STOP or START:STOP:STEP")
    values = range(int(start), int(stop), int(step or 1))
    if not values:
        raise ConfigError(
            f"--axis {axis}: an empty range; {start}:{stop} counts from {start} up to, not including, {stop}"
        )
    if len(values) > MAX_POINTS:
        raise ConfigError(f"--axis {axis}: {len(values)} values; a sweep has at most {MAX_POINTS} runs")
    return [str(value) for value in values]


def value_at(config: Any, path: str) -> Any:
    """Returns the value of the field, or of the item, at a path such as `model.widths[1]`."""
    for name in path.replace("[", ".").replace("]", "").split("."):
        config = config[int(name)] if isinstance(config, tuple) else config[name]
    return config


def _words(overrides: Overrides) -> str:
    return " ".join(f"{path}={text}" for path, text in overrides)


def folder_name(values: Mapping[str, Any]) -> str:
    """Returns a folder's name such as `optimizer.lr=0.001,seed=0`; a long or odd one ends in a digest of its values."""
    full = ",".join(f"{path}={str(value).replace(' ', '')}" for path, value in values.items())
    name = re.sub(r"[^\w.=,+()\[\]-]", "_", full, flags=re.ASCII)
    if name == full and len(name) <= 120:
        return name
    return f"{name[:110]}~{hashlib.sha256(full.encode()).hexdigest()[:8]}"
