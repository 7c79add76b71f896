import subprocess
import sys

import numpy as np
import pytest

from aijax.data import load_source
from aijax.data.described import Described, describe
from aijax.data.load import LOADERS, bind_source
from aijax.errors import ConfigError, DataError


def test_every_source_has_its_loader():
    required = {"path": "p", "images": "i", "labels": "l", "size": 8, "dataset": "d"}
    for name in LOADERS:
        section = {"source": name}
        for _ in range(4):
            try:
                bind_source(section, split="train")
                break
            except ConfigError as error:
                field = str(error).removeprefix("config.data.").split(":")[0]
                section[field] = required[field]


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({}, "config.data.source: missing; expected one of digits, captioned_digits"),
        ({"source": "digit"}, "config.data.source: unknown value 'digit'; did you mean 'digits'"),
        (
            {"source": "digits", "test_fractoin": 0.1},
            "config.data.test_fractoin: unknown field; did you mean 'test_frac",
        ),
        ({"source": "digits", "split_seed": "a"}, "config.data.split_seed: expected int, got 'a'"),
        (
            {"source": "text", "tokenizer": "bep"},
            "config.data.tokenizer: expected one of 'characters', 'bpe', got 'bep'",
        ),
        ({"source": "iris", "table": "wine"}, "config.data.table: unknown field"),
    ],
)
def test_refusals(section, sentence):
    with pytest.raises(ConfigError) as error:
        load_source(section, "train")
    assert str(error.value).startswith(sentence)


def test_where_is_the_section_in_messages():
    with pytest.raises(ConfigError, match=r"config.pretrain.data.validation_fraction: is 0"):
        load_source({"source": "digits"}, "validation", where="config.pretrain.data")


def test_described_has_the_shape_but_not_the_records():
    source = load_source({"source": "digits"}, "test")
    described = Described(describe(source))
    assert len(described) == 360 and described.spec == source.spec and described.classes == source.classes
    with pytest.raises(DataError, match=r"only a description"):
        described[np.arange(2)]


def test_importing_and_reading_digits_is_light():
    code = (
        "import sys, aijax.data; from aijax.data import load_source; load_source({'source': 'digits'}, 'train');"
        "heavy = {'sklearn', 'PIL', 'tokenizers', 'datasets', 'grain', 'jax', 'pandas'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
