"""From metrics on the device to lines in a log, without making the device wait.

A step packs its metrics into one small array. The recorder reads each array a few steps after it was asked for, when
the device is done with it, checks that it is finite, and writes the mean of each window of steps to its sinks.
"""

import collections
import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import RunError
from aijax.typing import Float, Metrics

Sink = Callable[[int, Mapping[str, float]], None]
"""`sink(step, metrics)`: somewhere that metrics are written to."""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["names"])
@dataclasses.dataclass(frozen=True)
class Packed:
    """Named scalars as one array, so that a step hands over one buffer whatever it measures."""

    names: tuple[str, ...]
    values: Float[jax.Array, " m"]


def pack(metrics: Metrics) -> Packed:
    """Returns named scalars packed in the order of their names, as float32."""
    names = tuple(sorted(metrics))
    return Packed(names, jnp.stack([jnp.asarray(metrics[name], jnp.float32) for name in names]))


class Recorder:
    """Reads packed metrics some steps late, checks them, averages them over windows and writes them to sinks."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        every: int,
        batch_size: int,
        total_steps: int,
        seconds_before: float = 0.0,
        advance: Callable[[int, float, float], None] = lambda step, loss, rate: None,
        last_good: Callable[[], str] = lambda: "",
        late: int = 8,
    ):
        """Makes a recorder.

        Args:
          names: the metrics' sorted names, as `pack` orders them; "loss" among them.
          sinks: where records go.
          every: steps in a window.
          batch_size: examples a step, for the rate.
          total_steps: the run's length; the last window ends there.
          seconds_before: the run's age when it was resumed.
          advance: `advance(step, loss, examples a second)`, told of each step read (for a progress bar).
          last_good: the sentence that says where the last good checkpoint is.
          late: steps that may be under way on the device before the recorder waits for the oldest.
        """
        self.latest: dict[str, float] = {}
        self._names: tuple[str, ...] = ()
        self._sinks, self._every, self._total, self._late = tuple(sinks), every, total_steps, late
        self._batch_size, self._advance, self._last_good = batch_size, advance, last_good
        self._under_way: collections.deque[tuple[int, Packed]] = collections.deque()
        self._window: list[np.ndarray] = []
        self._paused, self._rate = 0.0, math.nan
        self._began = time.monotonic() - seconds_before
        self._window_began = time.monotonic()

    def push(self, step: int, packed: Packed) -> None:
        """Takes the metrics of a step; reads those of steps that are `late` or more behind."""
        self._under_way.append((step, packed))
        while len(self._under_way) > self._late:
            self._read(*self._under_way.popleft())

    def catch_up(self) -> None:
        """Reads the metrics of every step pushed, waiting for the device."""
        while self._under_way:
            self._read(*self._under_way.popleft())

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves the time spent inside out of the rate of examples a second."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - began

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes metrics of a step to every sink, with the run's age in seconds."""
        self.latest |= metrics
        for sink in self._sinks:
            sink(step, {"seconds": self.seconds} | dict(metrics))

    @property
    def seconds(self) -> float:
        """The run's age, the time before it was resumed included."""
        return time.monotonic() - self._began

    def _read(self, step: int, packed: Packed) -> None:
        values = np.asarray(packed.values)
        if not np.isfinite(values).all():
            self._close_window(step - 1)
            at = int(np.argmin(np.isfinite(values)))
            told = f"step {step}: train/{packed.names[at]} is {values[at]}; the run is stopped."
            raise RunError(f"{told} {self._last_good()}".rstrip())
        self._names = packed.names
        self._window.append(values)
        if step % self._every == 0 or step == self._total:
            self._close_window(step)
        self._advance(step, float(values[packed.names.index("loss")]), self._rate)

    def _close_window(self, step: int) -> None:
        if not self._window:
            return
        now = time.monotonic()
        self._rate = len(self._window) * self._batch_size / max(now - self._window_began - self._paused, 1e-9)
        means = np.mean(self._window, axis=0, dtype=np.float64).tolist()
        metrics = {f"train/{name}": mean for name, mean in zip(self._names, means, strict=True)}
        self._window, self._window_began, self._paused = [], now, 0.0
        self.record(step, metrics | {"train/examples_per_second": self._rate})
