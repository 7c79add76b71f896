"""Programs in pieces: a run that is changed late begins late, and is the run that begins at the start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.interp import tap
from aijax.interp.pieces import Pieces
from aijax.interp.walk import compiled, trace

X = jnp.arange(1.0, 4.0)


def program(x):
    first = tap("first", jnp.sin(x))
    kept = first * x
    second = tap("second", jnp.cos(first) + 1)
    return (tap("third", second * kept) + kept).sum(), x


@pytest.fixture(scope="module")
def pieces():
    return Pieces(trace(program, compiled([]), (X,), {})[0], {"first", "third"})


def test_pieces_begin_at_the_wanted_taps(pieces):
    assert pieces.first == {"first": 1, "third": 2} and len(pieces.pieces) == 3
    (total, x), kept = pieces.run([X])
    np.testing.assert_allclose(total, program(X)[0], rtol=1e-6)
    assert x is X and [len(made) for made in kept] == [1, 2, 1]


@pytest.mark.parametrize("known", [True, False])
def test_a_run_that_begins_late_is_that_which_begins_at_the_start(pieces, known):
    _, kept = pieces.run([X])

    def changed(begin, factor):
        site = lambda name, value, feed, turn: (feed * factor if name == "third" else value, None)  # noqa: E731
        return pieces.run_changed(site, {"third": (jnp.ones(3),)}, begin, [X], kept)[0]

    wanted = (2.0 + np.sin(X) * X).sum()
    for begin in (0, 2):
        run = changed if known else jax.jit(changed)
        np.testing.assert_allclose(run(begin, 2.0), wanted, rtol=1e-6)
    np.testing.assert_allclose(changed(3, 2.0), program(X)[0], rtol=1e-6)  # no piece is changed
    assert jax.grad(lambda factor: changed(2, factor))(2.0) == 3
