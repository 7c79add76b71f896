"""The tokenizer of CLIP: lower-cased text, byte pairs within words, `</w>` at their ends (Radford et al. 2021, 2.4).

tokens = [start, pairs of the text ..., end, pad, pad, ...]
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
START, END = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class CLIPTokenizer:
    """Texts to rows of tokens of one length.

    Attributes:
      description: the tokenizer as the library `tokenizers` writes it.
      length: of a row, start and end included.
      pad: the token that fills a row.
    """

    description: str = field(repr=False)
    length: int = 77
    pad: str = END

    def __call__(self, texts: Sequence[str], *, truncate: bool = False) -> np.ndarray:
        """Returns the tokens of texts, `[n, length]` int32.

        Args:
          texts: a list, or one text.
          truncate: whether a longer text loses its end.

        Raises:
          DataError: a text that is too long.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        start, end, pad = (self._id(token) for token in (START, END, self.pad))
        rows = np.full((len(texts), self.length), pad, np.int32)
        for row, text in zip(rows, texts, strict=True):
            pairs = self._tokenizer.encode(text, add_special_tokens=False).ids
            if len(pairs) > self.length - 2 and not truncate:
                shown = text if len(text) <= 40 else text[:40] + "..."
                raise DataError(f"texts: expected at most {self.length - 2} tokens, got {len(pairs)} of {shown!r}")
            tokens = [start, *pairs[: self.length - 2], end]
            row[: len(tokens)] = tokens
        return rows

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens."""
        return self._tokenizer.get_vocab_size()

    def _id(self, token):
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise DataError(f"tokenizer: expected the token {token!r} in its vocabulary, it is not there")
        return number

    @functools.cached_property
    def _tokenizer(self):
        import tokenizers

        return tokenizers.Tokenizer.from_str(self.description)


def clip_tokenizer(
    vocabulary: Mapping[str, int], merges: Sequence[str], *, length: int = 77, pad: str = END
) -> CLIPTokenizer:
    """Returns the tokenizer of a vocabulary and its merges.

    Args:
      vocabulary: token to number; start and end are among them.
      merges: pairs such as "t h", in the order in which they are merged.
      length: of a row of tokens, default 77.
      pad: the token that fills a row, default the end.

    Raises:
      DataError: merges that are no pairs of tokens.
    """
    from tokenizers import AddedToken, models

    pairs = [tuple(merge.split(" ")) for merge in merges]
    try:
        pieces = models.BPE(dict(vocabulary), pairs, end_of_word_suffix=SUFFIX, unk_token=END)
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"merges: expected pairs of tokens of the vocabulary: {error}") from None
    tokenizer = _of_words(pieces)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (START, END) if token in vocabulary])
    return CLIPTokenizer(tokenizer.to_str(), length, pad)


def train_clip_tokenizer(texts: Sequence[str], *, size: int = 49408, length: int = 77) -> CLIPTokenizer:
    """Returns a tokenizer of this kind whose merges are the most frequent pairs of `texts`, one after the other.

    Args:
      texts: what to learn from; a character that is not there becomes the end of text.
      size: most tokens of the vocabulary, the start 0 and the end 1 among them; few texts give fewer, and each of their
        words is then one token.
      length: of a row of tokens, default 77.

    >>> train_clip_tokenizer(["a three", "three a"], length=5)(["three a"]).tolist()[0][:4:3]
    [0, 1]
    """
    from tokenizers import models, trainers

    tokenizer = _of_words(models.BPE(end_of_word_suffix=SUFFIX, unk_token=END))
    normalized = (tokenizer.normalizer.normalize_str(text) for text in texts)
    words = {word for text in normalized for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
    # the library numbers the ends of words in an order that changes from process to process, unless they are special
    ends = sorted({word[-1] + SUFFIX for word in words})
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[START, END, *ends], end_of_word_suffix=SUFFIX, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = [token for token in described["added_tokens"] if token["content"] not in ends]
    return CLIPTokenizer(json.dumps(described), length)


def read_clip_tokenizer(folder: str | Path) -> CLIPTokenizer:
    """Returns the tokenizer in a published folder: `vocab.json` with `merges.txt`, or `tokenizer.json`.

    Raises:
      DataError: no such files, or damaged ones.
    """
    folder = Path(folder)
    config = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        config |= read_object(folder / name, WHAT) if (folder / name).is_file() else {}
    pad = config.get("pad_token", END)
    pad = pad.get("content", END) if isinstance(pad, dict) else pad
    length = config.get("model_max_length", 77)
    if not (isinstance(length, int) and 2 < length < 10**6):
        raise DataError(f"{folder}/tokenizer_config.json: model_max_length: expected a length, got {length!r}")
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        merges = [line for line in lines if line and not line.startswith("#version")]
        return clip_tokenizer(read_object(folder / "vocab.json", WHAT), merges, length=length, pad=pad)
    description = json.dumps(read_object(folder / "tokenizer.json", WHAT))
    return CLIPTokenizer(description, length, pad)


def write_clip_tokenizer(folder: str | Path, tokenizer: CLIPTokenizer) -> None:
    """Writes the files that `read_clip_tokenizer` reads into `folder`, which may be new."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_max_length": tokenizer.length, "pad_token": tokenizer.pad}
    (folder / "tokenizer.json").write_text(tokenizer.description, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _of_words(pieces):
    """The library's tokenizer that lowers text, cuts it into words and these into the pieces of a model."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers

    tokenizer = Tokenizer(pieces)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    ends = [decoders.Replace(SUFFIX, " "), decoders.Strip(" ", 0, 1)]
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), *ends])
    return tokenizer
