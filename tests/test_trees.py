import jax
import jax.numpy as jnp
import pytest

from aijax.errors import ConfigError
from aijax.trees import count_bytes, count_parameters, map_named, match_rules, named_leaves

TREE = {"block_0": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}, "head": [jnp.zeros(4, jnp.bfloat16)]}


def test_leaves_have_names():
    assert list(named_leaves(TREE)) == ["block_0/bias", "block_0/kernel", "head/0"]
    assert map_named(lambda name, leaf: name, TREE)["head"] == ["head/0"]


def test_the_first_rule_that_matches_the_whole_path_wins():
    rules = ((".*/bias", 0), ("block_0/.*", 1))
    assert match_rules(rules, TREE, default=lambda name, leaf: leaf.ndim, where="x") == {
        "block_0": {"kernel": 1, "bias": 0},
        "head": [1],
    }
    with pytest.raises(ConfigError, match="x: no pattern matches the parameter 'head/0'"):
        match_rules(rules, TREE, default=None, where="x")


def test_counts_of_arrays_and_of_shapes_agree():
    shapes = jax.eval_shape(lambda: TREE)
    assert count_parameters(TREE) == count_parameters(shapes) == 13
    assert count_bytes(TREE) == count_bytes(shapes) == 9 * 4 + 4 * 2
