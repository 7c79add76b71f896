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


def reference_section(kind, about):
    """Returns a config section for a published schedule, with its peak and its number of steps."""
    peak, given, steps = about["base_lr"], about["params"], 50
    if kind == "multistep":
        return {"name": kind, "at_steps": tuple(given["milestones"]), "factor": given["gamma"]}, peak, steps
    if kind == "poly":
        return {"name": "polynomial", "power": given["power"]}, peak, given["total_iters"]
    if kind == "cosine_restarts":
        cycle = {"first_cycle": given["T_0"], "cycle_factor": float(given["T_mult"])}
        return {"name": kind, **cycle, "end_factor": given["eta_min"] / peak}, peak, steps
    start = 1 / given["div_factor"]
    shape = {"cos": "cosine", "linear": "linear"}[given["anneal_strategy"]]
    factors = {
        "rise_fraction": given["pct_start"],
        "start_factor": start,
        "end_factor": start / given["final_div_factor"],
    }
    return {"name": "one_cycle", "shape": shape, **factors}, given["max_lr"], given["total_steps"]


@pytest.mark.parametrize("case", ["cosine_restarts_0", "multistep_0", "onecycle_1", "poly_0"])
def test_schedules_agree_with_the_reference(golden, case):
    folder = golden / "vision_text" / "schedule" / case
    about, expected = json.loads((folder / "case.json").read_text()), np.load(folder / "data.npz")["lr"]
    section, peak, steps = reference_section(case.rsplit("_", 1)[0], about)
    with jax.enable_x64(True):
        schedule = make_schedule(section, peak, Clock(1, 1, steps))
        got = jax.jit(jax.vmap(schedule))(np.arange(len(expected)))
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_a_warm_up_may_begin_above_zero():
    rates = values({"name": "cosine", "warmup_from": 0.1, "warmup_steps": 20}, peak=2.0)
    np.testing.assert_allclose(rates[:21], np.linspace(0.2, 2.0, 21), rtol=1e-5)


NEEDED = {
    "multistep": {"at_steps": (50, 120)},
    "cosine_restarts": {"first_cycle": 180},
    "one_cycle": {"rise_fraction": 0.01},
}


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_every_schedule_rises_to_its_peak_and_never_above(name):
    rates = values({"name": name, "warmup_epochs": 2, **NEEDED.get(name, {})}, peak=0.5)
    np.testing.assert_allclose(rates[:20], np.linspace(0, 0.5, 21)[:20], rtol=1e-5, atol=1e-8)
    assert (np.diff(rates[22:200]) <= 1e-9).all()
    assert rates.min() >= -1e-7 and rates.max() <= 0.5 + 1e-7


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
        ({"name": "cosine", "warmup_from": 2}, "config.schedule.warmup_from: expected a share of the peak from 0 to 1"),
        ({"name": "multistep"}, "config.schedule.at_steps: missing"),
        ({"name": "one_cycle", "rise_fraction": 1.0}, "leaves no rise or no fall"),
        ({"name": "cosine_restarts", "first_cycle": 10, "cycle_factor": 0.5}, "shrink"),
        ({"name": "cosine", "end_factor": "small"}, "config.schedule.end_factor: expected float, got 'small'"),
    ],
)
def test_a_wrong_section_is_refused_in_a_sentence(section, message):
    with pytest.raises(ConfigError, match=message):
        make_schedule(section, 1.0, CLOCK)
