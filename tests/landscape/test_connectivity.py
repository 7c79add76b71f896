"""Paths between solutions, and permutations that bring solutions together."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aijax import landscape
from aijax.errors import ConfigError
from aijax.train import minimize

AXES = {"net.0.weight": ("h", None), "net.0.bias": ("h",), "net.2.weight": (None, "h")}


@pytest.fixture(scope="module", params=[16, pytest.param(32, marks=pytest.mark.slow)])
def case(request, read_case):
    h = request.param
    shapes = {"net.0.weight": (h, 2), "net.0.bias": (h,), "net.2.weight": (2, h), "net.2.bias": (2,)}
    with jax.enable_x64(True):
        return read_case(f"modeconn_h{h}", activation="tanh", loss="ce", shapes=shapes)


def test_paths_and_barriers_are_those_of_references(case):
    a, b, middle = (case.vector(case.arrays[name]) for name in ("thetaA", "thetaB", "bezier_mid"))
    paths = {
        "loss_linear": lambda t: landscape.line(t, a, b),
        "loss_bezier": lambda t: landscape.bezier(t, a, middle, b),
        "loss_polychain": lambda t: landscape.polygon(t, a, middle, b),
    }
    for name, path in paths.items():
        found = landscape.barrier(case.loss_fn, path, case.batch, jnp.asarray(case.arrays["ts"]))
        np.testing.assert_allclose(found.losses, case.arrays[name], rtol=1e-8)
        if name == "loss_linear":
            assert found.height == pytest.approx(float(case.arrays["barrier_linear"]), rel=1e-8)


def test_a_curve_is_trained_by_gradients(case):
    a, b = (case.vector(case.arrays[name]) for name in ("thetaA", "thetaB"))
    loss = landscape.path_loss(case.loss_fn, a, b)
    start = landscape.middle_of(a, b)
    state, records = minimize(jax.random.key(0), loss, start, optax.sgd(0.5), case.batch, 100, log_every=50)
    middle = state.params
    assert [record["step"] for record in records] == [50, 100]
    heights = [
        landscape.barrier(case.loss_fn, lambda t, m=m: landscape.bezier(t, a, m, b), case.batch).losses.mean()
        for m in (landscape.middle_of(a, b), middle)
    ]
    assert heights[1] < 0.9 * heights[0]
    with pytest.raises(ConfigError, match="b: expected a tree like the parameters"):
        landscape.path_loss(case.loss_fn, a, {})
    with pytest.raises(ConfigError, match="unknown value 'bezir'; did you mean 'bezier'"):
        landscape.path_loss(case.loss_fn, a, b, "bezir")


def test_permutations_are_found(case):
    a, b, mixed = (case.vector(case.arrays[name]) for name in ("thetaA", "thetaB", "thetaA_permuted"))
    found = landscape.match_weights(jax.random.key(0), AXES, a, b)
    assert found["h"].tolist() == case.arrays["perm_B_to_A"].tolist()
    near = landscape.permute(AXES, found, b)
    np.testing.assert_allclose(case.flat(near), case.arrays["thetaB_matched"], rtol=1e-12)
    path = lambda t: landscape.line(t, a, near)  # noqa: E731
    height = landscape.barrier(case.loss_fn, path, case.batch, jnp.asarray(case.arrays["ts"])).height
    assert height == pytest.approx(float(case.arrays["barrier_matched"]), rel=1e-7)
    back = landscape.permute(AXES, landscape.match_weights(jax.random.key(1), AXES, a, mixed), mixed)
    assert all(np.array_equal(back[name], a[name]) for name in a)
    hidden = [jnp.tanh(case.batch[0] @ p["net.0.weight"].T + p["net.0.bias"]) for p in (a, mixed)]
    units = landscape.match_activations(*hidden)
    assert np.array_equal(np.asarray(mixed["net.0.bias"])[units], a["net.0.bias"])


def test_layers_that_depend_on_each_other_are_matched_in_turn():
    rng = np.random.default_rng(0)
    shapes = {"one": (5, 8), "two": (8, 6), "three": (6, 3)}
    axes = {"one": (None, "a"), "two": ("a", "b"), "three": ("b", None)}
    a = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    mixed = landscape.permute(axes, {"a": rng.permutation(8), "b": rng.permutation(6)}, a)
    back = landscape.permute(axes, landscape.match_weights(jax.random.key(0), axes, a, mixed), mixed)
    assert all(np.array_equal(back[name], a[name]) for name in a)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"net.0.weigh": ("h", None)}, "no parameter 'net.0.weigh'; did you mean 'net.0.weight'"),
        ({"net.0.weight": ("h",)}, "'net.0.weight' has shape"),
        ({"net.0.weight": ("h", None), "net.2.bias": ("h",)}, r"'h' has \d+ units, and 'net.2.bias' 2"),
    ],
)
def test_tables_that_do_not_fit_are_told(case, axes, message):
    with pytest.raises(ConfigError, match=message):
        landscape.match_weights(jax.random.key(0), axes, case.params, case.params)
