"""Memory that was freed is kept where that is asked for."""

import ctypes
import subprocess
import sys

import pytest

from aijax.allocator import keep_freed_memory

SCRIPT = """
import resource, sys
from aijax.allocator import keep_freed_memory
kept = {keep} and keep_freed_memory()
import jax, jax.numpy as jnp
run, x, taken = jax.jit(lambda x: x.T @ (x @ x.T)), jnp.ones((3500, 8)), []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    run(x).block_until_ready()
    taken.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, sorted(taken)[1])
"""


@pytest.mark.slow
@pytest.mark.processes
def test_a_program_that_runs_again_takes_no_new_pages_for_its_temporary_arrays():
    def run(keep):
        words = [sys.executable, "-c", SCRIPT.format(keep=keep)]
        kept, taken = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        return kept == "True", int(taken)

    kept, taken = run(True)
    assert not kept or taken < 3500 * 3500 * 4 / 4096 / 10
    assert run(False)[1] > 10 * taken or not kept


def test_where_the_c_library_has_no_such_function_nothing_is_done(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
