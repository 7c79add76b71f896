"""Runs the points of a sweep as child processes, some at a time, and stops them gently.

Each child has its own session, so that Ctrl-C reaches this process alone, which then sends the children SIGTERM: they
save and leave. A second Ctrl-C kills them.
"""

import dataclasses
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Job:
    """A child process to be: its name, its run folder, the file for its output, its command line."""

    name: str
    folder: Path
    log: Path
    command: list[str]


def run_jobs(
    jobs: Iterable[Job],
    parallel: int,
    console: Console,
    *,
    total: int | None = None,
    ended: Callable[[Job, int], None] | None = None,
) -> dict[str, int]:
    """Returns the exit status of every job by name, at most `parallel` of them at a time, in order.

    Args:
      jobs: what to run; the next one is taken when its turn comes, so that it may depend on those that have ended.
      parallel: how many at a time.
      console: for the progress and a line for each job.
      total: how many jobs there are; default the length of `jobs`.
      ended: called with each job that has ended and its exit status.

    Raises:
      KeyboardInterrupt: on Ctrl-C or SIGTERM, when the children have saved and left.
    """
    total = len(jobs) if total is None else total
    waiting, more, running, statuses = iter(jobs), True, {}, {}
    with _terminable(), _display(console, total) as progress:
        overall = progress.add_task("runs", total=total, note="")
        try:
            while more or running:
                while more and len(running) < parallel:
                    job = next(waiting, None)
                    more = job is not None
                    if not more:
                        break
                    running[job.name] = (job, _start(job), progress.add_task(job.name, total=None, note="starting"))
                for job, process, task in list(running.values()):
                    status = process.poll()
                    if status is None:
                        progress.update(task, note=_latest(job.folder))
                        continue
                    statuses[job.name] = status
                    del running[job.name]
                    if ended is not None:
                        ended(job, status)
                    progress.remove_task(task)
                    progress.advance(overall)
                    progress.console.print(f"{job.name}: {_outcome(job, status)}", markup=False, soft_wrap=True)
                time.sleep(_POLL_SECONDS)
        finally:
            _stop([process for _, process, _ in running.values()])
    return statuses


def _start(job: Job) -> subprocess.Popen:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.wait()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        raise


def _outcome(job: Job, status: int) -> str:
    if status != 0:
        return f"failed with exit status {status}; see {job.log}"
    try:
        summary = json.loads((job.folder / "summary.json").read_text(encoding="utf-8"))
        held_out = {name: value for name, value in summary["metrics"].items() if not name.startswith("train/")}
        return f"{summary['status']}: " + ", ".join(f"{name} {value:.4g}" for name, value in held_out.items())
    except (OSError, ValueError, KeyError, TypeError):
        return "ended without a summary"


def _latest(folder: Path) -> str:
    """Returns the last line of metrics.jsonl in words, or "" before there is one."""
    record = _last_record(folder / "metrics.jsonl")
    losses = [f"{name} {value:.4g}" for name, value in record.items() if name.endswith("loss")]
    return ", ".join([f"step {record['step']}", *losses]) if "step" in record else ""


def _last_record(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            return json.loads(file.read().splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return {}


@contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM raise KeyboardInterrupt in the main thread meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _display(console: Console, total: int) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal or total == 0,
    )
