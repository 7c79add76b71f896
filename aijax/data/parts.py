"""The named splits of a data set: "train", "validation" and "test"."""

from aijax.data.source import Source, split
from aijax.errors import ConfigError, did_you_mean

SPLITS = ("train", "validation", "test")


def check_split(name: str, where: str) -> None:
    """Raises a `ConfigError` where `name` is none of the splits."""
    if name not in SPLITS:
        raise ConfigError(f"{where}: unknown split {name!r}{did_you_mean(str(name), SPLITS)}")


def named_split(
    source: Source,
    name: str,
    where: str,
    *,
    validation_fraction: float = 0.0,
    test_fraction: float = 0.0,
    seed: int = 0,
    stratify: bool = True,
) -> Source:
    """Returns the split `name` of `source`: the fractions are of the whole, "train" is what they leave.

    Raises:
      ConfigError: a fraction outside 0..1, fractions that leave nothing, or a split whose fraction is 0.
    """
    check_split(name, where)
    fractions = {"validation": validation_fraction, "test": test_fraction}
    for part, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ConfigError(f"{where}.{part}_fraction: expected a fraction from 0 to below 1, got {fraction!r}")
    if name != "train" and fractions[name] == 0:
        raise ConfigError(f"{where}.{name}_fraction: is 0, so there is no {name} split; give the fraction to hold out")
    if not any(fractions.values()):
        return source
    if sum(fractions.values()) >= 1:
        raise ConfigError(
            f"{where}.validation_fraction: {validation_fraction} and {where}.test_fraction: {test_fraction} leave "
            "nothing to train on"
        )
    parts = split(source, float(validation_fraction), float(test_fraction), seed=seed, stratify=stratify)
    return dict(zip(("train", "validation", "test"), parts, strict=True))[name]
