"""Modular addition: all sums a + b mod p as sentences "a b =", some to learn from and the others to be understood.

A network that has the training pairs by heart answers the others only when it has found a rule (Power et al. 2022).
"""

import numpy as np

from aijax.data.parts import check_split
from aijax.data.source import ArraySource, Source
from aijax.errors import ConfigError


def modular_addition(
    split: str,
    field: str = "config.data",
    *,
    modulus: int = 113,
    train_size: int | None = None,
    split_seed: int = 0,
) -> Source:
    """Returns pairs of numbers: int32 `"tokens"` [3], which are a, b and p for "=", and `"label"`, a + b mod p.

    Args:
      split: "train" or "test".
      field: the config section, for messages.
      modulus: p; the tokens are 0 to p.
      train_size: pairs to train on; None for 3 in 10.
      split_seed: of the draw of these.

    Raises:
      ConfigError: a modulus below 2, a size that leaves no pair on one side, a split that is not there.

    >>> source = modular_addition("test", modulus=5)
    >>> len(source), source[np.array([0])]["tokens"].shape
    (18, (1, 3))
    """
    check_split(split, field)
    if split == "validation":
        raise ConfigError(f"{field}: all sums are of the splits 'train' and 'test', got 'validation'")
    if modulus < 2:
        raise ConfigError(f"{field}.modulus: expected 2 or more, got {modulus}")
    pairs = modulus**2
    size = 3 * pairs // 10 if train_size is None else train_size
    if not 0 < size < pairs:
        raise ConfigError(f"{field}.train_size: expected 1 to {pairs - 1} of the {pairs} pairs, got {size}")
    order = np.random.default_rng(split_seed).permutation(pairs)
    chosen = np.sort(order[:size] if split == "train" else order[size:]).astype(np.int32)
    a, b = np.divmod(chosen, modulus)
    tokens = np.stack([a, b, np.full_like(a, modulus)], axis=1)
    return ArraySource({"tokens": tokens, "label": (a + b) % modulus}, tuple(map(str, range(modulus))))
