"""Captions as rows of tokens of one length, by a published tokenizer or by one of CLIP's kind that is learned.

row = [start, pieces of the text ..., end, pad, pad, ...]
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aijax.errors import ConfigError, DataError
from aijax.models.clip_tokenizer import END, START, CLIPTokenizer, read_clip_tokenizer, train_clip_tokenizer
from aijax.models.tensor_files import read_object
from aijax.models.tokenizer import WHAT, RowTokenizer, Tokenizer, read_tokenizer


@dataclasses.dataclass(frozen=True)
class Captions:
    """A tokenizer that puts its own start and end around a text.

    Attributes:
      description: the tokenizer as the library `tokenizers` writes it.
      length: tokens of a row.
      pad: the token that fills a row.
    """

    description: str = dataclasses.field(repr=False)
    length: int
    pad: int

    @property
    def vocabulary_size(self) -> int:
        return self._tokenizer.vocabulary_size

    @property
    def end(self) -> int:
        """The token after a text."""
        return int(self._tokenizer.encode("", special=True)[-1])

    def encode(self, text: str) -> np.ndarray:
        """Returns the tokens of a text, int32, with those around it."""
        return self._tokenizer.encode(text, special=True)

    def rows(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Returns the tokens of texts as rows `[n, length]`; a longer text loses its end, but for the last token."""
        return RowTokenizer(self._tokenizer, length, self.pad)(texts, truncate=True)

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens."""
        return self._tokenizer.decode(tokens)

    def to_json(self) -> str:
        content = {"kind": "captions", "length": self.length, "pad": self.pad}
        return json.dumps(content | {"tokenizer": json.loads(self.description)}, ensure_ascii=False, indent=2)

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self.description)


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
    return _framed(train_clip_tokenizer(texts, size=vocabulary_size, length=length))


def read_captions(folder: str | Path, length: int) -> Captions:
    """Returns the tokenizer of a published folder, for rows of a length.

    Raises:
      DataError: no tokenizer there, or one that puts no token after a text.
    """
    folder = Path(folder)
    config = folder / "tokenizer_config.json"
    told = read_object(config, WHAT) if config.is_file() else {}
    if str(told.get("tokenizer_class", "")).startswith("CLIP"):
        return dataclasses.replace(_framed(read_clip_tokenizer(folder)), length=length)
    tokenizer = read_tokenizer(folder)
    around = tokenizer.encode("", special=True)
    if not around.size:
        raise DataError(f"{folder}: the tokenizer puts no token after a text, which an encoder of texts needs")
    pad = told.get("pad_token", "<pad>")
    number = tokenizer.number(pad.get("content", "") if isinstance(pad, dict) else str(pad))
    return Captions(tokenizer.description, length, int(around[-1]) if number is None else number)


def _framed(clip: CLIPTokenizer) -> Captions:
    """CLIP's tokenizer, whose start and end become part of the description."""
    from tokenizers import Tokenizer as Library
    from tokenizers import processors

    library = Library.from_str(clip.description)
    numbers = {token: library.token_to_id(token) for token in (START, END, clip.pad)}
    for token, number in numbers.items():
        if number is None:
            raise DataError(f"tokenizer: expected the token {token!r} in its vocabulary, it is not there")
    library.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, numbers[token]) for token in (START, END)]
    )
    return Captions(json.dumps(json.loads(library.to_str())), clip.length, numbers[clip.pad])
