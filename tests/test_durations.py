import pytest
from hypothesis import given
from hypothesis import strategies as st

from aijax.durations import UNITS, Clock, given_units, resolve, split_field
from aijax.errors import ConfigError

CLOCK = Clock(batch_size=32, examples_per_epoch=1000, total_steps=500)


@pytest.mark.parametrize(
    ("section", "steps"),
    [
        ({"warmup_steps": 7}, 7),
        ({"warmup_epochs": 2}, 62),
        ({"warmup_epochs": 0.5}, 16),
        ({"warmup_examples": 3200}, 100),
        ({"warmup_fraction": 0.1}, 50),
        ({"warmup_fraction": 0.0001}, 1),
        ({"warmup_steps": 0}, 0),
        ({"warmup_steps": None, "warmup_epochs": 1}, 31),
        ({"warmup_steps": 1e3}, 1000),
    ],
)
def test_each_unit_is_turned_into_steps(section, steps):
    assert resolve(section, "warmup", CLOCK, where="config") == steps


@given(st.integers(1, 10_000), st.integers(1, 512), st.integers(1, 10_000))
def test_units_of_the_same_length_agree(steps, batch_size, examples_per_epoch):
    clock = Clock(batch_size, examples_per_epoch, total_steps=steps * 4)
    spellings = {
        "x_steps": steps,
        "x_examples": steps * batch_size,
        "x_epochs": steps * batch_size / examples_per_epoch,
        "x_fraction": 0.25,
    }
    assert {resolve({field: value}, "x", clock, where="config") for field, value in spellings.items()} == {steps}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "config.total_steps: missing; give total as one of steps, epochs, examples, fraction"),
        ({"total_steps": 1, "total_epochs": 1}, "config.total_steps and config.total_epochs: two units"),
        ({"total_steps": 1.5}, "config.total_steps: expected a whole number of steps, got 1.5"),
        ({"total_steps": -1}, "config.total_steps: expected a number of steps, zero or more, got -1"),
        ({"total_epochs": "ten"}, "expected a number of epochs, zero or more, got 'ten'"),
        ({"total_epochs": float("inf")}, "expected a number of epochs"),
        ({"total_steps": True}, "expected a number of steps"),
        ({"total_fraction": 1.5}, "expected a fraction of the run between 0 and 1, got 1.5"),
        ({"total_fraction": 0.5}, "a fraction of what"),
    ],
)
def test_what_makes_no_sense_is_refused(section, message):
    with pytest.raises(ConfigError, match=message):
        resolve(section, "total", Clock(32, 1000), where="config")


def test_fields_are_split_into_name_and_unit():
    assert split_field("evaluate_every_epochs") == ("evaluate_every", "epochs")
    assert split_field("epochs") is None
    assert split_field("learning_rate") is None
    assert given_units({"total_epochs": 3, "total_steps": None}, "total") == {"epochs": 3}
    assert len(UNITS) == 4
