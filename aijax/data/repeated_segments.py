"""Sequences of different random tokens in which one segment comes twice: what only reading the context can predict.

Within the second segment each token can be told from the first (Olsson et al. 2022); no other token can. Where the
segments begin, how long they are and how far apart is drawn for each sequence: at a fixed distance one layer of
attention would do, which copies from there by position.
"""

import numpy as np

from aijax.data.parts import check_split
from aijax.data.source import ArraySource, Source
from aijax.errors import ConfigError

SPLITS = ("train", "validation", "test")


def repeated_segments(
    split: str,
    field: str = "config.data",
    *,
    vocabulary: int = 40,
    length: int = 37,
    shortest: int = 6,
    longest: int = 12,
    size: int = 65536,
    held_out_size: int = 512,
    seed: int = 0,
) -> Source:
    """Returns sequences: int32 `"tokens"` [length], the first of which is 0, the others different but for the repeat.

    The classes are the tokens.

    Args:
      split: "train", or "validation" and "test", drawn apart.
      field: the config section, for messages.
      vocabulary: number of tokens, with 0, by which each sequence begins.
      length: of a sequence.
      shortest, longest: tokens of the segment, uniformly drawn; so are its first place and, behind it, its second.
      size: sequences to train on.
      held_out_size: sequences of each other split.
      seed: of the draw.

    Raises:
      ConfigError: fewer tokens than places, segments that do not fit twice, a size below one.

    >>> source = repeated_segments("validation")
    >>> len(source), source[np.arange(2)]["tokens"].shape
    (512, (2, 37))
    """
    check_split(split, field)
    if vocabulary < length:
        raise ConfigError(f"{field}.vocabulary: expected {length} or more, as many as places, got {vocabulary}")
    if not 2 <= shortest <= longest:
        raise ConfigError(f"{field}.shortest: expected 2 to longest {longest}, got {shortest}")
    if 2 * longest > length - 1:
        raise ConfigError(f"{field}.longest: expected at most {(length - 1) // 2} to fit twice, got {longest}")
    for name, value in (("size", size), ("held_out_size", held_out_size)):
        if value < 1:
            raise ConfigError(f"{field}.{name}: expected 1 or more, got {value}")
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    count, places = size if split == "train" else held_out_size, np.arange(length - 1)
    tokens = 1 + rng.random((count, vocabulary - 1), np.float32).argsort(1)[:, : length - 1].astype(np.int32)
    lengths = rng.integers(shortest, longest, count, endpoint=True)
    first = rng.integers(0, length - 1 - 2 * lengths, endpoint=True)
    second = rng.integers(first + lengths, length - 1 - lengths, endpoint=True)
    repeats = (places >= second[:, None]) & (places < (second + lengths)[:, None])
    copied = np.where(repeats, places - (second - first)[:, None], places)
    tokens = np.take_along_axis(tokens, copied, 1)
    tokens = np.concatenate([np.zeros((count, 1), np.int32), tokens], 1)
    return ArraySource({"tokens": tokens}, tuple(map(str, range(vocabulary))))
