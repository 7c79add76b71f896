"""Images with captions of their own: a folder with a table of captions, or tar files of the WebDataset kind.

    photos/metadata.jsonl     {"file_name": "a/1.jpg", "text": "two dogs"}         a caption, or a list of them
    photos/metadata.csv       file_name,text                                       an image may have several rows
    photos/00000.tar ...      1.jpg with 1.txt, or with 1.json that has "text"

The images of a folder are where its table says. Tar files are not unpacked: their headers are read once, then an image
is read from its place when a batch asks for it. So any record can be had at any time: batches are drawn over all
shards, each process reads its own rows only, and a run goes on where it stopped.
"""

import csv
import dataclasses
import functools
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aijax.data.captions import Captions, learn_captions, read_captions
from aijax.data.files import existing
from aijax.data.image_folder import ENDINGS
from aijax.data.images import decode_image, height_and_width
from aijax.data.parts import check_split, named_split
from aijax.data.source import Source, shape_of
from aijax.errors import ConfigError, DataError

TABLES = ("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.csv")


def captioned_images(
    split: str,
    field: str = "config.data",
    *,
    path: str,
    size: int | tuple[int, int],
    test_path: str | None = None,
    tokenizer: str | None = None,
    vocabulary_size: int = 32_000,
    length: int = 64,
    file_field: str = "file_name",
    text_field: str = "text",
    mode: Literal["RGB", "L"] = "RGB",
    validation_fraction: float = 0.0,
    test_fraction: float = 0.0,
    split_seed: int = 0,
) -> Source:
    """Returns a split of images with captions: uint8 `[h, w, c]`, and int32 tokens `[captions, length]`.

    Args:
      split: "train", "validation" or "test".
      field: the config section, for messages.
      path: the folder, with one of `TABLES` or with tar files.
      size: height and width in pixels that every image is brought to (scaled to cover, then cut to the centre).
      test_path: a folder of the same kind to test on; without it `test_fraction` of the first is held out.
      tokenizer: the folder of a published tokenizer; None learns one of CLIP's kind from the captions at `path`.
      vocabulary_size: most tokens of one that is learned.
      length: tokens of a caption; of a longer one the end is cut off.
      file_field, text_field: names in tables and in the JSON of tar files.
      mode: "RGB" or "L" (grey).
      validation_fraction, test_fraction: of the first folder.
      split_seed: of the shuffle that splits.

    An image with fewer captions than another has them again, until each has as many rows.

    Raises:
      DataError: a missing folder, table or image, an image without a caption, a damaged tar file, or an image that
        cannot be decoded (when it is read).
      ConfigError: a size or length that is not positive, `test_path` and `test_fraction` together.
    """
    check_split(split, field)
    size = height_and_width(size, f"{field}.size")
    if length < 3:
        raise ConfigError(f"{field}.length: expected 3 or more, got {length}")
    if test_path is not None and test_fraction:
        raise ConfigError(f"{field}.test_fraction: {test_fraction}, but test_path is given; keep one of them")
    folder = existing(path, f"{field}.path", folder=True)
    found = find_pairs(folder, file_field, text_field)
    if tokenizer is None:
        texts = [text for _, captions in found for text in captions]
        told = learn_captions(texts, vocabulary_size, length, f"{field}.vocabulary_size")
    else:
        told = read_captions(existing(tokenizer, f"{field}.tokenizer", folder=True), length)
    if split == "test" and test_path is not None:
        other = existing(test_path, f"{field}.test_path", folder=True)
        return CaptionedSource(*zip(*find_pairs(other, file_field, text_field), strict=True), told, size, mode)
    source = CaptionedSource(*zip(*found, strict=True), told, size, mode)
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return named_split(source, split, field, seed=split_seed, **fractions)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the bytes of an image are: a file, or a part of one."""

    file: Path
    name: str
    start: int = 0
    count: int = -1

    def read(self) -> bytes:
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(self.count)


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionedSource:
    """Places of images and the captions of each; both become arrays when they are asked for."""

    places: tuple[Place, ...]
    captions: tuple[tuple[str, ...], ...]
    tokenizer: Captions
    size: tuple[int, int]
    mode: str
    classes: None = None
    labels: None = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        places = [self.places[index] for index in indices]
        images = [decode_image(place.read(), place.name, self.mode, self.size) for place in places]
        texts = [(own * self.rows)[: self.rows] for own in (self.captions[index] for index in indices)]
        tokens = self.tokenizer.rows([text for own in texts for text in own], self.tokenizer.length)
        return {"image": np.stack(images), "tokens": tokens.reshape(len(images), self.rows, -1)}

    @functools.cached_property
    def rows(self) -> int:
        """The most captions that an image has."""
        return max(map(len, self.captions))

    @property
    def spec(self) -> dict[str, Any]:
        image = shape_of((*self.size, 1 if self.mode == "L" else 3), np.uint8)
        return {"image": image, "tokens": shape_of((self.rows, self.tokenizer.length), np.int32)}

    @property
    def read_threads(self) -> int:
        return min(8, os.cpu_count() or 1)


def find_pairs(folder: Path, file_field: str, text_field: str) -> list[tuple[Place, tuple[str, ...]]]:
    """Returns where each image of a folder is, with its captions, in the order of the table or of the tar files."""
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    shards = sorted(folder.glob("*.tar"))
    if len(tables) + bool(shards) != 1:
        there = ", ".join([*(table.name for table in tables), *(["tar files"] if shards else [])]) or "none of them"
        raise DataError(f"{folder}: expected one of {', '.join(TABLES)} or tar files, got {there}")
    if tables:
        captions: dict[Place, tuple[str, ...]] = {}
        for where, row in read_table(tables[0]):
            name = row.get(file_field)
            if not isinstance(name, str) or not (folder / name).is_file():
                raise DataError(f"{where}: {file_field}: expected an image in the folder, got {name!r}")
            place = Place(folder / name, str(folder / name))
            captions[place] = captions.get(place, ()) + as_captions(row.get(text_field), f"{where}: {text_field}")
        found = list(captions.items())
    else:
        found = [pair for shard in shards for pair in read_shard(shard, text_field)]
    if not found:
        raise DataError(f"{tables[0] if tables else folder}: has no images with captions")
    return found


def read_table(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the place of each row of a table, for messages, and its fields."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            if table.suffix == ".csv":
                rows = csv.DictReader(file)
                yield from ((f"{table}, line {rows.line_num}", row) for row in rows)
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{table}, line {number}", parse(line, f"{table}, line {number}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: not a readable table in UTF-8: {error}") from error


def read_shard(shard: Path, text_field: str) -> list[tuple[Place, tuple[str, ...]]]:
    """Returns the images of a tar file with their captions; files that belong together differ in their endings only."""
    places, captions = {}, {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                key, dot, ending = member.name.rpartition("/")[2].partition(".")
                key, where = f"{member.name.rpartition('/')[0]}/{key}", f"{shard}: {member.name}"
                if not member.isfile() or not key:
                    continue
                if dot + ending.lower() in ENDINGS:
                    places[key] = Place(shard, where, member.offset_data, member.size)
                elif ending in ("txt", "json"):
                    text = archive.extractfile(member).read().decode("utf-8", errors="strict")
                    told = parse(text, where).get(text_field) if ending == "json" else text
                    if ending == "txt" or (told is not None and key not in captions):
                        captions[key] = as_captions(told, where)
    except (tarfile.TarError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{shard}: not a readable tar file of images and captions: {error}") from error
    if places and max(place.start + place.count for place in places.values()) > shard.stat().st_size:
        raise DataError(f"{shard}: not a readable tar file of images and captions: it is cut short")
    for key, place in places.items():
        if key not in captions:
            raise DataError(f"{place.name}: expected its caption in a file .txt or .json ({text_field!r}), got none")
    return [(place, captions[key]) for key, place in places.items()]


def parse(text: str, where: str) -> dict[str, Any]:
    """Returns the JSON object in a text."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(content).__name__}")
    return content


def as_captions(value: Any, where: str) -> tuple[str, ...]:
    """Returns one caption or several as a tuple of them, none of which is empty."""
    captions = tuple(value) if isinstance(value, list) else (value,)
    if not captions or not all(isinstance(text, str) and text.strip() for text in captions):
        raise DataError(f"{where}: expected a caption, got {value!r}")
    return tuple(text.strip() for text in captions)
