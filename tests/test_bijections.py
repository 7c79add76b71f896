"""Bijections: each is onto where its constraint says, and undone by its inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.bijections import BIJECTIONS, from_line, to_line
from aijax.errors import ConfigError
from aijax.parameters import CONSTRAINTS


def test_there_is_one_for_each_constraint():
    assert BIJECTIONS.keys() == CONSTRAINTS.keys()
    with pytest.raises(ConfigError, match="did you mean 'positive'"):
        from_line(0.0, "positiv")


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_the_line_is_mapped_into_the_constraint_and_back(constraint):
    with jax.enable_x64(True):
        u = jnp.linspace(-20, 20, 41)
        x = from_line(u, constraint)
        assert np.all(CONSTRAINTS[constraint][0](np.asarray(x)))
        assert (jnp.diff(x) > 0).all()
        np.testing.assert_allclose(to_line(x, constraint), u, rtol=1e-6, atol=1e-12)
