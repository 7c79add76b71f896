"""Random sequences in which a segment comes twice."""

import numpy as np
import pytest

from aijax.data import load_source
from aijax.errors import ConfigError

SECTION = {"source": "repeated_segments", "size": 200, "held_out_size": 50}


def test_one_segment_comes_twice_at_no_fixed_distance():
    source = load_source(SECTION, "train")
    tokens = source[np.arange(len(source))]["tokens"]
    assert tokens.shape == (200, 37) and tokens.dtype == np.int32 and not tokens[:, 0].any()
    found = []
    for row in tokens[:, 1:]:
        earlier = {token: place for place, token in reversed(list(enumerate(row)))}
        again = [place for place, token in enumerate(row) if earlier[token] != place]
        first = [earlier[row[place]] for place in again]
        assert np.array_equal(np.diff(again), np.ones(len(again) - 1)) and np.array_equal(
            np.diff(first), np.diff(again)
        )
        assert again[0] >= first[0] + len(again) and len(set(row)) == 36 - len(again)
        found.append((len(again), again[0] - first[0] - len(again)))
    lengths, gaps = np.array(found).T
    assert (lengths.min(), lengths.max()) == (6, 12) and gaps.min() == 0 and len(set(gaps)) > 10


def test_splits_are_drawn_apart_and_again_the_same():
    parts = {split: load_source(SECTION, split)[np.arange(50)]["tokens"] for split in ("train", "validation", "test")}
    assert len(load_source(SECTION, "test")) == 50
    assert not np.array_equal(parts["train"], parts["test"]) and not np.array_equal(parts["validation"], parts["test"])
    np.testing.assert_array_equal(load_source(SECTION, "test")[np.arange(50)]["tokens"], parts["test"])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"vocabulary": 36}, "config.data.vocabulary: expected 37 or more, as many as places, got 36"),
        ({"shortest": 13}, "config.data.shortest: expected 2 to longest 12, got 13"),
        ({"longest": 19}, "config.data.longest: expected at most 18 to fit twice, got 19"),
        ({"size": 0}, "config.data.size: expected 1 or more, got 0"),
    ],
)
def test_what_cannot_be_is_told(fields, told):
    with pytest.raises(ConfigError, match=told):
        load_source(SECTION | fields, "train")
