"""Numbers of rows, of tokens and of classes, where those that are known are checked."""

from typing import Any

import jax
import numpy as np

from aijax.errors import ConfigError


def check_indices(where: str, indices: Any, count: int) -> None:
    """Raises `ConfigError` for a number that is none of `count`, from 0 on.

    Numbers known only inside `jit` pass: what is made of one that is out of range is NaN.
    """
    if isinstance(indices, jax.core.Tracer) or np.size(indices) == 0:
        return
    least, most = int(np.min(np.asarray(indices))), int(np.max(np.asarray(indices)))
    if least < 0 or most >= count:
        raise ConfigError(f"{where}: expected numbers from 0 to {count - 1}, got {least if least < 0 else most}")
