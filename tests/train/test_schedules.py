import json

import jax
import numpy as np
import pytest

from aijax.durations import Clock
from aijax.errors import ConfigError
from aijax.train.schedules import SCHEDULES, make_schedule

CLOCK = Clock(batch_size=10, examples_per_epoch=100, total_steps=200)


def values(section, peak=1.0, clock=CLOCK):
    schedule = jax.jit(jax.vmap(make_schedule(section, peak, clock)))
    return np.asarray(schedule(np.arange(clock.total_steps + 1)))


def test_cosine_with_warm_up_agrees_with_the_reference(golden):
    folder = golden / "vision_text" / "schedule" / "cosine_warmup_1"
    about, expected = json.loads((folder / "case.json").read_text()), np.load(folder / "data.npz")["lr"]
    section = {"name": "cosine", "warmup_steps": about["warmup_steps"]}
    clock = Clock(1, 1, about["warmup_steps"] + about["decay_steps"])
    np.testing.assert_allclose(values(section, about["peak"], clock), expected, atol=1e-9)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_every_schedule_rises_to_its_peak_and_never_above(name):
    rates = values({"name": name, "warmup_epochs": 2}, peak=0.5)
    np.testing.assert_allclose(rates[:21], np.linspace(0, 0.5, 21), rtol=1e-5, atol=1e-8)
    assert (np.diff(rates[20:]) <= 1e-9).all()
    assert rates.min() >= -1e-7


def test_a_cool_down_ends_at_zero():
    rates = values({"name": "rsqrt", "timescale": 50, "cooldown_fraction": 0.25})
    np.testing.assert_allclose(rates[:150], (1 + np.arange(150) / 50) ** -0.5, rtol=1e-5)
    np.testing.assert_allclose(rates[150:], np.linspace(0.5, 0, 51), atol=1e-6)


def test_staircase_falls_at_its_fractions():
    rates = values({"name": "staircase", "at_fractions": (0.5, 0.75), "factor": 0.1})
    np.testing.assert_allclose(rates[[0, 99, 101, 149, 151, 199]], [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "cosin"}, "config.schedule.name: unknown value 'cosin'; did you mean 'cosine'"),
        ({"name": "cosine", "end": 0.1}, "config.schedule.end: unknown field"),
        ({"name": "cosine", "warmup_steps": 10, "warmup_epochs": 1}, "two units for one duration"),
        ({"name": "cosine", "warmup_steps": 150, "cooldown_steps": 60}, "do not fit in 200 steps"),
        ({"name": "cosine", "end_factor": "small"}, "config.schedule.end_factor: expected float, got 'small'"),
    ],
)
def test_a_wrong_section_is_refused_in_a_sentence(section, message):
    with pytest.raises(ConfigError, match=message):
        make_schedule(section, 1.0, CLOCK)
