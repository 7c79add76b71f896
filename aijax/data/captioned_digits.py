"""Scenes made of handwritten digits with the words that say them: how many, of what colour, which digit, and where.

A scene has three rows of three cells of 8 x 8 pixels. One to three digits of one kind and one colour, each of another
hand, stand in one of the rows: "two red sevens in the top row". The 10 x 4 x 3 x 3 = 360 combinations are the classes.
Some of them are held out: never trained on, while each of their words is, so that who tells them has learned to
compose.

The hands are those of the digits that come with scikit-learn (see `bundled`); scenes of the test have hands that those
of the training have not.
"""

import itertools

import numpy as np

from aijax.data.bundled import digits
from aijax.data.parts import check_split
from aijax.data.source import ArraySource, Source, checked
from aijax.errors import ConfigError

NUMBERS = ("one", "two", "three")
COLOURS = {"red": (1, 0.2, 0.2), "green": (0.2, 1, 0.2), "blue": (0.3, 0.4, 1), "yellow": (1, 1, 0.2)}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROWS = ("top", "middle", "bottom")
COMBINATIONS = tuple(itertools.product(range(len(NUMBERS)), range(len(COLOURS)), range(len(DIGITS)), range(len(ROWS))))
CELL = 8


def captioned_digits(
    split: str,
    field: str = "config.data",
    *,
    train_size: int = 16_000,
    test_size: int = 2_000,
    held_out_fraction: float = 0.15,
    seed: int = 0,
) -> Source:
    """Returns scenes, uint8 `[24, 24, 3]` images, whose classes are their captions.

    Args:
      split: "train"; "test", of combinations held out, and "validation", of those trained on, both by other hands.
      field: the config section, for messages.
      train_size, test_size: scenes; the validation has as many as the test.
      held_out_fraction: of the combinations.
      seed: of all that is drawn.

    Raises:
      ConfigError: a size below 1, a fraction that holds out none or leaves a word untrained.
    """
    check_split(split, field)
    count = train_size if split == "train" else test_size
    if count < 1:
        raise ConfigError(f"{field}.{'train' if split == 'train' else 'test'}_size: expected 1 or more, got {count}")
    held_out = draw_held_out(held_out_fraction, seed, f"{field}.held_out_fraction")
    rng = np.random.default_rng([seed, 1 + ("train", "validation", "test").index(split)])
    allowed = np.flatnonzero(held_out == (split == "test"))
    labels = rng.choice(allowed, count)
    return scenes(rng, digits("train" if split == "train" else "test"), labels)


def scenes(rng: np.random.Generator, hands: Source, labels: np.ndarray) -> ArraySource:
    """Returns a scene for each label, its digits taken from `hands`."""
    everything = hands[np.arange(len(hands))]
    of_digit = [everything["image"][everything["label"] == digit, :, :, 0] for digit in range(len(DIGITS))]
    colours = np.array(list(COLOURS.values()))
    images = np.zeros((len(labels), 3 * CELL, 3 * CELL, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        number, colour, digit, row = COMBINATIONS[label]
        columns = rng.choice(3, number + 1, replace=False)
        for column in columns:
            hand = of_digit[digit][rng.integers(len(of_digit[digit]))]
            cell = np.round(255 * hand[..., None] * colours[colour])
            image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = cell
    return checked({"image": images, "label": labels}, where="captioned digits", classes=captions())


def captions() -> tuple[str, ...]:
    """Returns the words of each combination.

    >>> captions()[0], len(captions())
    ('one red zero in the top row', 360)
    """
    return tuple(
        f"{NUMBERS[number]} {list(COLOURS)[colour]} {plural(DIGITS[digit], number)} in the {ROWS[row]} row"
        for number, colour, digit, row in COMBINATIONS
    )


def plural(word: str, number: int) -> str:
    """Returns a digit's word, in the plural where `number`, counted from 0, is above 0."""
    if number == 0:
        return word
    return f"{word}es" if word in ("zero", "six") else f"{word}s"


def draw_held_out(fraction: float, seed: int, where: str) -> np.ndarray:
    """Returns which combinations are held out; each word is in some that are trained on."""
    count = round(fraction * len(COMBINATIONS))
    if not 0 < count < len(COMBINATIONS):
        raise ConfigError(
            f"{where}: {fraction} of {len(COMBINATIONS)} combinations leaves none to hold out or to train on"
        )
    held_out = np.zeros(len(COMBINATIONS), bool)
    held_out[np.random.default_rng([seed, 0]).choice(len(COMBINATIONS), count, replace=False)] = True
    left = np.array(COMBINATIONS)[~held_out]
    for part, size in enumerate((len(NUMBERS), len(COLOURS), len(DIGITS), len(ROWS))):
        if len(np.unique(left[:, part])) < size:
            raise ConfigError(f"{where}: {fraction} of the combinations leaves a word untrained; hold out fewer")
    return held_out
