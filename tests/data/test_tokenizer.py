import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax.data.tokenizer import Characters, load_tokenizer, save_tokenizer, train_byte_pairs, train_characters
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


def test_empty_text():
    assert len(Characters("ab").encode("")) == len(BYTE_PAIRS.encode("")) == 0


def test_unknown_character():
    with pytest.raises(DataError, match=r"character 2 of the text is 'z', which is not in the vocabulary"):
        Characters("abc").encode("abz")


@pytest.mark.parametrize("tokenizer", [Characters('a"\né'), BYTE_PAIRS], ids=["characters", "bpe"])
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
