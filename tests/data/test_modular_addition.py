"""All sums of a modulus, in two parts."""

import numpy as np
import pytest

from aijax.data import load_source
from aijax.errors import ConfigError

SECTION = {"source": "modular_addition", "modulus": 7, "train_size": 20}


def test_the_parts_are_all_sums_once():
    parts = [load_source(SECTION, split) for split in ("train", "test")]
    assert [len(part) for part in parts] == [20, 29] and len(parts[0].classes) == 7
    batches = [part[np.arange(len(part))] for part in parts]
    tokens, labels = (np.concatenate([batch[name] for batch in batches]) for name in ("tokens", "label"))
    assert sorted(map(tuple, tokens)) == [(a, b, 7) for a in range(7) for b in range(7)]
    np.testing.assert_array_equal(labels, tokens[:, :2].sum(1) % 7)
    other = load_source(SECTION | {"split_seed": 1}, "train")
    assert not np.array_equal(other[np.arange(20)]["tokens"], batches[0]["tokens"])


@pytest.mark.parametrize(
    ("fields", "split", "told"),
    [
        ({"modulus": 1}, "train", "config.data.modulus: expected 2 or more, got 1"),
        ({"train_size": 49}, "train", "config.data.train_size: expected 1 to 48 of the 49 pairs, got 49"),
        ({}, "validation", "config.data: all sums are of the splits 'train' and 'test', got 'validation'"),
    ],
)
def test_what_there_is_not_is_told(fields, split, told):
    with pytest.raises(ConfigError, match=told):
        load_source(SECTION | fields, split)
