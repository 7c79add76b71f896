"""Nouns with parameters: pytrees, constraints, names, and what constructors refuse."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.parameters import check_parameters, named_parameters, noun, parameter, static
from aijax.typing import Any


@noun
class Inner:
    scale: Any = parameter(1.0, "positive")
    share: Any = parameter(0.5, "unit_interval")


@noun
class Outer:
    inner: Any
    weights: Any = parameter((1.0, 2.0))
    offset: Any = parameter(0.0, "nonnegative")
    name: str = static("outer")
    others: tuple = ()

    def check(self):
        if self.name == "bad":
            raise ConfigError("name: expected a good one")


def test_a_noun_is_a_pytree_whose_structure_is_static():
    outer = Outer(Inner(), others=(Inner(2.0),))
    leaves, structure = jax.tree.flatten(outer)
    assert len(leaves) == 6 and structure.unflatten(leaves).name == "outer"
    assert structure == jax.tree.structure(Outer(Inner(3.0), others=(Inner(),)))
    assert structure != jax.tree.structure(Outer(Inner(), name="other", others=(Inner(),)))
    assert len(jax.tree.leaves(Outer(None))) == 2


def test_a_noun_is_frozen_and_can_be_replaced_and_pickled():
    inner = Inner()
    with pytest.raises(dataclasses.FrozenInstanceError):
        inner.scale = 2.0
    assert dataclasses.replace(inner, scale=2.0).scale == 2.0
    assert pickle.loads(pickle.dumps(Inner(3.0))).scale == 3.0


def test_numbers_and_lists_become_floats():
    assert isinstance(Inner(2).scale, float)
    assert Inner([1, 2]).scale.dtype == np.float64
    assert jnp.issubdtype(Inner(np.array([1, 2])).scale.dtype, jnp.floating)
    assert jnp.issubdtype(Inner(jnp.arange(1, 3)).scale.dtype, jnp.floating)
    assert Inner(np.float32(2)).scale.dtype == np.float32
    ragged = Inner([[1.0], [1.0, 2.0]]).scale
    assert [len(item) for item in ragged] == [1, 2]


def test_transformations():
    outer = Outer(Inner(2.0), jnp.array([1.0, 2.0]))

    def value(outer):
        return outer.inner.scale * jnp.sum(outer.weights) + outer.offset

    gradient = jax.jit(jax.grad(value))(outer)
    assert isinstance(gradient, Outer) and gradient.inner.scale == 3 and gradient.name == "outer"
    batch = jax.vmap(lambda scale: Inner(scale))(jnp.array([1.0, 2.0]))
    assert jax.vmap(lambda inner: 2 * inner.scale)(batch).tolist() == [2, 4]
    assert jax.jit(lambda scale: Inner(scale).scale)(-1.0) == -1, "values inside jit are not known, and not checked"


def test_names_and_constraints_of_all_leaves():
    found = named_parameters(Outer(Inner(), {"b": 1.0, "a": [2.0]}, others=(Inner(3.0),)))
    assert [(name, constraint) for name, _, constraint in found] == [
        ("inner.scale", "positive"),
        ("inner.share", "unit_interval"),
        ("weights.a.0", "real"),
        ("weights.b", "real"),
        ("offset", "nonnegative"),
        ("others.0.scale", "positive"),
        ("others.0.share", "unit_interval"),
    ]
    tree = Outer(Inner(), others=(Inner(3.0),))
    assert [value for _, value, _ in named_parameters(tree)] == jax.tree.leaves(tree)
    assert named_parameters({"x": 1.0}) == [("x", 1.0, "real")]
    assert named_parameters(2.0) == [("", 2.0, "real")]


def test_constraints_reach_every_leaf_of_a_tree():
    with pytest.raises(ConfigError, match=r"scale.b: expected a positive number, got -1.0"):
        Inner({"a": 1.0, "b": -1.0})


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Inner(0.0), "scale: expected a positive number, got 0.0"),
        (lambda: Inner(True - 2), "scale: expected a positive number, got -1"),
        (lambda: Inner([1.0, -3.0]), "scale: expected a positive number, got -3.0"),
        (lambda: Inner(jnp.array([1.0, jnp.nan])), "scale: expected a positive number, got nan"),
        (lambda: Inner(float("inf")), "scale: expected a positive number, got inf"),
        (lambda: Inner("wide"), "scale: expected a positive number, got 'wide'"),
        (lambda: Inner(1j), "scale: expected a positive number, got 1j"),
        (lambda: Inner(1.0, 1.0), "share: expected a number between 0 and 1, got 1.0"),
        (lambda: Outer(Inner(), offset=-0.1), "offset: expected a number of at least 0, got -0.1"),
        (lambda: Outer(Inner(), (1.0, float("nan"))), "weights: expected a real number, got nan"),
        (lambda: Outer(Inner(), name="bad"), "name: expected a good one"),
        (lambda: parameter(1.0, "positiv"), "constraint: .* 'positiv'; did you mean 'positive'"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_check_parameters_says_where():
    tree = jax.tree.map(lambda leaf: -leaf, Inner())
    with pytest.raises(ConfigError, match=r"gp\.scale: expected a positive number, got -1.0"):
        check_parameters(tree, "gp.")
    check_parameters(jax.eval_shape(lambda: Inner()))
