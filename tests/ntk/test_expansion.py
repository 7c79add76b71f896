"""Taylor expansions against reference values, polynomials and finite functions; transformations; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.ntk import kernel_vector_product, linearize, projected_gradients, taylor_expand


def test_the_golden_expansions(empirical_case, quick):
    apply_fn, params, new_params, arrays, tolerance = empirical_case
    with jax.enable_x64(True):
        expansions = [linearize(apply_fn, params), *(taylor_expand(apply_fn, params, degree) for degree in (2, 3))]
        values = quick(lambda p, x: [f(p, x) for f in expansions], new_params, arrays["x1"])
        outputs = dict(zip(("lin_out", "taylor2_out", "taylor3_out"), map(np.asarray, values), strict=True))
    for name, output in outputs.items():
        assert np.abs(output - arrays[name]).max() <= tolerance * np.abs(arrays[name]).max(), name


def quartic(params, x, *, scale=1.0):
    """A polynomial of degree four in a tree of parameters, with a tree of outputs."""
    a, (b, c) = params["a"], params["rest"]
    return {"y": scale * (a @ x) ** 2 * b**2, "z": [c * a[0, 0], jnp.sum(x) * b]}


@pytest.fixture
def polynomial():
    params = {"a": jnp.arange(6.0).reshape(2, 3) / 5, "rest": (jnp.float32(0.7), jnp.ones(2))}
    new_params = jax.tree.map(lambda p: p + 0.3 * jnp.cos(p), params)
    return params, new_params, jnp.array([0.5, -1.0, 2.0])


def test_a_polynomial_is_its_own_expansion_from_its_degree_on(polynomial):
    params, new_params, x = polynomial
    exact = quartic(new_params, x, scale=2.0)
    for degree in (4, 5):
        output = taylor_expand(quartic, params, degree)(new_params, x, scale=2.0)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), output, exact)
    third = taylor_expand(quartic, params, 3)(new_params, x)
    assert np.abs(third["y"] - quartic(new_params, x)["y"]).max() > 1e-4
    # what is of degree two in the parameters is exact from there on
    second = taylor_expand(quartic, params, 2)(new_params, x)
    np.testing.assert_allclose(second["z"][0], exact["z"][0], rtol=1e-6)


def test_degree_zero_is_the_function_where_it_is_expanded(polynomial):
    params, new_params, x = polynomial
    output = taylor_expand(quartic, params, 0)(new_params, x)
    jax.tree.map(np.testing.assert_array_equal, output, quartic(params, x))


def test_the_linearised_function_is_linear_with_the_jacobian_of_the_function(polynomial):
    params, new_params, x = polynomial
    f_lin = linearize(quartic, params)
    at_start, at_new = jax.jacobian(quartic)(params, x), jax.jacobian(f_lin)(new_params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), at_start, at_new)


def test_jit_vmap_and_grad(polynomial):
    params, new_params, x = polynomial
    xs = jnp.stack([x, -x, 2 * x])
    f = taylor_expand(quartic, params, 2)
    mapped = jax.jit(jax.vmap(f, in_axes=(None, 0)))(new_params, xs)["y"]
    np.testing.assert_allclose(mapped, np.stack([f(new_params, row)["y"] for row in xs]), rtol=1e-5)
    g = jax.grad(lambda p: taylor_expand(quartic, p, 1)(new_params, x)["y"].sum())(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(g))


def test_functions_that_are_not_smooth_primitives_alone():
    """Loops and functions with derivatives of their own are expanded as they are differentiated."""

    @jax.custom_jvp
    def cube(w):
        return w**3

    cube.defjvp(lambda primals, tangents: (cube(*primals), 3 * primals[0] ** 2 * tangents[0]))

    def f(w, x):
        return jax.lax.scan(lambda carry, row: (carry + cube(w) * row, None), 0.0, x)[0]

    x = jnp.array([1.0, 2.0])
    output = taylor_expand(f, jnp.float32(1.0), 2)(jnp.float32(1.5), x)
    np.testing.assert_allclose(output, 3 * (1 + 3 * 0.5 + 3 * 0.25), rtol=1e-6)


def test_refusals(polynomial):
    params, new_params, x = polynomial
    for degree in (-1, 1.5, True, "2"):
        with pytest.raises(ConfigError, match="degree"):
            taylor_expand(quartic, params, degree)
    for words, call in (
        ("f: expected a function, got None", lambda: linearize(None, params)),
        ("params: expected floating numbers to expand in, got none", lambda: linearize(quartic, None)),
        ("params: expected an array of numbers, got 'w'", lambda: linearize(quartic, "w")),
        ("f: expected an array or a tree of arrays, got none", lambda: linearize(lambda p, x: None, 1.0)(1.0, x)),
    ):
        with pytest.raises(ConfigError, match=words):
            call()
    with pytest.raises(ConfigError, match="floating"):
        linearize(quartic, {"a": jnp.arange(3)})
    with pytest.raises(ConfigError, match="structure"):
        linearize(quartic, params)({"a": new_params["a"]}, x)
    with pytest.raises(ConfigError, match="shape"):
        linearize(quartic, params)({**new_params, "a": new_params["a"][:1]}, x)


@jax.custom_vjp
def halved_product(x, w):
    return 0.5 * x @ w


halved_product.defvjp(
    lambda x, w: (halved_product(x, w), (x, w)), lambda kept, g: (0.5 * g @ kept[1].T, 0.5 * kept[0].T @ g)
)


def test_a_function_whose_reverse_pass_alone_is_defined_is_expanded_projected_and_multiplied():
    keys = jax.random.split(jax.random.key(5), 4)
    params = {"a": jax.random.normal(keys[0], (3, 4)), "b": jax.random.normal(keys[1], (4, 2))}
    x, v = jax.random.normal(keys[2], (5, 3)), jax.random.normal(keys[3], (5, 2))
    reverse_only = lambda p, x: jnp.tanh(halved_product(x, p["a"])) @ p["b"]  # noqa: E731
    plain = lambda p, x: jnp.tanh(0.5 * x @ p["a"]) @ p["b"]  # noqa: E731

    def results(f):
        return (
            taylor_expand(f, params, 2)(jax.tree.map(lambda leaf: 1.1 * leaf, params), x),
            kernel_vector_product(f, params, x, batch_size=2)(v),
            projected_gradients(keys[0], f, params, x, dim=8, method="jvp"),
        )

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), results(reverse_only), results(plain)
    )
