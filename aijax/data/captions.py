"""Captions as rows of tokens of one length, by a published tokenizer or by one of CLIP's kind that is learned.

row = [start, pieces of the text ..., end, pad, pad, ...]
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aijax.errors import ConfigError, DataError
from aijax.models.clip_tokenizer import read_clip_tokenizer, train_clip_tokenizer
from aijax.models.tensor_files import read_object
from aijax.models.tokenizer import WHAT, RowTokenizer, Tokenizer, read_tokenizer


@dataclasses.dataclass(frozen=True)
class Captions:
    """A tokenizer of captions, as a run saves it.

    Attributes:
      of_rows: it puts its own start and end around a text.
    """

    of_rows: RowTokenizer

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.of_rows.length

    @property
    def vocabulary_size(self) -> int:
        return self.of_rows.vocabulary_size

    @property
    def end(self) -> int:
        """The token after a text."""
        return int(self.encode("")[-1])

    def encode(self, text: str) -> np.ndarray:
        """Returns the tokens of a text, int32, with those around it."""
        return self.of_rows.tokenizer.encode(text, special=True)

    def rows(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Returns the tokens of texts as rows `[n, length]`; a longer text loses its end, but for the last token."""
        return dataclasses.replace(self.of_rows, length=length)(texts, truncate=True)

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens."""
        return self.of_rows.tokenizer.decode(tokens)

    def to_json(self) -> str:
        content = {"kind": "captions", "length": self.length, "pad": self.of_rows.pad}
        tokenizer = json.loads(self.of_rows.tokenizer.description)
        return json.dumps(content | {"tokenizer": tokenizer}, ensure_ascii=False, indent=2)


def from_json(content: dict) -> Captions:
    """Returns what `to_json` wrote."""
    return Captions(RowTokenizer(Tokenizer(json.dumps(content["tokenizer"])), content["length"], content["pad"]))


def learn_captions(
    texts: Sequence[str], vocabulary_size: int, length: int, where: str = "config.data.vocabulary_size"
) -> Captions:
    """Returns the tokenizer of the most frequent pairs of letters in `texts`, see `train_clip_tokenizer`.

    Args:
      texts: captions.
      vocabulary_size: most tokens, 3 or more.
      length: of a row.
      where: the field that gives the size, for messages.

    >>> tokenizer = learn_captions(["a red dog", "a dog"], 100, 5)
    >>> tokenizer.decode(tokenizer.rows(["a dog"], 5)[0])
    'a dog'
    """
    if vocabulary_size < 3:
        raise ConfigError(f"{where}: expected 3 or more, got {vocabulary_size}")
    return Captions(train_clip_tokenizer(texts, size=vocabulary_size, length=length))


def read_captions(folder: str | Path, length: int) -> Captions:
    """Returns the tokenizer of a published folder, for rows of a length.

    Raises:
      DataError: no tokenizer there, or one that puts no token after a text.
    """
    folder = Path(folder)
    config = folder / "tokenizer_config.json"
    told = read_object(config, WHAT) if config.is_file() else {}
    if str(told.get("tokenizer_class", "")).startswith("CLIP"):
        return Captions(dataclasses.replace(read_clip_tokenizer(folder), length=length))
    tokenizer = read_tokenizer(folder)
    around = tokenizer.encode("", special=True)
    if not around.size:
        raise DataError(f"{folder}: the tokenizer puts no token after a text, which an encoder of texts needs")
    pad = told.get("pad_token", "<pad>")
    number = tokenizer.number(pad.get("content", "") if isinstance(pad, dict) else str(pad))
    return Captions(RowTokenizer(tokenizer, length, int(around[-1]) if number is None else number))
