"""The names that neural-tangents documents: axes, keywords, named tuples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.ntk import NtkImplementation, empirical_kernel_fn, empirical_nngp_fn, empirical_ntk_fn


def close(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    assert np.abs(np.asarray(ours) - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("vmap_axes", [None, 0])
@pytest.mark.parametrize("empirical_case", ["empirical_spatial_output", "empirical_mlp_ntkparam"], indirect=True)
def test_reference_values(empirical_case, vmap_axes, quick):
    f, params, _, arrays, tolerance = empirical_case
    with jax.enable_x64(True):
        x1, x2 = arrays["x1"], arrays["x2"]
        ways = {"full": ((), ()), "trace": (-1, ()), "diag": ((), -1)}
        kernels = {name: empirical_ntk_fn(f, *axes, vmap_axes) for name, axes in ways.items()}
        for name, ours in quick(lambda p: {n: k(x1, x2, p) for n, k in kernels.items()}, params).items():
            close(ours, arrays[f"ntk_{name}_12"], tolerance)
        close(
            quick(lambda p: empirical_ntk_fn(f, -1, 0, vmap_axes)(x1, None, p), params),
            arrays["ntk_diagbatch_11"],
            tolerance,
        )
        close(empirical_nngp_fn(f, ())(x1, x2, params), arrays["nngp_full_12"], tolerance)
        close(empirical_nngp_fn(f, -1)(x1, x2, params), arrays["nngp_trace_12"], tolerance)


@pytest.mark.parametrize("implementation", NtkImplementation)
def test_axes_of_examples_anywhere(implementation, quick):
    random = np.random.default_rng(0)
    params = jnp.asarray(random.normal(size=(3, 2)), jnp.float32)

    def f(params, x, gate, power=1):
        return (jnp.tanh(x.T @ params) * gate[:, None]).T ** power

    x, gate = random.normal(size=(3, 4)).astype(np.float32), random.normal(size=4).astype(np.float32)
    kernel_fn = empirical_ntk_fn(f, (), (), (1, 1, {"gate": 0}), implementation)
    whole = empirical_ntk_fn(f, (), ())
    both = lambda p: [k(x, x[:, :2], p, gate=(gate, gate[:2]), power=2) for k in (kernel_fn, whole)]  # noqa: E731
    ours, theirs = quick(both, params)
    assert ours.shape == (2, 2, 4, 2)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    alike = empirical_ntk_fn(f, (), 1, (1, 1, {"gate": 0}), implementation)
    ours, theirs = quick(lambda p: [k(x, None, p, gate=gate) for k in (alike, whole)], params)
    np.testing.assert_allclose(ours, np.einsum("opii->opi", theirs), rtol=1e-5, atol=1e-6)


def test_named_tuples():
    kernel_fn = empirical_kernel_fn(lambda params, x: x @ params)
    x, params = jnp.eye(3), jnp.ones((3, 2))
    assert kernel_fn(x, None, ("ntk", "nngp"), params)._fields == ("ntk", "nngp")
    assert kernel_fn(x, None, None, params)._fields == ("nngp", "ntk")
    assert kernel_fn(x, x[:1], "ntk", params).shape == (3, 1)
    with pytest.raises(ConfigError, match="get: expected 'nngp', 'ntk'"):
        kernel_fn(x, None, "nkt", params)


def test_a_tree_of_outputs_gives_a_tree_of_named_tuples():
    x, params = jnp.eye(3), jnp.arange(6.0).reshape(3, 2)
    one, two = empirical_kernel_fn(lambda params, x: [x @ params, (x @ params) ** 2])(x, None, ("ntk", "nngp"), params)
    assert one._fields == two._fields == ("ntk", "nngp")
    np.testing.assert_allclose(one.nngp, params @ params.T / 2)
    np.testing.assert_allclose(two.ntk, 4 * np.diag(np.diag(params @ params.T)) / 2)


def test_keys_are_split_between_two_inputs():
    def f(params, x, rng):
        return x @ params * jax.random.normal(rng, (x.shape[0], 1))

    x, params, key = jnp.ones((2, 3)), jnp.ones((3, 2)), jax.random.key(0)
    kernel_fn = empirical_ntk_fn(f)
    own = kernel_fn(x, None, params, rng=key)
    np.testing.assert_allclose(own, own.T, rtol=1e-6)
    assert not np.allclose(kernel_fn(x, x, params, rng=key), own)


def test_mistakes_are_told():
    f = lambda params, x: x @ params  # noqa: E731
    with pytest.raises(ConfigError, match="implementation: expected an NtkImplementation or 0 to 3, got 7"):
        empirical_ntk_fn(f, implementation=7)
    with pytest.raises(
        ConfigError, match=r"trace_axes: apply_fn gives outputs of shape \(2, 2\), which have no axis 2"
    ):
        empirical_ntk_fn(f, trace_axes=2)(jnp.ones((2, 3)), None, jnp.ones((3, 2)))
    for words, call in (
        ("f: expected a function, got None", lambda: empirical_ntk_fn(None)),
        ("trace_axes: expected an axis or several, got 'yes'", lambda: empirical_ntk_fn(f, trace_axes="yes")),
        ("get: expected 'nngp', 'ntk' or a tuple", lambda: empirical_kernel_fn(f)(jnp.ones((2, 3)), None, 3, None)),
        ("f: expected an array .* got none", lambda: empirical_nngp_fn(lambda p, x: None)(jnp.ones(2), None, 1.0)),
        ("params: expected an array of numbers", lambda: empirical_ntk_fn(f)(jnp.ones((2, 3)), None, "w")),
    ):
        with pytest.raises(ConfigError, match=words):
            call()
    with pytest.raises(ConfigError, match="diagonal_axes: axis -1 is in both trace_axes and diagonal_axes"):
        empirical_ntk_fn(f, -1, -1)(jnp.ones((2, 3)), None, jnp.ones((3, 2)))
