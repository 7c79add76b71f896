import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax.data.tokenizer import (
    Characters,
    Words,
    load_tokenizer,
    save_tokenizer,
    train_byte_pairs,
    train_characters,
    train_words,
)
from aijax.errors import DataError

PROSE = "It was the best of times, it was the worst of times.\n" * 20
BYTE_PAIRS = train_byte_pairs(PROSE, 300)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_characters_and_byte_pairs_come_back(text):
    for tokenizer in (train_characters(text), BYTE_PAIRS):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        assert tokens.min() >= 0 and tokens.max() < tokenizer.vocabulary_size


def test_byte_pairs_are_shorter_and_learned_the_same_each_time():
    assert len(BYTE_PAIRS.encode(PROSE)) < len(PROSE) / 3
    assert train_byte_pairs(PROSE, 300) == BYTE_PAIRS


def test_words_are_rows_between_start_and_end():
    tokenizer = train_words(["Two red sevens", "one red zero"])
    assert tokenizer.words == ("one", "red", "sevens", "two", "zero")
    rows = tokenizer.rows(["two red zero", "one"], 6)
    assert rows.tolist() == [[0, 5, 3, 6, 1, 1], [0, 2, 1, 1, 1, 1]]
    assert [tokenizer.decode(row) for row in rows] == ["two red zero", "one"]
    with pytest.raises(DataError, match="the word 'a' of 'a blue' is not in the vocabulary"):
        tokenizer.encode("a blue")
    with pytest.raises(DataError, match="texts: expected at most 3 tokens, got 5 of 'two red zero'"):
        tokenizer.rows(["two red zero"], 3)


def test_empty_text():
    assert len(Characters("ab").encode("")) == len(BYTE_PAIRS.encode("")) == 0


def test_unknown_character():
    with pytest.raises(DataError, match=r"character 2 of the text is 'z', which is not in the vocabulary"):
        Characters("abc").encode("abz")


@pytest.mark.parametrize(
    "tokenizer", [Characters('a"\né'), Words(("é", "a")), BYTE_PAIRS], ids=["characters", "words", "bpe"]
)
def test_a_run_folder_gives_it_back(tokenizer, tmp_path):
    path = save_tokenizer(tokenizer, tmp_path)
    assert path.name == "tokenizer.json" and [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]
    assert load_tokenizer(tmp_path) == tokenizer


def test_load_refuses(tmp_path):
    with pytest.raises(DataError, match=r"tokenizer.json: there is no such file; was this run trained on text"):
        load_tokenizer(tmp_path)
    for content in ("{", "[]", '{"kind": "characters"}', '{"model": 3}'):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(DataError, match=r"tokenizer.json: not a tokenizer"):
            load_tokenizer(tmp_path)
