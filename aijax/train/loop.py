"""The training loop: the only one. Every objective is a step function given to it; all else is a hook.

The loop hands work to the device and goes on; what waits for results is the recorder, a few steps behind. Before a hook
runs (an evaluation, a checkpoint) the recorder catches up, so that no checkpoint is written after a loss that is not
finite.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aijax.train.recorder import Packed, Recorder
from aijax.train.state import TrainState
from aijax.typing import Batch, PRNGKey


@dataclasses.dataclass(frozen=True)
class Hook:
    """Something to do every so many steps and after the last one.

    Attributes:
      every: steps between two calls; 0 means only after the last step.
      run: `run(step, state) -> metrics or None`; what it returns is recorded at that step.
    """

    every: int
    run: Callable[[int, TrainState], Mapping[str, float] | None]

    def due(self, step: int, last: bool) -> bool:
        """Returns whether to run after `step` steps."""
        return last or (self.every > 0 and step % self.every == 0)


def train(
    state: TrainState,
    step_fn: Callable[[TrainState, Batch, PRNGKey], tuple[TrainState, Packed]],
    batches: Iterable[Batch],
    *,
    key: PRNGKey,
    start: int,
    total_steps: int,
    recorder: Recorder,
    hooks: Sequence[Hook] = (),
    stop: Callable[[int], Any] = lambda step: False,
) -> tuple[TrainState, int]:
    """Returns `(state, step)` after training from step `start` to `total_steps`, or to where `stop` says.

    Args:
      state: the state after `start` steps; it is donated to the first step.
      step_fn: compiled `step(state, batch, key) -> (state, packed metrics)` (see `recorder.pack`).
      batches: the batches from step `start` on, already on the device.
      key: the run's key, the same at each step.
      start: steps already made.
      total_steps: steps of the whole run.
      recorder: takes the metrics of each step.
      hooks: run in order when due, and all of them after the last step.
      stop: asked after each step; true ends the run there, and the hooks are left to the caller.

    Raises:
      RunError: a metric of some step is not finite (from the recorder).
    """

    def run_hooks(step: int, state: TrainState) -> None:
        due = [hook for hook in hooks if hook.due(step, last=step == total_steps)]
        if due:
            recorder.catch_up()
        for hook in due:
            with recorder.pause():
                results = hook.run(step, state)
            if results:
                recorder.record(step, results)

    step = start
    if start == total_steps:
        run_hooks(step, state)
    for step, batch in zip(range(start + 1, total_steps + 1), batches, strict=False):
        state, metrics = step_fn(state, batch, key)
        recorder.push(step, metrics)
        run_hooks(step, state)
        if stop(step):
            break
    recorder.catch_up()
    return state, step
