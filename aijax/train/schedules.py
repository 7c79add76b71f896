"""Learning-rate schedules by name: a linear warm-up and what follows it, from a config section.

Each schedule is a function of the step, `schedule(step) -> learning rate`, built from optax's.
"""

from collections.abc import Mapping
from typing import Any

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


SCHEDULES = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "rsqrt": rsqrt,
    "exponential": exponential,
    "staircase": staircase,
}


def make_schedule(
    section: Mapping[str, Any], peak: float, clock: durations.Clock, *, where: str = "config.schedule"
) -> optax.Schedule:
    """Returns the schedule that a config section describes.

    Args:
      section: `name` (one of `SCHEDULES`, default "constant"), `warmup_*` and `cooldown_*` as durations in any unit
        (default none; the cool-down is a line to zero at the end), and the named schedule's own fields.
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
    main = bind(build, own, where, peak=peak, steps=max(middle, 1))()
    pieces, boundaries = [main], []
    if warmup:
        pieces, boundaries = [optax.linear_schedule(0.0, peak, warmup), main], [warmup]
    if cooldown:
        pieces.append(optax.linear_schedule(float(main(middle)), 0.0, cooldown))
        boundaries.append(warmup + middle)
    return optax.join_schedules(pieces, boundaries) if boundaries else main
