import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from aijax import parallel
from aijax.errors import ConfigError
from aijax.train import init_state


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 12), max_size=4), st.sampled_from([1, 2, 4, 8]))
def test_fsdp_cuts_the_largest_dimension_that_divides(shape, fsdp):
    partition = parallel.fsdp_partition(shape, fsdp)
    cut = [size for size, axis in zip(shape, partition, strict=False) if axis == "fsdp"]
    dividing = [size for size in shape if size % fsdp == 0]
    assert cut == ([max(dividing)] if dividing and fsdp > 1 else [])


def test_rules_come_before_shapes_and_the_first_match_wins():
    mesh = parallel.make_mesh(2, 2, 2)
    shapes = {"mlp": {"up": jax.ShapeDtypeStruct((4, 8), jnp.float32)}, "bias": jax.ShapeDtypeStruct((8,), jnp.float32)}
    rules = (("mlp/up", ("fsdp", "tensor")), ("mlp/.*", (None, None)))
    shardings = parallel.parameter_shardings(mesh, shapes, rules=rules)
    assert shardings["mlp"]["up"].spec == P("fsdp", "tensor")
    assert shardings["bias"].spec == P("fsdp")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((("nothing", ()),), "the pattern 'nothing' matches no parameter"),
        ((("kernal", ()),), "did you mean 'kernel'"),
        ((("kernel", ("fdsp",)),), "unknown axis 'fdsp'; did you mean 'fsdp'"),
        ((("kernel", (None, "fsdp")),), "'kernel' of shape \\(8, 3\\) cannot be cut into 8"),
        ((("kernel", (None, None, None)),), "has 3 entries"),
        ((("(", ()),), "is not a regular expression"),
        (("kernel",), "expected a pair"),
    ],
)
def test_a_wrong_rule_is_refused_in_a_sentence(rules, message):
    mesh = parallel.make_mesh(1, 8)
    with pytest.raises(ConfigError, match=message):
        parallel.parameter_shardings(mesh, {"kernel": jnp.zeros((8, 3))}, rules=rules)


def test_moments_lie_as_their_parameters_and_factored_moments_are_cut():
    mesh = parallel.make_mesh(1, 8)
    params = {"dense": {"kernel": jax.ShapeDtypeStruct((256, 128), jnp.float32)}}
    optimizer = optax.adafactor(1e-3, momentum=0.9)
    state = jax.eval_shape(lambda p: init_state(p, optimizer, keep_ema=True), params)
    placed = parallel.state_shardings(mesh, state, params, parallel.parameter_shardings(mesh, params))
    by_shape = {}
    jax.tree.map(lambda leaf, s: by_shape.setdefault(leaf.shape, set()).add(s.spec), state, placed)
    assert by_shape[(256, 128)] == {P("fsdp")}
    assert by_shape[(256,)] == {P("fsdp")}
    assert by_shape[(128,)] == {P("fsdp")}
    assert by_shape[()] == {P()}
