"""Values inside of a function: looked at, replaced and differentiated, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec

from aijax.errors import ConfigError, UnsupportedError
from aijax.interp import AtLayer, activation_gradients, capture, intervene, tap, tap_names
from aijax.models import BlockSpec, Transformer, unstack_blocks

DEPTH, WIDTH = 3, 8
WEIGHTS = 0.5 * np.random.default_rng(0).normal(size=(DEPTH, WIDTH, WIDTH)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(8, WIDTH)).astype(np.float32)


def layer(x, w):
    return x + tap("branch", jnp.tanh(tap("inner", x @ w)))


def scanned(weights, x):
    return jax.lax.scan(lambda x, w: (layer(x, w), None), x, weights)[0]


def rematted(weights, x):
    return jax.lax.scan(jax.checkpoint(lambda x, w: (layer(x, w), None)), x, weights)[0]


def looped(weights, x):
    for w in weights:
        x = jax.jit(layer)(x, w)
    return x


def by_hand(weights, x, change=lambda number, value: value):
    inner = []
    for number, w in enumerate(weights):
        inner.append(x @ w)
        x = x + change(number, np.tanh(x @ w))
    return x, np.stack(inner)


FORMS = pytest.mark.parametrize("apply_fn", [scanned, rematted, looped])


def stacked(value):
    return np.stack(value) if isinstance(value, tuple) else np.asarray(value)


@FORMS
def test_values_are_those_of_the_function(apply_fn):
    output, values = jax.jit(capture(apply_fn, "inner"))(WEIGHTS, X)
    wanted, inner = by_hand(WEIGHTS, X)
    assert list(values) == ["inner"]
    np.testing.assert_allclose(stacked(values["inner"]), inner, atol=1e-5)
    np.testing.assert_allclose(output, wanted, atol=1e-5)


@FORMS
def test_a_change_reaches_all_that_follows(apply_fn):
    changed = jax.jit(intervene(apply_fn, {"branch": lambda value: 2 * value}))(WEIGHTS, X)
    np.testing.assert_allclose(changed, by_hand(WEIGHTS, X, lambda number, value: 2 * value)[0], atol=1e-5)


def test_one_layer_of_a_scan_is_changed():
    changed = intervene(scanned, {"branch": AtLayer(1, jnp.zeros_like)})(WEIGHTS, X)
    wanted, _ = by_hand(WEIGHTS, X, lambda number, value: 0 * value if number == 1 else value)
    np.testing.assert_allclose(changed, wanted, atol=1e-5)


@FORMS
def test_gradients_by_values_are_those_of_small_changes(apply_fn):
    def loss(weights, x):
        return jnp.sum(apply_fn(weights, x) ** 2)

    value, slopes = jax.jit(activation_gradients(loss, "branch"))(WEIGHTS, X)
    slopes = stacked(slopes["branch"])

    def moved(epsilon):
        change = lambda number, value: value + epsilon[number]  # noqa: E731
        return np.sum(by_hand(WEIGHTS.astype(float), X.astype(float), change)[0] ** 2)

    for number in range(DEPTH):
        step = np.zeros((DEPTH, *X.shape))
        step[number, 2, 5] = 1e-3
        rise = (moved(step) - moved(-step)) / 2e-3
        assert slopes[number, 2, 5] == pytest.approx(rise, rel=2e-3)
    assert value == pytest.approx(float(moved(np.zeros((DEPTH, 1, 1)))), rel=1e-5)


def test_it_composes_with_vmap_and_grad():
    captured = capture(scanned, "branch")

    def penalty(weights, x):
        output, values = captured(weights, x)
        return jnp.sum(output) + jnp.sum(values["branch"] ** 2)

    def plain(weights, x):
        total = 0.0
        for w in weights:
            branch = jnp.tanh(x @ w)
            x, total = x + branch, total + jnp.sum(branch**2)
        return jnp.sum(x) + total

    ours = jax.vmap(jax.grad(penalty), (None, 0))(WEIGHTS, X)
    np.testing.assert_allclose(ours, jax.vmap(jax.grad(plain), (None, 0))(WEIGHTS, X), atol=1e-5)
    # taps of a function that is itself mapped or differentiated
    _, values = capture(lambda x: jax.vmap(lambda row: tap("row", 2 * row))(x), "row")(X)
    np.testing.assert_allclose(values["row"], 2 * X)
    _, values = capture(jax.grad(lambda x: jnp.sum(tap("square", x**2))), "square")(X)
    np.testing.assert_allclose(values["square"], X**2, rtol=1e-6)


def test_eight_devices_give_the_same():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.device_put(X, NamedSharding(mesh, PartitionSpec("data")))
    _, one = jax.jit(capture(scanned, "inner"))(WEIGHTS, X)
    _, eight = jax.jit(capture(scanned, "inner"))(WEIGHTS, split)
    assert len(eight["inner"].sharding.device_set) == 8
    np.testing.assert_allclose(one["inner"], eight["inner"], atol=1e-6)


@pytest.fixture(scope="module")
def transformers():
    model = Transformer(2, BlockSpec(num_heads=2), scan=True)
    x = jax.random.normal(jax.random.key(0), (2, 5, WIDTH))
    params = model.init(jax.random.key(1), x)["params"]
    return model, params, Transformer(2, BlockSpec(num_heads=2), scan=False), unstack_blocks(params), x


def test_modules_are_named_by_their_paths(transformers):
    model, params, other, unstacked, x = transformers

    def apply_fn(model):
        return lambda params, x: model.apply({"params": params}, x)

    assert "blocks/attention/query" in tap_names(apply_fn(model), params, x)
    # a trace that was made before does not hide them
    jitted = jax.jit(apply_fn(model))
    jitted(params, x)
    output, values = capture(jitted, "blocks/mlp")(params, x)
    same, single = capture(apply_fn(other), r"block_\d/mlp")(unstacked, x)
    assert list(single) == ["block_0/mlp", "block_1/mlp"]
    np.testing.assert_allclose(values["blocks/mlp"], np.stack(list(single.values())), atol=1e-5)
    np.testing.assert_allclose(output, same, atol=1e-5)
    none = intervene(apply_fn(other), {r"block_\d/(mlp|attention)": jnp.zeros_like})(unstacked, x)
    np.testing.assert_allclose(none, nn.LayerNorm(epsilon=1e-6).apply({"params": unstacked["norm"]}, x), atol=1e-6)


def test_branches_and_loops_may_be_changed_but_not_looked_at():
    def branch(x):
        return jax.lax.cond(x[0] > 0, lambda x: tap("one", x), lambda x: -x, x)

    def loop(x):
        return jax.lax.while_loop(lambda x: x[0] < 9, lambda x: tap("one", x) + 1, x)

    assert intervene(branch, {"one": lambda x: 3 * x})(jnp.ones(1)).item() == 3
    assert intervene(loop, {"one": lambda x: 2 * x})(jnp.ones(1)).item() == 15
    for function in (branch, loop):
        with pytest.raises(UnsupportedError, match="one: it lies within"):
            capture(function, "one")(jnp.ones(1))


def test_a_rule_of_its_own_is_not_lost():
    @jax.custom_vjp
    def clipped(x):
        return tap("one", 2 * x)

    clipped.defvjp(lambda x: (clipped(x), None), lambda _, slope: (jnp.clip(slope, -1, 1),))
    with pytest.raises(UnsupportedError, match="one: it lies within custom_vjp_call"):
        intervene(clipped, {"one": jnp.zeros_like})(1.0)
    assert capture(lambda x: tap("other", clipped(x)), "other")(1.0)[1]["other"] == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: capture(scanned, "iner")(WEIGHTS, X), "'iner' matches no value of the function; did you mean 'inner'"),
        (lambda: intervene(scanned, {"outer.*": jnp.sin})(WEIGHTS, X), "expected one of branch, inner"),
        (lambda: intervene(scanned, {"inner": jnp.sum})(WEIGHTS, X), r"inner: expected a value float32\[8, 8\]"),
        (lambda: intervene(scanned, {"inner": AtLayer(3, jnp.sin)})(WEIGHTS, X), "a layer from 0 to 2, got 3"),
        (lambda: intervene(looped, {"inner": AtLayer(0, jnp.sin)})(WEIGHTS, X), "this one is in none"),
        (lambda: capture(scanned, "(")(WEIGHTS, X), "expected a regular expression"),
    ],
)
def test_what_never_happens_is_an_error(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_only_what_was_asked_for_is_made():
    plain = jax.jit(scanned).lower(WEIGHTS, X).compile().memory_analysis()
    asked = jax.jit(capture(scanned, "inner")).lower(WEIGHTS, X).compile().memory_analysis()
    assert asked.output_size_in_bytes - plain.output_size_in_bytes <= DEPTH * X.nbytes + 64


def test_within_what_captures_a_module_is_tapped_once():
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return tap("end", nn.Dense(2, name="dense")(x) ** 2)

    x = jnp.ones((1, 3))
    params = jax.tree.map(jnp.ones_like, jax.eval_shape(Outer().init, jax.random.key(0), x))

    def end(params, x):
        return capture(Outer().apply, "end")(params, x)[1]["end"].sum()

    value, slopes = activation_gradients(end, "dense")(params, x)
    assert value == 2 * 4.0**2 and slopes["dense"].tolist() == [[8.0, 8.0]]
