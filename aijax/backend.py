"""Switches of the compiler, which it reads once, as it starts.

A loop of small steps on a CPU (a filter, an ODE, a recurrence) spends most of its time between operations: before JAX
0.12 XLA runs each as a task of its own. With one switch it compiles loops whose buffers are small into a single
function. It holds for the whole process, may not be given to `jax.jit`, and is ignored once a backend has started.
"""

import os
from collections.abc import MutableMapping

import jax

from aijax.errors import ConfigError

_OPTIONS = "--xla_backend_extra_options="
_THRESHOLD = "xla_cpu_small_while_loop_byte_threshold"
_BY_DEFAULT = jax.__version_info__ >= (0, 12)


def fast_small_loops(*, max_bytes: int = 1_000_000, environment: MutableMapping[str, str] = os.environ) -> None:
    """Has XLA compile each loop on a CPU that handles at most `max_bytes` into one function; call it before all else.

    Loops of small matrices become several times faster; values are the same up to rounding. It adds to `XLA_FLAGS`,
    and does what `XLA_FLAGS=--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000` in front of a
    command does. From JAX 0.12 on XLA treats all loops so by itself, and nothing is set.

    Args:
      max_bytes: size of the buffers that a loop touches.
      environment: of the process.

    Raises:
      ConfigError: JAX has started already (an array was made, devices were asked for), or `XLA_FLAGS` sets another
        size.
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
        raise ConfigError(f"max_bytes: expected a number of bytes of at least 0, got {max_bytes!r}")
    if _BY_DEFAULT:
        return
    wanted = f"{_THRESHOLD}={max_bytes}"
    flags = environment.get("XLA_FLAGS", "").split()
    given = next((flag for flag in flags if flag.startswith(_OPTIONS)), _OPTIONS)
    options = [option for option in given.removeprefix(_OPTIONS).split(",") if option]
    if wanted in options:
        return
    other = next((option for option in options if option.split("=")[0] == _THRESHOLD), None)
    if other is not None:
        raise ConfigError(f"XLA_FLAGS: sets {other} already; expected it to leave that to fast_small_loops")
    if backend_has_started():
        raise ConfigError(
            "fast_small_loops: JAX has started already and would ignore it; call it before anything makes an array or "
            "asks for devices"
        )
    rest = [flag for flag in flags if flag != given]
    environment["XLA_FLAGS"] = " ".join([*rest, _OPTIONS + ",".join([*options, wanted])])


def backend_has_started() -> bool:
    """Returns whether JAX has started a backend in this process: it then refuses another number of CPU devices."""
    count = jax.config.jax_num_cpu_devices
    try:
        jax.config.update("jax_num_cpu_devices", count + 1 if count > 0 else 2)
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", count)
    return False
