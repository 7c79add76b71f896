"""Overrides: the type of the field decides, every mistake is one sentence."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict, config_dict

from aijax.errors import ConfigError
from aijax.launch.overrides import apply, leaves
from aijax.launch.plain import freeze


def example():
    config = ConfigDict(
        {
            "seed": 0,
            "total_epochs": 60,
            "none": None,
            "flag": True,
            "model": {"depth": 4, "variant": "a", "dropout": 0.1, "widths": (8, 16), "names": ["x", "y"]},
            "optimizer": {"learning_rate": 1e-3, "betas": (0.9, 0.99), "empty": (), "nested": ((1, 2), (3, 4))},
            "schedule": {"name": "cosine", "warmup_fraction": 0.1},
        }
    )
    config.limit = config_dict.placeholder(int)
    config.needed = config_dict.required_placeholder(float)
    config.double = config.get_ref("seed") * 2
    config.model.width_of_head = config.model.get_ref("depth")
    return config


def value_after(path, text):
    config = freeze(apply(example(), [(path, text), ("needed", "1")] if path != "needed" else [(path, text)]))
    for name in path.partition("[")[0].split("."):
        config = config[name]
    return config


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("seed", "1e3", 1000),
        ("seed", "1_000", 1000),
        ("seed", "-3", -3),
        ("seed", "2.0", 2),
        ("flag", "no", False),
        ("flag", "1", True),
        ("flag", "TRUE", True),
        ("model.dropout", "0", 0.0),
        ("model.dropout", "1e-4", 1e-4),
        ("model.variant", "1e3", "1e3"),
        ("model.variant", "", ""),
        ("model.variant", "'quoted'", "'quoted'"),
        ("model.widths", "3,4,5", (3, 4, 5)),
        ("model.widths", "(3, 4)", (3, 4)),
        ("model.widths", "[3]", (3,)),
        ("model.widths", "3", (3,)),
        ("model.widths", "()", ()),
        ("model.widths[1]", "32", (8, 32)),
        ("model.names", "cat,dog", ("cat", "dog")),
        ("model.names", "[cat, dog]", ("cat", "dog")),
        ("model.names", "['a,b', 'c']", ("a,b", "c")),
        ("model.names", "1,2", ("1", "2")),
        ("model.names", "cat", ("cat",)),
        ("optimizer.betas", "1,0.5", (1.0, 0.5)),
        ("optimizer.empty", "1,'a'", (1, "a")),
        ("optimizer.nested", "((5, 6),)", ((5, 6),)),
        ("optimizer.nested[0][1]", "9", ((1, 9), (3, 4))),
        ("none", "3", 3),
        ("none", "3.5", 3.5),
        ("none", "words here", "words here"),
        ("none", "[1, (2, None)]", (1, (2, None))),
        ("none", "false", False),
        ("limit", "12", 12),
        ("needed", "0.5", 0.5),
        ("total_epochs", "0.5", 0.5),
        ("schedule.warmup_fraction", "1", 1.0),
    ],
)
def test_a_text_is_read_as_the_type_of_its_field(path, text, value):
    got = value_after(path, text)
    assert got == value and repr(got) == repr(value)


@pytest.mark.parametrize("path", ["seed", "flag", "model.variant", "model.widths", "model.dropout", "limit", "none"])
def test_none_fits_every_field(path):
    config = example()
    config.double = 0
    apply(config, [(path, "None"), ("needed", "1")])
    for name in path.split("."):
        config = config[name]
    assert config is None


@pytest.mark.parametrize(
    ("path", "text", "sentence"),
    [
        ("seed", "1.5", "config.seed: expected an int, got '1.5'"),
        ("seed", "true", "config.seed: expected an int, got 'true'"),
        ("seed", "1e999999999", "expected an int"),
        ("seed", "", "config.seed: expected an int, got ''"),
        ("flag", "maybe", "config.flag: expected true or false, got 'maybe'"),
        ("model.dropout", "a", "config.model.dropout: expected a number, got 'a'"),
        ("model.dropout", "nan", "config.model.dropout: expected a finite number, got 'nan'"),
        ("model.dropout", "-inf", "expected a finite number"),
        ("model.dropout", "1e999", "expected a finite number"),
        ("none", "1e999", "config.none: expected a finite number"),
        ("none", "{'a': 1}", "config.none: expected None, bool, int, float, str, list or tuple"),
        ("model.widths", "a,b", "config.model.widths: expected a tuple, such as 1,2, got 'a,b'"),
        ("model.widths", "1,2.5", "config.model.widths[1]: expected an int, got 2.5"),
        ("model.widths", "", "config.model.widths: expected a tuple"),
        ("optimizer.betas", "0.9,'x'", "config.optimizer.betas[1]: expected a number, got 'x'"),
        ("optimizer.nested", "(1, 2)", "config.optimizer.nested[0]: expected"),
        ("model.widths[2]", "1", "config.model.widths[2]: no such item; config.model.widths has 2 items"),
        ("model.widths[-1]", "1", "malformed index"),
        ("model.widths[0", "1", "malformed index"),
        ("seed[0]", "1", "config.seed is an int, which has no items"),
        ("limit", "x", "config.limit: expected an int"),
        ("model.varient", "b", "config.model.varient: unknown field; did you mean 'variant'?"),
        ("modle.variant", "b", "config.modle: unknown field; did you mean 'config.model.variant'?"),
        ("depth", "3", "config.depth: unknown field; did you mean 'config.model.depth'?"),
        ("lr", "3", "config.lr: unknown field; did you mean 'config.optimizer.learning_rate'?"),
        ("optimizer.lr", "3", "config.optimizer.lr: unknown field; did you mean 'config.optimizer.learning_rate'?"),
        ("learning_rat", "3", "did you mean 'config.optimizer.learning_rate'?"),
        ("model", "vit", "config.model: a section cannot be set whole; set one of its fields: depth"),
        ("seed.x", "1", "config.seed: an int, not a section; it has no field 'x'"),
        ("model..depth", "1", "config.model..depth: an empty field name"),
        ("model.", "1", "an empty field name"),
        ("total_hours", "1", "config.total_hours: unknown field"),
    ],
)
def test_a_mistake_is_one_sentence(path, text, sentence):
    with pytest.raises(ConfigError) as caught:
        apply(example(), [(path, text)])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_references_follow_the_field_that_they_refer_to():
    config = freeze(apply(example(), [("seed", "7"), ("model.depth", "9"), ("needed", "1")]))
    assert config.double == 14
    assert config.model.width_of_head == 9


def test_a_duration_in_another_unit_replaces_the_units_of_the_config():
    config = apply(example(), [("total_steps", "100"), ("schedule.warmup_examples", "1e4")])
    assert (config.total_steps, config.total_epochs) == (100, None)
    assert (config.schedule.warmup_examples, config.schedule.warmup_fraction) == (10_000, None)


def test_two_units_for_one_duration_are_refused_unless_one_is_none():
    with pytest.raises(ConfigError, match=r"config\.total_steps and config.total_epochs: two units for one duration"):
        apply(example(), [("total_steps", "100"), ("total_epochs", "2")])
    config = apply(example(), [("total_steps", "100"), ("total_epochs", "None")])
    assert (config.total_steps, config.total_epochs) == (100, None)
    with pytest.raises(ConfigError, match=r"config\.total_steps: expected an int"):
        apply(example(), [("total_steps", "1.5")])


def test_one_field_has_one_value():
    assert apply(example(), [("seed", "1"), ("seed", "1")]).seed == 1
    with pytest.raises(ConfigError, match=r"config\.seed: set twice, to '1' and to '2'"):
        apply(example(), [("seed", "1"), ("seed", "2")])
    with pytest.raises(ConfigError, match=r"config\.model\.widths: set whole and by item"):
        apply(example(), [("model.widths", "1,2"), ("model.widths[0]", "3")])


def test_a_locked_config_takes_overrides():
    config = ConfigDict({"total_epochs": 3, "model": {"depth": 1}}).lock()
    config = apply(config, [("total_steps", "5"), ("model.depth", "2")])
    assert config.to_dict() == {"total_epochs": None, "total_steps": 5, "model": {"depth": 2}}


SCALARS = {
    int: st.integers(-(10**12), 10**12),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    str: st.text(max_size=12).filter(lambda text: text != "None"),
}
OLD = {int: 1, float: 0.5, bool: False, str: "word"}


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(list(SCALARS)).flatmap(lambda kind: st.tuples(st.just(kind), SCALARS[kind])))
def test_every_scalar_round_trips_through_its_text(case):
    kind, value = case
    got = apply(ConfigDict({"field": OLD[kind]}), [("field", str(value))]).field
    assert type(got) is kind and got == value


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(list(SCALARS)).flatmap(lambda kind: st.tuples(st.just(kind), st.lists(SCALARS[kind], max_size=4))),
    st.sampled_from([tuple, list]),
)
def test_every_list_and_tuple_round_trips_through_its_text(case, container):
    kind, items = case
    old, value = container([OLD[kind]]), container(items)
    got = apply(ConfigDict({"field": old}), [("field", repr(value))]).field
    assert type(got) is container and got == value and all(type(item) is kind for item in got)


PLAIN = st.recursive(
    st.none() | st.booleans() | SCALARS[int] | SCALARS[float] | SCALARS[str],
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(PLAIN)
def test_a_field_that_is_none_takes_every_literal(value):
    assert apply(ConfigDict({"field": None}), [("field", repr(value))]).field == value


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20), st.text(max_size=8))
def test_an_unknown_path_is_always_a_config_error(path, text):
    config = example()
    known = {*leaves(config), *(f"total_{unit}" for unit in ("steps", "examples", "fraction"))}
    known |= {f"schedule.warmup_{unit}" for unit in ("steps", "examples", "epochs")}
    if path.partition("[")[0] in known:
        return
    with pytest.raises(ConfigError) as caught:
        apply(config, [(path, text)])
    assert str(caught.value).startswith("config.")


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(leaves(example()))), st.text(max_size=12) | st.sampled_from(["(", "1,", "[[", "9" * 5000])
)
def test_any_text_is_taken_or_refused_in_a_sentence(path, text):
    try:
        config = apply(example(), [(path, text)])
    except ConfigError as error:
        assert str(error).startswith(f"config.{path}")
    else:
        assert set(leaves(config)) >= set(leaves(example()))
        assert math.isfinite(config.model.dropout or 0)
