"""Several processes on one machine: starts them, watches them, and says what happened when one dies.

Process 0 prints to this terminal, the others to `logs/` in the run folder. A process whose peer has died hangs in its
next collective, so the first death ends them all; each can be resumed from the last checkpoint by the same command.
"""

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from aijax.errors import ConfigError, RunError
from aijax.launch.run import resume_command, show_resumption

SECONDS_TO_LEAVE = 15.0


def supervise(options: argparse.Namespace, folder: Path, console: Console) -> int:
    """Returns 0 when all processes have ended well.

    Raises:
      RunError: a process died; the sentence says which, how, after what step, and what to type to resume.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as resources:
        children = [_start(resources, options, folder, logs, number) for number in range(options.processes)]

        def pass_on(number, frame):
            for child in children:
                if child.poll() is None:
                    child.send_signal(signal.SIGTERM)

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            dead = _watch(children)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            _end(children)
    if dead is None:
        show_resumption(folder, console)
        return 0
    code = children[dead].returncode
    told = _last_sentence(logs, dead)
    if code in (1, 2) and told is not None:
        raise (ConfigError if code == 2 else RunError)(told)
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
    raise RunError(
        f"process {dead} died ({how}) after step {_last_step(logs, dead)}; what it printed is in {_log(logs, dead)}; "
        f"to resume from the last checkpoint: {resume_command(folder)}"
    )


def _start(resources, options, folder: Path, logs: Path, number: int) -> subprocess.Popen:
    if number == 0:
        options.coordinator = f"localhost:{_free_port()}"
        for stale in logs.glob("step-*"):
            stale.unlink()
    words = [word for word in _without(sys.argv[1:], "--processes", "--workdir") if word != "--fresh"]
    words += ["--workdir", str(folder), "--coordinator", options.coordinator, "--process-id", str(number)]
    words += ["--num-processes", str(options.processes), "--heartbeat", str(logs / f"step-{number}")]
    log = resources.enter_context(_log(logs, number).open("wb"))
    return subprocess.Popen(
        [sys.executable, "-m", "aijax", *words],
        stdout=None if number == 0 else log,
        stderr=log,
        start_new_session=True,
    )


def _watch(children: list[subprocess.Popen]) -> int | None:
    """Returns the number of the first process that ended badly, or None when all ended well."""
    while True:
        codes = [child.poll() for child in children]
        for number, code in enumerate(codes):
            if code not in (None, 0):
                return number
        if all(code == 0 for code in codes):
            return None
        time.sleep(0.1)


def _end(children: list[subprocess.Popen]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + SECONDS_TO_LEAVE
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _last_step(logs: Path, number: int) -> str:
    with contextlib.suppress(OSError):
        return (logs / f"step-{number}").read_text().strip() or "0"
    return "0"


def _last_sentence(logs: Path, number: int) -> str | None:
    """Returns the sentence with which a process ended, or None where it ended without one."""
    lines = _log(logs, number).read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("aijax: ") if lines and lines[-1].startswith("aijax: ") else None


def _log(logs: Path, number: int) -> Path:
    return logs / f"process-{number}.log"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _without(words: list[str], *flags: str) -> list[str]:
    """Returns the command line without some flags and their values."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in flags:
            skip = True
        elif word.split("=")[0] not in flags:
            kept.append(word)
    return kept
