"""How long work shows on a terminal that it goes on: a bar with the time left, and nothing elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

QUIET_SECONDS = 1.0
"""Work that ends sooner shows nothing."""


@contextlib.contextmanager
def bar(label: str, total: int, *, show: bool | None = None) -> Iterator[Callable[[int], None]]:
    """Gives `advance(done)`, which shows how many of `total` parts are done and the time left.

    Args:
      label: what goes on.
      total: parts of the whole.
      show: whether to draw; None draws where the standard error is a terminal.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    began = time.monotonic()
    columns = (
        TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(compact=True),
    )  # fmt: skip
    drawn = Progress(*columns, console=Console(stderr=True), refresh_per_second=4, transient=True)
    task = drawn.add_task(label, total=total)

    def advance(done: int) -> None:
        drawn.update(task, completed=done)
        if not drawn.live.is_started and time.monotonic() - began > QUIET_SECONDS:
            drawn.start()

    try:
        yield advance
    finally:
        drawn.stop()
