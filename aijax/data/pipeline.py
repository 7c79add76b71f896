"""The input pipeline: which records make batch s, and reading them ahead.

The order of the records is one endless sequence: the permutation of epoch 0, then that of epoch 1, and so on, each a
pure function of (seed, epoch). Batch s of size B is places `s B` to `(s + 1) B` of that sequence, and process p of P
takes rows `p B / P` to `(p + 1) B / P` of it. So a batch is a pure function of (seed, s), for any number of processes
every record comes once an epoch, nothing is dropped at its end, and to start at step s costs what starting at 0 does.

grain reads the batches ahead, in threads, where the source gains by it (files to open, images to decode). It sees
batches, not records, so that its cost is per batch. What is in memory is read as it is asked for, which is faster.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from aijax.data.source import Source, shape_of
from aijax.errors import ConfigError


def stream(
    source: Source,
    batch_size: int,
    *,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    shuffle: bool = True,
    num_threads: int | None = None,
    prefetch: int = 4,
) -> "Stream":
    """Returns the endless stream of batches to train on.

    Args:
      source: the records.
      batch_size: records in a batch over all processes.
      seed: of the permutations.
      process_index, process_count: which rows of each batch this process reads.
      shuffle: whether each epoch has its own order; False keeps the order of the source.
      num_threads: threads that read ahead; None leaves it to the source (none where records are in memory).
      prefetch: batches read ahead, where there are threads.

    Raises:
      ConfigError: a batch size that is not positive or that the processes cannot share evenly.

    >>> from aijax.data.source import ArraySource
    >>> batches = stream(ArraySource({"y": np.arange(4)}), 3, seed=0, shuffle=False).iterate(1)
    >>> next(batches)["y"], batches.state()
    (array([3, 0, 1]), {'step': 2})
    """
    check_batch_size(batch_size, process_count)
    if num_threads is None:
        num_threads = source.read_threads
    return Stream(source, batch_size, seed, process_index, process_count, shuffle, num_threads, prefetch)


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """The batches of an endless stream: `stream[s]` is batch s, `iterate(s)` reads on from there."""

    source: Source
    batch_size: int
    seed: int
    process_index: int
    process_count: int
    shuffle: bool
    num_threads: int
    prefetch: int

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        return self.source[self.indices(step)]

    def indices(self, step: int) -> np.ndarray:
        """Returns int64 `[b]`: the records of this process's rows of batch `step`."""
        rows = self.batch_size // self.process_count
        begin = int(step) * self.batch_size + self.process_index * rows
        places = np.arange(begin, begin + rows)
        if not self.shuffle:
            return places % len(self.source)
        first, last = begin // len(self.source), (begin + rows - 1) // len(self.source)
        orders = [permutation(self.seed, epoch, len(self.source)) for epoch in range(first, last + 1)]
        order = orders[0] if first == last else np.concatenate(orders)
        return order[places - first * len(self.source)]

    def iterate(self, start_step: int = 0) -> "Batches":
        """Returns an iterator over batches `start_step`, `start_step + 1`, ..."""
        return Batches(self, start_step)


class Batches(Iterator[dict[str, np.ndarray]]):
    """An iterator over the batches of a stream that knows its place: `state()` and `restore(state)`."""

    def __init__(self, batches: Stream, start_step: int = 0):
        self._batches = batches
        self._ahead = read_ahead(batches) if batches.num_threads else None
        self.restore({"step": start_step})

    def __next__(self) -> dict[str, np.ndarray]:
        batch = self._batches[self._step] if self._ahead is None else next(self._ahead)
        self._step += 1
        return batch

    def state(self) -> dict[str, int]:
        """Returns `{"step": s}`, where s is the batch that comes next."""
        return {"step": self._step}

    def restore(self, state: dict[str, int]) -> None:
        """Goes to the place that `state()` gave."""
        self._step = state["step"]
        if self._ahead is not None:
            self._ahead.set_state({"next_index": self._step})

    def close(self) -> None:
        """Stops reading ahead."""
        if self._ahead is not None:
            self._ahead.close()


def read_ahead(batches: Stream):
    """Returns grain's iterator over the batches of a stream, read ahead in `num_threads` threads."""
    import grain

    options = grain.ReadOptions(num_threads=batches.num_threads, prefetch_buffer_size=batches.prefetch)
    return iter(grain.MapDataset.source(batches).to_iter_dataset(options))


@functools.lru_cache(maxsize=8)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns int64 `[size]`: the order of the records in an epoch, a pure function of its arguments.

    It is the order of `size` raw draws of the Philox counter keyed by (seed, epoch), which numpy keeps the same in all
    its versions, unlike its own permutations.
    """
    draws = np.random.Philox(key=np.array([seed % 2**64, epoch], np.uint64)).random_raw(size)
    order = np.argsort(draws, kind="stable")
    order.setflags(write=False)
    return order


def evaluation_batches(
    source: Source, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Returns an iterator over every record once, in order, in batches of one size.

    Each batch has `"mask"`, float32 `[b]`: 1 for a record, 0 for the padding (the last record again) that fills the
    last batch. `batch_size` is over all processes; this process gets its rows.
    """
    check_batch_size(batch_size, process_count)
    return _evaluation_batches(source, batch_size, process_index, process_count)


def _evaluation_batches(source, batch_size, process_index, process_count):
    rows = batch_size // process_count
    for begin in range(process_index * rows, len(source) + process_index * rows, batch_size):
        places = np.arange(begin, begin + rows)
        batch = source[np.minimum(places, len(source) - 1)]
        yield {**batch, "mask": (places < len(source)).astype(np.float32)}


def batch_spec(source: Source, batch_size: int, *, evaluation: bool = False) -> dict[str, Any]:
    """Returns the shapes of a whole batch (over all processes) without reading one."""
    spec = {name: shape_of((batch_size, *leaf.shape), leaf.dtype) for name, leaf in source.spec.items()}
    return {**spec, "mask": shape_of((batch_size,), np.float32)} if evaluation else spec


def check_batch_size(batch_size: int, process_count: int, where: str = "config.batch_size") -> None:
    """Raises a `ConfigError` where the processes cannot share a batch evenly."""
    if batch_size < 1:
        raise ConfigError(f"{where}: expected 1 or more, got {batch_size}")
    if batch_size % process_count:
        near = max(1, round(batch_size / process_count)) * process_count
        raise ConfigError(f"{where}: {batch_size} is not divisible by {process_count} processes; {near} is")
