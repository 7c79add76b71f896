"""Text as windows of tokens, for language models.

The text is cut by position into train, validation and test, tokenised, and read in windows of `length + 1` tokens: the
first `length` are the input, the last `length` what comes next. The embedded default is the English prose that every
Python carries, the topics of its help (`pydoc_data.topics`).
"""

import dataclasses
import functools
from typing import Any, Literal

import numpy as np

from aijax.data.files import existing, read_bytes
from aijax.data.parts import check_split
from aijax.data.source import shape_of
from aijax.data.tokenizer import Tokenizer, train_byte_pairs, train_characters
from aijax.errors import ConfigError, DataError


def text(
    split: str,
    field: str = "config.data",
    *,
    path: str | None = None,
    tokenizer: Literal["characters", "bpe"] = "characters",
    vocabulary_size: int = 1024,
    length: int = 128,
    stride: int | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.0,
) -> "TextSource":
    """Returns a split of a text as windows of tokens.

    Args:
      split: "train", "validation" or "test"; train comes first in the text, test last.
      field: the config section, for messages.
      path: a UTF-8 text file (`.gz` too); None reads the topics of Python's help.
      tokenizer: "characters", those of the whole text, or "bpe", byte pairs learned from the training split.
      vocabulary_size: tokens of the byte-pair vocabulary.
      length: tokens a model reads at once.
      stride: tokens from one window to the next; None is `length`: each token is predicted once an epoch.
      validation_fraction, test_fraction: of the characters of the text.

    Raises:
      DataError: a missing file, bytes that are not UTF-8 (the sentence gives the place), a text shorter than a window.
      ConfigError: a length, stride or fraction out of range.
    """
    check_split(split, field)
    for name, value in (("length", length), ("stride", length if stride is None else stride)):
        if value < 1:
            raise ConfigError(f"{field}.{name}: expected tokens, 1 or more, got {value}")
    if tokenizer not in ("characters", "bpe"):
        raise ConfigError(f"{field}.tokenizer: expected 'characters' or 'bpe', got {tokenizer!r}")
    where, whole = ("pydoc_data.topics", help_topics()) if path is None else (path, read_text(path, f"{field}.path"))
    parts = cut(whole, validation_fraction, test_fraction, field)
    if split != "train" and not parts[split]:
        raise ConfigError(f"{field}.{split}_fraction: gives no characters of {where}, so there is no {split} split")
    learned = _learned(whole if tokenizer == "characters" else parts["train"], tokenizer, vocabulary_size, field)
    tokens = learned.encode(parts[split])
    if len(tokens) <= length:
        raise DataError(
            f"{where}: its {split} split has {len(tokens)} tokens, fewer than one window of {field}.length + 1 = "
            f"{length + 1}"
        )
    return TextSource(tokens, learned, length, stride or length)


@dataclasses.dataclass(frozen=True, eq=False)
class TextSource:
    """Windows of `length + 1` tokens, one every `stride` tokens."""

    tokens: np.ndarray
    tokenizer: Tokenizer
    length: int
    stride: int
    classes: None = None
    labels: None = None
    read_threads: int = 0

    def __len__(self) -> int:
        return (len(self.tokens) - self.length - 1) // self.stride + 1

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        places = np.asarray(indices)[:, None] * self.stride + np.arange(self.length + 1)
        return {"tokens": self.tokens.take(places)}

    @property
    def spec(self) -> dict[str, Any]:
        return {"tokens": shape_of((self.length + 1,), np.int32)}


def help_topics() -> str:
    """Returns the topics of Python's help, in the order of their names: about 450,000 characters of English prose."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def read_text(path: str, field: str) -> str:
    """Returns the content of a UTF-8 file; other bytes are a `DataError` that gives their place."""
    file = existing(path, field)
    content = read_bytes(file)
    if not content:
        raise DataError(f"{file}: is empty")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: byte {error.start} (0x{content[error.start]:02x}) is not UTF-8: {error.reason}; expected a text "
            "file in UTF-8"
        ) from error


def cut(whole: str, validation_fraction: float, test_fraction: float, field: str) -> dict[str, str]:
    """Returns the three splits of a text by position: train, then validation, then test.

    >>> cut("abcdefghij", 0.2, 0.1, "config.data")
    {'train': 'abcdefg', 'validation': 'hi', 'test': 'j'}
    """
    for name, fraction in (("validation", validation_fraction), ("test", test_fraction)):
        if not 0 <= fraction < 1:
            raise ConfigError(f"{field}.{name}_fraction: expected a fraction from 0 to below 1, got {fraction!r}")
    if validation_fraction + test_fraction >= 1:
        raise ConfigError(
            f"{field}.validation_fraction: {validation_fraction} and {field}.test_fraction: {test_fraction} leave "
            "nothing to train on"
        )
    test = len(whole) - round(test_fraction * len(whole))
    train = test - round(validation_fraction * len(whole))
    return {"train": whole[:train], "validation": whole[train:test], "test": whole[test:]}


@functools.lru_cache(maxsize=2)
def _learned(whole: str, kind: str, vocabulary_size: int, field: str) -> Tokenizer:
    if kind == "characters":
        return train_characters(whole)
    return train_byte_pairs(whole, vocabulary_size, f"{field}.vocabulary_size")
