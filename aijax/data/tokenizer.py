"""Tokenizers: text to whole numbers and back, one number a character, one a word, or byte-level byte pairs (BPE).

A tokenizer is a noun that a run saves beside its parameters (`save_tokenizer`) and finds again (`load_tokenizer`).
Source of BPE: R. Sennrich, B. Haddow, A. Birch, Neural machine translation of rare words with subword units (2016);
it is trained and run by the library `tokenizers`, and its file is one that this library reads.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aijax.errors import ConfigError, DataError

FILE = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Characters:
    """One token a character; `characters` is the vocabulary, in the order of the tokens.

    >>> tokenizer = Characters("abc")
    >>> tokenizer.encode("cab"), tokenizer.decode([2, 0, 1])
    (array([2, 0, 1], dtype=int32), 'cab')
    """

    characters: str

    @property
    def vocabulary_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Returns the tokens of `text`, int32; a character that is not in the vocabulary is a `DataError`."""
        codes = _code_points(text)
        if codes.size == 0:
            return np.zeros(0, np.int32)
        order, vocabulary = self._sorted
        places = np.minimum(np.searchsorted(vocabulary, codes), len(vocabulary) - 1)
        unknown = np.flatnonzero(vocabulary[places] != codes)
        if unknown.size:
            place = int(unknown[0])
            raise DataError(f"character {place} of the text is {text[place]!r}, which is not in the vocabulary")
        return order[places]

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of `tokens`."""
        return "".join(self.characters[token] for token in np.asarray(tokens).tolist())

    def to_json(self) -> str:
        return json.dumps({"kind": "characters", "characters": self.characters}, ensure_ascii=False, indent=2)

    @functools.cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        codes = _code_points(self.characters)
        order = np.argsort(codes).astype(np.int32)
        return order, codes[order]


@dataclasses.dataclass(frozen=True)
class Words:
    """One token a word, between a start (0) and an end (1): for captions of few words.

    >>> tokenizer = Words(("a", "seven"))
    >>> tokenizer.encode("A seven"), tokenizer.decode([0, 2, 3, 1])
    (array([0, 2, 3, 1], dtype=int32), 'a seven')
    """

    words: tuple[str, ...]
    start = 0
    end = 1

    @property
    def vocabulary_size(self) -> int:
        return 2 + len(self.words)

    def encode(self, text: str) -> np.ndarray:
        """Returns the tokens of `text`, int32; a word that is not in the vocabulary is a `DataError`."""
        words = text.lower().split()
        for word in words:
            if word not in self._numbers:
                raise DataError(f"the word {word!r} of {text!r} is not in the vocabulary")
        return np.array([self.start, *(self._numbers[word] for word in words), self.end], np.int32)

    def rows(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Returns the tokens of texts as rows `[n, length]`, filled with the end; a longer text is a `DataError`."""
        rows = np.full((len(texts), length), self.end, np.int32)
        for row, text in zip(rows, texts, strict=True):
            tokens = self.encode(text)
            if len(tokens) > length:
                raise DataError(f"texts: expected at most {length} tokens, got {len(tokens)} of {text!r}")
            row[: len(tokens)] = tokens
        return rows

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of `tokens`, without start and end."""
        return " ".join(self.words[token - 2] for token in np.asarray(tokens).tolist() if token > self.end)

    def to_json(self) -> str:
        return json.dumps({"kind": "words", "words": self.words}, ensure_ascii=False, indent=2)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, start=2)}


@dataclasses.dataclass(frozen=True)
class BytePairs:
    """Byte-level BPE: any text has tokens; `description` is the file of the library `tokenizers`."""

    description: str = dataclasses.field(repr=False)

    @property
    def vocabulary_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> np.ndarray:
        """Returns the tokens of `text`, int32."""
        pieces = self._tokenizer.encode_batch(text.splitlines(keepends=True))
        return np.fromiter((token for piece in pieces for token in piece.ids), np.int32)

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of `tokens`."""
        return self._tokenizer.decode(np.asarray(tokens).tolist())

    def to_json(self) -> str:
        return self.description

    @functools.cached_property
    def _tokenizer(self):
        import tokenizers

        return tokenizers.Tokenizer.from_str(self.description)


Tokenizer = Characters | Words | BytePairs


def train_words(texts: Sequence[str]) -> Words:
    """Returns the tokenizer of the words that occur in `texts`, in the order of the alphabet."""
    return Words(tuple(sorted({word for text in texts for word in text.lower().split()})))


def train_characters(text: str) -> Characters:
    """Returns the tokenizer of the characters that occur in `text`."""
    return Characters("".join(sorted(set(text))))


def train_byte_pairs(text: str, vocabulary_size: int, where: str = "config.data.vocabulary_size") -> BytePairs:
    """Returns byte-level BPE trained on `text`.

    Args:
      text: what to learn the merges from.
      vocabulary_size: tokens in all, 256 of them the bytes; a short text may give fewer.
      where: the field that gives the size, for messages.
    """
    import tokenizers

    if vocabulary_size < 256:
        raise ConfigError(f"{where}: expected 256 or more (a token a byte), got {vocabulary_size}")
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(text.splitlines(keepends=True), trainer)
    return BytePairs(learner.to_str(pretty=True))


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> Path:
    """Writes `tokenizer.json` into `folder`, whole or not at all, and returns its path."""
    path = Path(folder) / FILE
    temporary = path.with_suffix(".json.part")
    temporary.write_text(tokenizer.to_json(), encoding="utf-8")
    os.replace(temporary, path)
    return path


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Returns the tokenizer that `save_tokenizer` wrote into `folder`.

    Raises:
      DataError: no such file, or one that is not a tokenizer.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; was this run trained on text?")
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
        if content.get("kind") == "characters":
            return Characters(content["characters"])
        if content.get("kind") == "words":
            return Words(tuple(content["words"]))
        if content.get("kind") == "captions":
            from aijax.data.captions import from_json

            tokenizer = from_json(content)
            tokenizer.vocabulary_size  # noqa: B018 the file is parsed here, not in the middle of a run
            return tokenizer
        tokenizer = BytePairs(text)
        tokenizer.vocabulary_size  # noqa: B018 the file is parsed here, not in the middle of a run
    except Exception as error:
        raise DataError(f"{path}: not a tokenizer: {error}") from error
    return tokenizer


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
