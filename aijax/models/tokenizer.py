"""Tokenizers of published models: byte-level BPE (GPT-2), unigrams (T5), word pieces (BERT).

They are described and run by the library `tokenizers`; a description is the text of its file, which other tools read.
Sources: Radford et al. 2019, section 2.2; Kudo 2018; Schuster and Nakajima 2012 with Devlin et al. 2019.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aijax.errors import DataError
from aijax.models.tensor_files import read_object

WHAT = "a file of a tokenizer"
FILE = "tokenizer.json"
SENTENCEPIECE = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")


@dataclass(frozen=True)
class Tokenizer:
    """Text to tokens and back.

    Attributes:
      description: the tokenizer as the library `tokenizers` writes it.
    """

    description: str = field(repr=False)

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens."""
        return self._tokenizer.get_vocab_size()

    def number(self, token: str) -> int | None:
        """Returns the number of a token, None for one that is not in the vocabulary."""
        return self._tokenizer.token_to_id(token)

    def token(self, number: int) -> str:
        """Returns the token of a number."""
        return self._tokenizer.id_to_token(number)

    def encode(self, text: str, *, special: bool = False) -> np.ndarray:
        """Returns the tokens of a text, int32; with `special`, those that the model puts around it too."""
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=special).ids, np.int32)

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without special ones."""
        return self._tokenizer.decode(np.asarray(tokens).tolist())

    @functools.cached_property
    def _tokenizer(self):
        import tokenizers

        try:
            return tokenizers.Tokenizer.from_str(self.description)
        except Exception as error:  # the library raises nothing narrower
            raise DataError(f"tokenizer: expected a description that the library tokenizers reads: {error}") from None


@dataclass(frozen=True)
class RowTokenizer:
    """Texts to rows of tokens of one length, with the special ones that the model puts around a text.

    Attributes:
      tokenizer: of one text.
      length: of a row.
      pad: the token that fills a row.
    """

    tokenizer: Tokenizer
    length: int
    pad: int = 0

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens."""
        return self.tokenizer.vocabulary_size

    def __call__(self, texts: Sequence[str], *, truncate: bool = False) -> np.ndarray:
        """Returns the tokens of texts, `[n, length]` int32.

        Args:
          texts: a list, or one text.
          truncate: whether a longer text loses its end, but for its last token.

        Raises:
          DataError: a text that is too long.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        rows = np.full((len(texts), self.length), self.pad, np.int32)
        for row, text in zip(rows, texts, strict=True):
            tokens = self.tokenizer.encode(text, special=True)
            if len(tokens) > self.length and not truncate:
                shown = text if len(text) <= 40 else text[:40] + "..."
                raise DataError(f"texts: expected at most {self.length} tokens, got {len(tokens)} of {shown!r}")
            row[: len(tokens)] = tokens[: self.length]
            if len(tokens) > self.length:
                row[-1] = tokens[-1]
        return rows


def byte_level_bpe(
    vocabulary: Mapping[str, int], merges: Sequence[str], *, special: Sequence[str] = ("<|endoftext|>",)
) -> Tokenizer:
    """Returns GPT-2's kind of tokenizer: bytes as letters, merged pair by pair within words.

    Args:
      vocabulary: token to number.
      merges: pairs such as "t h", in the order in which they are merged.
      special: tokens that stand for no text; those that are not in the vocabulary are passed over.

    Raises:
      DataError: merges that are no pairs of tokens.

    >>> byte_level_bpe({"a": 0, "b": 1, "ab": 2}, ["a b"]).encode("aab").tolist()
    [0, 2]
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers

    try:
        model = models.BPE(dict(vocabulary), [tuple(merge.split(" ")) for merge in merges])
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"merges: expected pairs of tokens of the vocabulary: {error}") from None
    tokenizer = Library(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _with_special(tokenizer, special, vocabulary)


def unigram(
    pieces: Sequence[tuple[str, float]], unknown: int, *, special: Sequence[str] = ("<pad>", "</s>", "<unk>")
) -> Tokenizer:
    """Returns T5's kind of tokenizer: the likeliest cut of a text into pieces, spaces among them as "▁".

    Args:
      pieces: each with its log-probability, in the order of their numbers.
      unknown: the number of the piece for what no piece has.
      special: tokens that stand for no text.

    >>> unigram([("<unk>", 0.0), ("▁a", -1.0), ("▁", -2.0), ("b", -2.0)], 0).encode("a b").tolist()
    [1, 2, 3]
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    pieces = [(str(piece), float(score)) for piece, score in pieces]
    if not 0 <= unknown < len(pieces):
        raise DataError(f"unknown: expected the number of one of {len(pieces)} pieces, got {unknown}")
    tokenizer = Library(models.Unigram(pieces, unknown, False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return _with_special(tokenizer, special, {piece for piece, _ in pieces})


def word_pieces(
    vocabulary: Mapping[str, int],
    *,
    lower: bool = True,
    special: Sequence[str] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
) -> Tokenizer:
    """Returns BERT's kind of tokenizer: words cut greedily into the longest pieces, "##" before those within a word.

    Args:
      vocabulary: token to number.
      lower: whether text loses its capitals and accents.
      special: tokens that stand for no text.

    >>> word_pieces({"[UNK]": 0, "red": 1, "##der": 2}).encode("Redder").tolist()
    [1, 2]
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Library(models.WordPiece(dict(vocabulary), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    if {"[SEP]", "[CLS]"} <= set(vocabulary):
        ends = [(token, vocabulary[token]) for token in ("[SEP]", "[CLS]")]
        tokenizer.post_processor = processors.BertProcessing(*ends)
    return _with_special(tokenizer, special, vocabulary)


def read_tokenizer(folder: str | Path) -> Tokenizer:
    """Returns the tokenizer of a published folder: `tokenizer.json`, `vocab.json` with `merges.txt`, or `vocab.txt`.

    Raises:
      DataError: no such files, or damaged ones.
    """
    folder = Path(folder)
    if (folder / FILE).is_file():
        tokenizer = Tokenizer(json.dumps(read_object(folder / FILE, WHAT)))
        tokenizer.vocabulary_size  # noqa: B018 the file is parsed here, not later
        return tokenizer
    found = read_pairs(folder)
    if found is not None:
        return byte_level_bpe(*found)
    if (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        config = folder / "tokenizer_config.json"
        lower = read_object(config, WHAT).get("do_lower_case", True) if config.is_file() else True
        return word_pieces({token: number for number, token in enumerate(lines)}, lower=lower)
    other = [name for name in SENTENCEPIECE if (folder / name).is_file()]
    told = f"; {other[0]} alone is not read, tokenizer.json is what other tools write of it" if other else ""
    raise DataError(f"{folder}: expected tokenizer.json, vocab.json with merges.txt, or vocab.txt; there is none{told}")


def read_pairs(folder: Path) -> tuple[dict[str, int], list[str]] | None:
    """Returns the vocabulary of `vocab.json` and the pairs of `merges.txt`, or None where these files are not there."""
    if not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()):
        return None
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    merges = [line for line in lines if line and not line.startswith("#version")]
    return read_object(folder / "vocab.json", WHAT), merges


def write_tokenizer(folder: str | Path, tokenizer: Tokenizer) -> None:
    """Writes `tokenizer.json` into a folder, which may be new."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(tokenizer.description, encoding="utf-8")


def _with_special(tokenizer, special, vocabulary):
    from tokenizers import AddedToken

    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special if token in vocabulary])
    return Tokenizer(tokenizer.to_str())
