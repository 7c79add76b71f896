from typing import Any, Literal

import flax.linen as nn
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aijax.binding import bind, fits
from aijax.errors import ConfigError, choose, did_you_mean


def build(width: int, rate: float = 0.1, kind: Literal["a", "b"] = "a", sizes: tuple[int, ...] = (), key: Any = None):
    return width, rate, kind, sizes, key


class Module(nn.Module):
    width: int
    bias: bool = True


def test_fields_become_arguments():
    assert bind(build, {"name": "x", "width": 3, "rate": 1}, "config.model", key="k")() == (3, 1, "a", (), "k")
    assert bind(Module, {"width": 4}, "config.model")() == Module(width=4)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"widht": 3}, "config.model.widht: unknown field; did you mean 'width'?"),
        ({}, "config.model.width: missing; build needs it"),
        ({"width": 1.5}, "config.model.width: expected int, got 1.5"),
        ({"width": True}, "config.model.width: expected int, got True"),
        ({"width": 1, "rate": "fast"}, "config.model.rate: expected float, got 'fast'"),
        ({"width": 1, "kind": "c"}, "config.model.kind: expected one of 'a', 'b', got 'c'"),
        ({"width": 1, "sizes": (1, "2")}, "config.model.sizes: expected"),
        ({"width": 1, "key": 2}, "config.model.key: unknown field"),
    ],
)
def test_a_wrong_section_is_told_in_a_sentence(section, message):
    with pytest.raises(ConfigError) as caught:
        bind(build, section, "config.model", key="given")
    assert message in str(caught.value)


@pytest.mark.parametrize("module_field", ["parent", "name"])
def test_what_linen_adds_is_no_field(module_field):
    if module_field == "parent":
        with pytest.raises(ConfigError, match="unknown field"):
            bind(Module, {"width": 4, "parent": None}, "config.model")


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(), st.tuples(st.integers())))
def test_a_value_fits_its_own_type_and_any(value):
    assert fits(value, type(value))
    assert fits(value, Any)
    assert fits(value, type(value) | None)
    assert fits(value, float) == (isinstance(value, (int, float)) and not isinstance(value, bool))


def test_near_misses_are_named_and_far_ones_listed():
    assert did_you_mean("adamv", ["adamw", "sgd"]) == "; did you mean 'adamw'?"
    assert did_you_mean("zzz", ["adamw", "sgd"]) == "; expected one of adamw, sgd"
    assert choose({"a": 1}, "a", "config.x") == 1
    with pytest.raises(ConfigError, match=r"config\.x: unknown value 3"):
        choose({"a": 1}, 3, "config.x")
