"""Switches of the compiler are set before it starts, or refused."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from aijax.backend import backend_has_started, fast_small_loops
from aijax.errors import ConfigError

FLAG = "xla_cpu_small_while_loop_byte_threshold"
SCRIPT = """
import jax, jax.numpy as jnp
from aijax.backend import backend_has_started, fast_small_loops
assert not backend_has_started()
if {switch}:
    fast_small_loops()
    fast_small_loops()
loop = jax.jit(lambda x: jax.lax.fori_loop(0, 9, lambda i, x: jnp.sin(x) + i, x))
print("small_call" in loop.lower(jnp.ones(3000)).compile().as_text(), float(loop(jnp.ones(3000))[0]))
"""


@pytest.fixture
def older(monkeypatch):
    """A JAX that needs the switch."""
    monkeypatch.setattr("aijax.backend._BY_DEFAULT", False)


@pytest.mark.processes
def test_loops_are_compiled_into_one_function_with_the_switch_and_give_the_same():
    def run(switch):
        words = [sys.executable, "-c", SCRIPT.format(switch=switch)]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()

    (off, before), (on, after) = run(False), run(True)
    assert on == "True"
    assert off == str(jax.__version_info__ >= (0, 12))
    assert abs(float(before) - float(after)) < 1e-5


def test_it_is_refused_once_jax_has_started_and_leaves_the_environment_alone(older):
    jnp.zeros(1)
    assert backend_has_started()
    environment = {"XLA_FLAGS": "--a=1"}
    with pytest.raises(ConfigError, match="fast_small_loops: JAX has started already"):
        fast_small_loops(environment=environment)
    assert environment == {"XLA_FLAGS": "--a=1"}
    set_already = {"XLA_FLAGS": f"--a=1 --xla_backend_extra_options=b=2,{FLAG}=1000000"}
    fast_small_loops(environment=set_already)


def test_other_flags_are_kept(monkeypatch, older):
    monkeypatch.setattr("aijax.backend.backend_has_started", lambda: False)
    environment = {"XLA_FLAGS": "--a=1 --xla_backend_extra_options=b=2 --c"}
    fast_small_loops(max_bytes=50, environment=environment)
    assert environment == {"XLA_FLAGS": f"--a=1 --c --xla_backend_extra_options=b=2,{FLAG}=50"}
    empty = {}
    fast_small_loops(environment=empty)
    assert empty == {"XLA_FLAGS": f"--xla_backend_extra_options={FLAG}=1000000"}


def test_nothing_is_set_where_xla_does_it_by_itself(monkeypatch):
    monkeypatch.setattr("aijax.backend._BY_DEFAULT", True)
    environment = {}
    fast_small_loops(environment=environment)
    assert environment == {}


def test_mistakes_are_told(older):
    with pytest.raises(ConfigError, match="max_bytes: expected a number of bytes of at least 0, got -1"):
        fast_small_loops(max_bytes=-1)
    with pytest.raises(ConfigError, match=f"XLA_FLAGS: sets {FLAG}=7 already"):
        fast_small_loops(environment={"XLA_FLAGS": f"--xla_backend_extra_options={FLAG}=7"})
