"""Small programs that are run once are compiled fast rather than well."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def compile_fast():
    """Leaves XLA's optimizations out while the tests of a file run."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
