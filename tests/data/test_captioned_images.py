"""Images with captions of their own: tables, tar files, tokenizers, and what is wrong with them."""

import io
import json
import tarfile

import numpy as np
import pytest

from aijax.data.captioned_images import captioned_images
from aijax.data.captions import learn_captions, read_captions
from aijax.data.load import load_source
from aijax.data.pipeline import stream
from aijax.data.tokenizer import load_tokenizer, save_tokenizer
from aijax.errors import ConfigError, DataError
from aijax.models.tokenizer import byte_level_bpe, word_pieces, write_tokenizer

TEXTS = ("a red square", "two blue dots", "a line", "a red line", "dots")


@pytest.fixture
def picture(encode):
    """`picture(i)`: the file of an image whose pixels are all i."""
    return lambda i: encode(np.full((6, 8, 3), i, np.uint8))


@pytest.fixture
def table(tmp_path, picture):
    """A folder of five images, the second of which has two captions."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rows = []
    for i, text in enumerate(TEXTS):
        name = f"more/{i}.png" if i % 2 else f"{i}.png"
        (folder / name).write_bytes(picture(i))
        rows.append({"file_name": name, "text": [text, "blue dots"] if i == 1 else text})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def shards(tmp_path, picture):
    """The same in two tar files, one caption an image."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for i in range(shard, 5, 2):
                text = TEXTS[i].encode()
                caption = ("txt", text) if shard else ("json", json.dumps({"text": TEXTS[i]}).encode())
                for ending, content in (("png", picture(i)), caption, ("cls", b"7")):
                    member = tarfile.TarInfo(f"{i}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return folder


def texts_of(source, indices):
    rows = source[np.asarray(indices)]["tokens"]
    return [[source.tokenizer.decode(row) for row in rows_of_one] for rows_of_one in rows]


def test_a_table_gives_images_and_all_their_captions(table):
    source = load_source({"source": "captioned_images", "path": str(table), "size": 4, "length": 8}, "train")
    assert (len(source), source.classes, source.labels) == (5, None, None) and source.read_threads >= 1
    batch = source[np.array([3, 1])]
    assert batch["image"].shape == (2, 4, 4, 3) and batch["image"][:, 0, 0, 0].tolist() == [3, 1]
    assert batch["tokens"].shape == (2, *source.spec["tokens"].shape) == (2, 2, 8) and batch["tokens"].dtype == np.int32
    assert texts_of(source, [3, 1]) == [["a red line"] * 2, ["two blue dots", "blue dots"]]
    rows = "file_name,text\n" + "".join(f"{i}.png,{TEXTS[i]}\n" for i in (0, 2, 0))
    (table / "metadata.jsonl").rename(table / "captions.txt")
    (table / "metadata.csv").write_text(rows)
    source = captioned_images("train", path=str(table), size=4, length=8)
    assert texts_of(source, [0, 1]) == [["a red square"] * 2, ["a line"] * 2]


def test_tar_files_are_read_in_place_and_shared_by_processes(shards):
    source = captioned_images("train", path=str(shards), size=4, length=8)
    assert texts_of(source, range(5)) == [[TEXTS[i]] for i in (0, 2, 4, 1, 3)]
    assert source[np.arange(5)]["image"][:, 0, 0, 0].tolist() == [0, 2, 4, 1, 3]
    whole = stream(source, 4, seed=0)
    halves = [stream(source, 4, seed=0, process_index=p, process_count=2)[7]["image"] for p in range(2)]
    np.testing.assert_array_equal(np.concatenate(halves), whole[7]["image"])
    test = captioned_images("test", path=str(shards), size=4, length=8, test_fraction=0.4)
    assert len(test) == 2 and test.source.tokenizer == source.tokenizer


def test_a_longer_caption_keeps_its_end():
    tokenizer = learn_captions(TEXTS, 100, 4)
    row = tokenizer.rows(["two blue dots a line"], 4)[0]
    assert (row[0], row[-1], tokenizer.end) == (0, 1, 1)
    assert tokenizer.decode(row) == "two blue"


def test_a_tokenizer_is_found_again_and_published_ones_are_read(tmp_path):
    tokenizer = learn_captions(TEXTS, 100, 6)
    save_tokenizer(tokenizer, tmp_path)
    assert load_tokenizer(tmp_path) == tokenizer
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "red": 4, "dot": 5, "##s": 6}
    write_tokenizer(tmp_path / "bert", word_pieces(vocabulary))
    (tmp_path / "bert" / "tokenizer_config.json").write_text('{"pad_token": "[PAD]"}')
    read = read_captions(tmp_path / "bert", 6)
    assert (read.end, read.of_rows.pad) == (3, 0)
    assert read.rows(["Red dots", "red dots dots dots"], 6).tolist() == [[2, 4, 5, 6, 3, 0], [2, 4, 5, 6, 5, 3]]
    clip = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "r": 3, "e": 4, "d</w>": 5, "re": 6}
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(clip))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    assert read_captions(folder, 6).rows(["A red"], 6).tolist() == [[0, 2, 6, 5, 1, 1]]
    write_tokenizer(tmp_path / "bare", byte_level_bpe({"a": 0}, []))
    with pytest.raises(DataError, match=r"bare: the tokenizer puts no token after a text"):
        read_captions(tmp_path / "bare", 6)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"size": 0}, ConfigError, r"config.data.size: expected pixels, 1 or more, got 0"),
        ({"length": 2}, ConfigError, r"config.data.length: expected 3 or more, got 2"),
        ({"vocabulary_size": 2}, ConfigError, r"config.data.vocabulary_size: expected 3 or more, got 2"),
        ({"test_path": "x", "test_fraction": 0.1}, ConfigError, r"test_fraction: 0.1, but test_path is given"),
        ({"tokenizer": "none"}, DataError, r"config.data.tokenizer: there is no folder 'none'"),
        ({"text_field": "words"}, DataError, r"metadata.jsonl, line 1: words: expected a caption, got None"),
        ({"file_field": "file"}, DataError, r"metadata.jsonl, line 1: file: expected an image in the folder, got None"),
    ],
)
def test_wrong_options_are_told(table, change, error, said):
    with pytest.raises(error, match=said):
        captioned_images("train", **{"path": str(table), "size": 4, **change})


def test_wrong_files_are_told(table, shards):
    def read(folder):
        source = captioned_images("train", path=str(folder), size=4)
        return source[np.arange(len(source))]

    (table / "captions.csv").write_text("")
    with pytest.raises(DataError, match=r"photos: expected one of .* or tar files, got metadata.jsonl, captions.csv"):
        read(table)
    (table / "captions.csv").unlink()
    (table / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"photos.2.png: not a readable image"):
        read(table)
    (table / "2.png").unlink()
    with pytest.raises(DataError, match=r"line 3: file_name: expected an image in the folder, got '2.png'"):
        read(table)
    (table / "metadata.jsonl").write_text("[]\n")
    with pytest.raises(DataError, match=r"line 1: expected a JSON object, got list"):
        read(table)
    (table / "metadata.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"line 1: not JSON"):
        read(table)
    (table / "metadata.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=r"metadata.jsonl: not a readable table in UTF-8"):
        read(table)
    (table / "metadata.jsonl").write_text("")
    with pytest.raises(DataError, match=r"has no images with captions"):
        read(table)
    whole = (shards / "00000.tar").read_bytes()
    (shards / "00000.tar").write_bytes(whole[:700])
    with pytest.raises(DataError, match=r"00000.tar: not a readable tar file"):
        read(shards)
    (shards / "00000.tar").write_bytes(whole.replace(b"0.json", b"9.json"))
    with pytest.raises(DataError, match=r"00000.tar"):
        read(shards)
