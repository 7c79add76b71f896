"""Learning-rate schedules by name: a linear warm-up and what follows it, from a config section.

Each schedule is a function of the step t, `schedule(t) -> learning rate`, most of them optax's. With the run's steps T
after the warm-up and the peak rate p:

    cosine           p (e + (1 - e) (1 + cos(pi t / T)) / 2)                  (Loshchilov and Hutter 2017)
    cosine_restarts  the same over cycles of c, c k, c k^2, ... steps
    polynomial       p (e + (1 - e) (1 - t / T)^n)
    one_cycle        a rise from s p to p and a fall to e p, each half a cosine or a line  (Smith and Topin 2018)
"""

import itertools
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import optax

from aijax import durations
from aijax.binding import bind
from aijax.errors import ConfigError, choose


def constant(peak: float, steps: int) -> optax.Schedule:
    """The peak rate throughout."""
    return optax.constant_schedule(peak)


def cosine(peak: float, steps: int, *, end_factor: float = 0.0) -> optax.Schedule:
    """Half a cosine from the peak to `end_factor` times it (Loshchilov and Hutter 2017, without restarts)."""
    return optax.cosine_decay_schedule(peak, steps, alpha=end_factor)


def linear(peak: float, steps: int, *, end_factor: float = 0.0) -> optax.Schedule:
    """A line from the peak to `end_factor` times it."""
    return optax.linear_schedule(peak, peak * end_factor, steps)


def rsqrt(peak: float, steps: int, *, timescale: int = 10_000) -> optax.Schedule:
    """`peak / sqrt(1 + step / timescale)` (Zhai et al. 2022, section 3.5)."""
    return lambda step: peak / (1 + step / timescale) ** 0.5


def exponential(peak: float, steps: int, *, end_factor: float = 0.01) -> optax.Schedule:
    """Geometric decay from the peak to `end_factor` times it."""
    return optax.exponential_decay(peak, steps, end_factor)


def staircase(
    peak: float, steps: int, *, at_fractions: tuple[float, ...] = (0.5, 0.75), factor: float = 0.1
) -> optax.Schedule:
    """The peak, multiplied by `factor` at each of the given fractions of the run."""
    return optax.piecewise_constant_schedule(peak, {round(at * steps): factor for at in at_fractions})


def multistep(peak: float, steps: int, *, at_steps: tuple[int, ...], factor: float = 0.1) -> optax.Schedule:
    """The peak, multiplied by `factor` from each of the given steps after the warm-up on."""
    return optax.piecewise_constant_schedule(peak, dict.fromkeys(at_steps, factor))


def polynomial(peak: float, steps: int, *, power: float = 1.0, end_factor: float = 0.0) -> optax.Schedule:
    """From the peak to `end_factor` times it, the distance left falling as `(1 - t / T)^power`."""
    return optax.polynomial_schedule(peak, peak * end_factor, power, steps)


def cosine_restarts(
    peak: float, steps: int, *, first_cycle: int, cycle_factor: float = 1.0, end_factor: float = 0.0
) -> optax.Schedule:
    """Half a cosine from the peak to `end_factor` times it, again and again: the first over `first_cycle` steps, each
    further one over `cycle_factor` (1 or more) times those of the one before (Loshchilov and Hutter 2017, section 3).
    """
    if first_cycle < 1 or cycle_factor < 1:
        raise ConfigError(f"cosine_restarts: cycles of {first_cycle} steps, each {cycle_factor} times the last, shrink")
    starts = [0]
    while starts[-1] < steps:
        starts.append(starts[-1] + round(first_cycle * cycle_factor ** (len(starts) - 1)))
    cycles = [cosine(peak, stop - start, end_factor=end_factor) for start, stop in itertools.pairwise(starts)]
    return optax.join_schedules(cycles, starts[1:-1])


def one_cycle(
    peak: float,
    steps: int,
    *,
    rise_fraction: float = 0.3,
    start_factor: float = 1 / 25,
    end_factor: float = 4e-6,
    shape: Literal["cosine", "linear"] = "cosine",
) -> optax.Schedule:
    """A rise from `start_factor` times the peak to the peak at `rise_fraction` of the run, and a fall to `end_factor`
    times the peak at its last step (Smith and Topin 2018); `shape` is that of both."""
    top, last = rise_fraction * steps - 1, steps - 1
    if not 0 < top < last:
        raise ConfigError(f"rise_fraction: {rise_fraction} of {steps} steps leaves no rise or no fall")
    bends = {"cosine": lambda t: (1 - jnp.cos(jnp.pi * t)) / 2, "linear": lambda t: t}
    bend = choose(bends, shape, "shape")

    def schedule(step):
        rise = start_factor + (1 - start_factor) * bend(jnp.clip(step / top, 0, 1))
        fall = 1 + (end_factor - 1) * bend(jnp.clip((step - top) / (last - top), 0, 1))
        return peak * jnp.where(step <= top, rise, fall)

    return schedule


SCHEDULES = {
    "constant": constant,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "exponential": exponential,
    "linear": linear,
    "multistep": multistep,
    "one_cycle": one_cycle,
    "polynomial": polynomial,
    "rsqrt": rsqrt,
    "staircase": staircase,
}


def make_schedule(
    section: Mapping[str, Any], peak: float, clock: durations.Clock, *, where: str = "config.schedule"
) -> optax.Schedule:
    """Returns the schedule that a config section describes.

    Args:
      section: `name` (one of `SCHEDULES`, default "constant"), `warmup_*` and `cooldown_*` as durations in any unit
        (default none; the cool-down is a line to zero at the end), `warmup_from`, the share of the peak at which the
        warm-up begins (default 0), and the named schedule's own fields.
      peak: the learning rate after the warm-up.
      clock: the run's clock, its total known.
      where: the section's place in the config, for messages.

    Raises:
      ConfigError: an unknown name or field, or a warm-up and cool-down longer than the run.
    """
    ends = {name: durations.resolve(section, name, clock, where=where, default=0) for name in ("warmup", "cooldown")}
    warmup, cooldown = ends["warmup"], ends["cooldown"]
    middle = clock.total_steps - warmup - cooldown
    if middle < 0:
        raise ConfigError(
            f"{where}: a warm-up of {warmup} and a cool-down of {cooldown} do not fit in {clock.total_steps} steps"
        )
    build = choose(SCHEDULES, section.get("name", "constant"), f"{where}.name")
    own = {
        field: value
        for field, value in section.items()
        if (durations.split_field(field) or (None,))[0] not in ("warmup", "cooldown")
    }
    begin = own.pop("warmup_from", 0.0)
    if isinstance(begin, bool) or not isinstance(begin, (int, float)) or not 0 <= begin <= 1:
        raise ConfigError(f"{where}.warmup_from: expected a share of the peak from 0 to 1, got {begin!r}")
    main = bind(build, own, where, peak=peak, steps=max(middle, 1))()
    pieces, boundaries = [main], []
    if warmup:
        pieces, boundaries = [optax.linear_schedule(begin * peak, peak, warmup), main], [warmup]
    if cooldown:
        pieces.append(optax.linear_schedule(float(main(middle)), 0.0, cooldown))
        boundaries.append(warmup + middle)
    return optax.join_schedules(pieces, boundaries) if boundaries else main
