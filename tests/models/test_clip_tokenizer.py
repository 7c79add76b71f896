"""The tokenizer of CLIP against the reference's tokens, and from its files."""

import json
import subprocess
import sys

import numpy as np
import pytest

from aijax.errors import DataError
from aijax.models.clip_tokenizer import clip_tokenizer, read_clip_tokenizer, train_clip_tokenizer, write_clip_tokenizer


@pytest.fixture(scope="module")
def case(golden):
    return json.loads((golden / "vision_text" / "tokenizer" / "clip_bpe_0" / "case.json").read_text())


def write(folder, case, **config):
    (folder / "vocab.json").write_text(json.dumps(case["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(case["merges"]) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_matches_the_reference(case):
    tokenize = clip_tokenizer(case["vocab"], case["merges"], length=case["context_length"])
    rows = tokenize([pair["text"] for pair in case["pairs"]], truncate=True)
    np.testing.assert_array_equal(rows, [pair["ids_context16"] for pair in case["pairs"]])
    assert rows.dtype == np.int32


def test_texts_that_are_too_long_are_cut_only_where_asked(case):
    tokenize = clip_tokenizer(case["vocab"], case["merges"], length=6)
    with pytest.raises(DataError, match="expected at most 6 tokens, got 7 of 'a photo of a dog'"):
        tokenize(["a dog", "a photo of a dog"])
    assert tokenize("a photo of a dog", truncate=True)[0, -1] == case["vocab"]["<|endoftext|>"]


def test_files_give_the_same_tokens(case, tmp_path):
    write(tmp_path, case, model_max_length=8, pad_token={"content": "!"})
    read = read_clip_tokenizer(tmp_path)
    made = clip_tokenizer(case["vocab"], case["merges"], length=8, pad="!")
    np.testing.assert_array_equal(read(["a dog", ""]), made(["a dog", ""]))
    assert read("")[0].tolist() == [case["vocab"]["<|startoftext|>"], case["vocab"]["<|endoftext|>"], *[0] * 6]
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "tokenizer.json").write_text(made.tokenizer.description)
    np.testing.assert_array_equal(read_clip_tokenizer(tmp_path)(["a dog"]), made(["a dog"]))


def test_damaged_files_are_told(case, tmp_path):
    with pytest.raises(DataError, match=r"tokenizer.json"):
        read_clip_tokenizer(tmp_path)
    write(tmp_path, case, model_max_length="long")
    with pytest.raises(DataError, match="model_max_length"):
        read_clip_tokenizer(tmp_path)
    write(tmp_path, {"vocab": {"a": 0}, "merges": ["b c"]})
    with pytest.raises(DataError, match="merges"):
        read_clip_tokenizer(tmp_path)
    with pytest.raises(DataError, match="startoftext"):
        clip_tokenizer({"a": 0, "a</w>": 1}, [])


def test_words_that_it_learned_from_are_one_token_each(tmp_path):
    texts = [f"{article} {word} in ink" for article in ("a", "the") for word in ("nine", "three", "handwritten 9")]
    tokenize = train_clip_tokenizer(texts, length=7)
    rows = tokenize(["a nine in ink", "THE handwritten three", ""])
    start, end = 0, 1
    assert (rows == end).sum(1).tolist() == [2, 3, 6] and np.all(rows[:, 0] == start)
    assert rows.max() < tokenize.vocabulary_size < 60
    write_clip_tokenizer(tmp_path / "new", tokenize)
    np.testing.assert_array_equal(read_clip_tokenizer(tmp_path / "new")(["a nine in ink"]), rows[:1])


@pytest.mark.processes
def test_the_same_texts_give_the_same_tokenizer_in_every_process():
    script = (
        "from aijax.models.clip_tokenizer import train_clip_tokenizer as train\n"
        "texts = ['a red three at the top left', 'two blue eights, below', 'the green seven at right bottom']\n"
        "print(train(texts, size=80, length=8).tokenizer.description)"
    )
    command = [sys.executable, "-c", script]
    one, other = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert one == other
    assert [token["content"] for token in json.loads(one)["added_tokens"]] == ["<|startoftext|>", "<|endoftext|>"]
