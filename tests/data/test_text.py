import gzip

import numpy as np
import pytest

from aijax.data.pipeline import stream
from aijax.data.text import text
from aijax.errors import ConfigError, DataError


@pytest.fixture
def book(tmp_path):
    (tmp_path / "book.txt").write_text("abcdefghij" * 20, encoding="utf-8")
    return str(tmp_path / "book.txt")


def test_windows_cover_the_split_in_order(book):
    source = text("train", path=book, length=10)
    assert source.spec["tokens"].shape == (11,) and len(source) == 17
    assert source.tokenizer.decode(source[np.array([3])]["tokens"][0]) == "abcdefghija"
    everything = source[np.arange(len(source))]["tokens"]
    assert np.array_equal(everything[:, :-1].reshape(-1), source.tokens[:170])
    assert np.array_equal(everything[:-1, -1], everything[1:, 0])


def test_stride(book):
    source = text("train", path=book, length=10, stride=3)
    assert len(source) == (180 - 11) // 3 + 1
    assert np.array_equal(source[np.array([len(source) - 1])]["tokens"][0], source.tokens[168:179])


def test_splits_are_by_position(book):
    parts = [
        text(s, path=book, length=4, validation_fraction=0.2, test_fraction=0.1)
        for s in ("train", "validation", "test")
    ]
    assert [len(p.tokens) for p in parts] == [140, 40, 20]
    assert parts[0].tokenizer == parts[2].tokenizer


def test_default_is_the_help_of_python():
    source = text("train")
    assert len(source.tokens) > 300_000 and 60 < source.tokenizer.vocabulary_size < 400
    batch = next(stream(source, 4, seed=0).iterate())
    assert batch["tokens"].shape == (4, 129) and batch["tokens"].dtype == np.int32


def test_byte_pairs_are_learned_from_training(tmp_path):
    (tmp_path / "t.txt").write_text("the cat sat. " * 300 + "zebra " * 50, encoding="utf-8")
    options = {"path": str(tmp_path / "t.txt"), "tokenizer": "bpe", "vocabulary_size": 270, "length": 4}
    train, held = text("train", **options), text("validation", **options)
    assert train.tokenizer.vocabulary_size <= 270
    assert held.tokenizer.decode(held.tokens).endswith("zebra ")
    assert len(train.tokens) < 3 * 1300


def test_compressed_text(tmp_path):
    (tmp_path / "t.gz").write_bytes(gzip.compress("añb".encode() * 100))
    assert text("train", path=str(tmp_path / "t.gz"), length=3).tokenizer.characters == "abñ"


def test_refusals(book, tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"good text \xff more")
    with pytest.raises(DataError, match=r"bad.txt: byte 10 \(0xff\) is not UTF-8: invalid start byte"):
        text("train", path=str(tmp_path / "bad.txt"))
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty.txt: is empty"):
        text("train", path=str(tmp_path / "empty.txt"))
    with pytest.raises(DataError, match=r"config.data.path: there is no file .*book.tx'.*did you mean 'book.txt'"):
        text("train", path=book[:-1])
    with pytest.raises(DataError, match=r"its validation split has 20 tokens, fewer than one window of .* = 129"):
        text("validation", path=book)
    with pytest.raises(ConfigError, match=r"config.data.test_fraction: gives no characters"):
        text("test", path=book)
    with pytest.raises(ConfigError, match=r"config.data.length: expected tokens, 1 or more, got 0"):
        text("train", path=book, length=0)
    with pytest.raises(ConfigError, match=r"config.data.stride: expected tokens, 1 or more, got -1"):
        text("train", path=book, stride=-1)
    with pytest.raises(ConfigError, match=r"config.data.vocabulary_size: expected 256 or more"):
        text("train", path=book, tokenizer="bpe", vocabulary_size=10)
    with pytest.raises(ConfigError, match=r"leave nothing to train on"):
        text("train", path=book, validation_fraction=0.6, test_fraction=0.4)
    with pytest.raises(ConfigError, match=r"config.data.validation_fraction: expected a fraction"):
        text("train", path=book, validation_fraction=-0.1)
