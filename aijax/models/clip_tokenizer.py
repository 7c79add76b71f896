"""The tokenizer of CLIP: lower-cased text, byte pairs within words, `</w>` at their ends (Radford et al. 2021, 2.4).

tokens = [start, pairs of the text ..., end, pad, pad, ...]
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from aijax.errors import DataError
from aijax.models.tensor_files import read_object
from aijax.models.tokenizer import WHAT, RowTokenizer, Tokenizer, read_pairs, write_tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip_tokenizer(
    vocabulary: Mapping[str, int], merges: Sequence[str], *, length: int = 77, pad: str = END
) -> RowTokenizer:
    """Returns the tokenizer of a vocabulary and its merges.

    Args:
      vocabulary: token to number; start and end are among them.
      merges: pairs such as "t h", in the order in which they are merged.
      length: of a row of tokens, start and end included, default 77.
      pad: the token that fills a row, default the end.

    Raises:
      DataError: merges that are no pairs of tokens, or a vocabulary without start, end or pad.
    """
    from tokenizers import AddedToken, models

    pairs = [tuple(merge.split(" ")) for merge in merges]
    try:
        pieces = models.BPE(dict(vocabulary), pairs, end_of_word_suffix=SUFFIX, unk_token=END)
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"merges: expected pairs of tokens of the vocabulary: {error}") from None
    tokenizer = _of_words(pieces)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (START, END) if token in vocabulary])
    return _rows(tokenizer.to_str(), length, pad)


def train_clip_tokenizer(texts: Sequence[str], *, size: int = 49408, length: int = 77) -> RowTokenizer:
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
    return _rows(json.dumps(described), length, END)


def read_clip_tokenizer(folder: str | Path) -> RowTokenizer:
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
    found = read_pairs(folder)
    if found is not None:
        return clip_tokenizer(*found, length=length, pad=pad)
    return _rows(json.dumps(read_object(folder / "tokenizer.json", WHAT)), length, pad)


def write_clip_tokenizer(folder: str | Path, tokenizer: RowTokenizer) -> None:
    """Writes the files that `read_clip_tokenizer` reads into `folder`, which may be new."""
    write_tokenizer(folder, tokenizer.tokenizer)
    config = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": tokenizer.length,
        "pad_token": tokenizer.tokenizer.token(tokenizer.pad),
    }  # fmt: skip
    (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _rows(description, length, pad):
    """The tokenizer of a description, with the start and the end that it puts around a text."""
    from tokenizers import Tokenizer as Library
    from tokenizers import processors

    library = Library.from_str(description)
    numbers = {token: library.token_to_id(token) for token in (START, END, pad)}
    for token, number in numbers.items():
        if number is None:
            raise DataError(f"tokenizer: expected the token {token!r} in its vocabulary, it is not there")
    library.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, numbers[token]) for token in (START, END)]
    )
    return RowTokenizer(Tokenizer(json.dumps(json.loads(library.to_str()))), length, numbers[pad])


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
