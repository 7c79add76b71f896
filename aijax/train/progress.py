"""How a run shows that it lives: a bar on a terminal, a line now and then in a log file."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

Advance = Callable[[int, float, float], None]
"""`advance(step, loss, examples a second)`."""

REFRESHES_A_SECOND = 2
SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def progress(console: Console, *, start: int, total: int, label: str) -> Iterator[Advance]:
    """Gives the function that shows how far a run has come: step, loss, examples a second, time left.

    Args:
      console: on a terminal a live bar is drawn, elsewhere a line is printed every ten seconds at most.
      start: steps already made.
      total: steps of the whole run.
      label: what runs.
    """
    if console.is_terminal:
        yield from _bar(console, start, total, label)
    else:
        yield from _lines(console, start, total, label)


def _bar(console: Console, start: int, total: int, label: str) -> Iterator[Advance]:
    columns: list[ProgressColumn | str] = [
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=14),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[rate]} examples/s"),
        TextColumn("ETA"),
        TimeRemainingColumn(compact=True),
    ]
    with Progress(*columns, console=console, refresh_per_second=REFRESHES_A_SECOND, transient=True) as bar:
        task = bar.add_task(label, total=total, completed=start, loss="...", rate="...")
        shown = 0.0

        def advance(step: int, loss: float, rate: float) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown > 1 / REFRESHES_A_SECOND or step == total:
                shown = now
                bar.update(task, completed=step, loss=f"{loss:.4g}", rate=_rate(rate))

        yield advance


def _lines(console: Console, start: int, total: int, label: str) -> Iterator[Advance]:
    began = printed = time.monotonic()

    def advance(step: int, loss: float, rate: float) -> None:
        nonlocal printed
        now = time.monotonic()
        if now - printed > SECONDS_BETWEEN_LINES or step == total:
            printed = now
            left = (now - began) / max(step - start, 1) * (total - step)
            console.print(
                f"{label}: step {step}/{total}, loss {loss:.4g}, {_rate(rate)} examples/s, {left:.0f} s left",
                highlight=False,
                soft_wrap=True,
            )

    yield advance


def _rate(rate: float) -> str:
    return "..." if math.isnan(rate) else f"{rate:,.0f}"
