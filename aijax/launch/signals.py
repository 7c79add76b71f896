"""Stopping a run from outside: the step after which every process saves and leaves."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import jax


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[int], bool]]:
    """Gives `stop(step) -> bool`, true once SIGTERM has come (for a single process, SIGINT too).

    With several processes the signal may come to one of them only: jax agrees with the others on a step to stop at, the
    same for all. A second SIGINT ends the process at once.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        yield multihost_utils.reached_preemption_sync_point
        return
    asked = False

    def ask(number, frame):
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda step: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
