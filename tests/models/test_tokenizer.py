"""Tokenizers of published models against the reference, and their files."""

import json

import numpy as np
import pytest

from aijax.errors import DataError
from aijax.models.tokenizer import byte_level_bpe, read_tokenizer, unigram, word_pieces, write_tokenizer


@pytest.fixture(params=["gpt2_bytelevel_0", "unigram_1", "wordpiece_0"])
def case(request, golden):
    """`(case, tokenizer)`: a vocabulary with texts and their tokens, and the tokenizer of that vocabulary."""
    told = json.loads((golden / "vision_text/tokenizer" / request.param / "case.json").read_text())
    if "merges" in told:
        return told, byte_level_bpe(told["vocab"], told["merges"])
    if "unk_id" in told:
        return told, unigram(told["vocab"], told["unk_id"])
    return told, word_pieces(told["vocab"])


def test_texts_have_the_tokens_of_the_reference_and_come_back(case, tmp_path):
    told, tokenizer = case
    assert tokenizer.vocabulary_size == len(told["vocab"])
    write_tokenizer(tmp_path, tokenizer)
    for found in (tokenizer, read_tokenizer(tmp_path)):
        for pair in told["pairs"]:
            assert found.encode(pair["text"]).tolist() == pair["ids"], pair["text"]
            if "decoded" in pair:
                assert found.decode(pair["ids"]) == pair["decoded"]


def test_old_files_are_read(golden, tmp_path):
    folder = golden / "vision_text/tokenizer"
    told = json.loads((folder / "gpt2_bytelevel_0/case.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(told["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *told["merges"], ""]))
    pair = told["pairs"][1]
    np.testing.assert_array_equal(read_tokenizer(tmp_path).encode(pair["text"]), pair["ids"])
    told = json.loads((folder / "wordpiece_0/case.json").read_text())
    words = tmp_path / "words"
    words.mkdir()
    (words / "vocab.txt").write_text("\n".join(sorted(told["vocab"], key=told["vocab"].get)))
    pair = told["pairs"][1]
    np.testing.assert_array_equal(read_tokenizer(words).encode(pair["text"], special=True), [2, *pair["ids"], 3])


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected tokenizer\.json, vocab\.json with merges\.txt, or vocab\.txt"):
        read_tokenizer(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(DataError, match=r"there is none; spiece\.model alone is not read, tokenizer\.json is what"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="expected a description"):
        read_tokenizer(tmp_path)
    with pytest.raises(DataError, match="merges: expected pairs of tokens"):
        byte_level_bpe({"a": 0}, ["a b"])
    with pytest.raises(DataError, match="unknown: expected the number of one of 1 pieces, got 3"):
        unigram([("a", 0.0)], 3)
