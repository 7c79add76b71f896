"""`batch` gives what the kernel function gives, for whatever kernel functions there are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.ntk import stax
from aijax.ntk.batch import batch

RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(7, 4, 5, 3)), jnp.float32)
Y = jnp.asarray(RANDOM.normal(size=(5, 4, 5, 3)), jnp.float32)
NETWORKS = {
    "flat": stax.serial(stax.Conv(8, (2, 2), b_std=0.1), stax.Flatten(), stax.Dense(1)),
    "pool": stax.serial(stax.Conv(8, (2, 2)), stax.GlobalAvgPool(), stax.Dense(1)),
    "no readout": stax.Conv(8, (2, 2)),
}


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("network", "batch_size", "device_count"),
    [
        pytest.param("flat", 3, 0, marks=pytest.mark.slow),
        pytest.param("pool", 0, 2, marks=pytest.mark.slow),
        ("no readout", 3, -1),
    ],
)
def test_infinite_kernels_whole(network, batch_size, device_count):
    kernel_fn = NETWORKS[network][2]
    batched = batch(kernel_fn, batch_size, device_count)
    same(batched(X, Y), kernel_fn(X, Y))
    same(batched(X), kernel_fn(X, None))
    same(batched(X, Y, ("nngp", "ntk")), kernel_fn(X, Y, ("nngp", "ntk")))


def test_on_the_device_or_in_host_memory():
    kernel_fn = NETWORKS["pool"][2]
    assert isinstance(batch(kernel_fn, 2)(X, Y, "ntk"), jax.Array)
    kernel = batch(kernel_fn, 2, store_on_device=False)(X, Y)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(kernel))
    same(kernel, kernel_fn(X, Y))


@pytest.mark.parametrize("inputs", [(X,), (X, Y)])
def test_kernels_pass_from_one_batched_function_to_another(inputs):
    body, head = stax.serial(stax.Conv(8, (2, 2))), stax.serial(stax.GlobalAvgPool(), stax.Dense(1))
    whole = stax.serial(body, head)[2]
    between = batch(body[2], 2)(*inputs)
    same(batch(head[2], 3)(between), whole(*inputs))
    same(head[2](between), whole(*inputs))
    same(batch(head[2], 3, store_on_device=False)(between, get="ntk"), whole(*inputs, get="ntk"))


@pytest.mark.parametrize("second", [False, True])
def test_trees_of_inputs_and_of_kernels(second):
    def network(width):
        return stax.parallel(stax.Dense(width), stax.parallel(stax.Dense(width + 1), stax.Dense(width + 2)))

    a, b = RANDOM.normal(size=(3, 4, 1)).astype(np.float32), RANDOM.normal(size=(3, 8, 1)).astype(np.float32)
    x1, x2 = (a[0], (a[1], a[2])), (b[0], (b[1], b[2])) if second else None
    first = jax.jit(network(2)[2])
    then = jax.jit(functools.partial(network(1)[2], get=("nngp", "ntk")))
    same(batch(then, 2)(batch(first, 2)(x1, x2)), then(first(x1, x2)))


def network(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


PARAMS = {
    "a": jnp.asarray(RANDOM.normal(size=(4, 6)), jnp.float32),
    "b": jnp.asarray(RANDOM.normal(size=(6, 3)), jnp.float32),
}
TABLE1 = jnp.asarray(RANDOM.normal(size=(8, 5, 4)), jnp.float32)
TABLE2 = jnp.asarray(RANDOM.normal(size=(7, 5, 4)), jnp.float32)


def empirical(kind):
    """A tangent kernel by Jacobians [n, 5, 3, parameters]; `kind` says how the axes 5 and 3 are paired."""

    def jacobian(x, params):
        leaves = jax.tree.leaves(jax.jacobian(lambda params: network(params, x))(params))
        return jnp.concatenate([leaf.reshape(*leaf.shape[:3], -1) for leaf in leaves], -1)

    def kernel_fn(x1, x2, params):
        first = jacobian(x1, params)
        return jnp.einsum(kind, first, first if x2 is None else jacobian(x2, params))

    return kernel_fn


KINDS = ("iabp,jcdp->ijacbd", "iabp,jcbp->ijac", "iabp,jadp->ijabd", "iabp,jabp->ijab", "iabp,jabp->ij")


@pytest.mark.parametrize(("kind", "device_count"), list(zip(KINDS, (-1, 0, 2, 0, 3), strict=True)))
def test_empirical_kernels_with_axes_paired_traced_or_diagonal(kind, device_count):
    kernel_fn = empirical(kind)
    batched = batch(kernel_fn, 3, device_count)
    with jax.enable_x64(True):
        x1, others, params = jax.tree.map(lambda x: np.asarray(x, np.float64), (TABLE1, (None, TABLE2), PARAMS))
        for x2 in others:
            same(batched(x1, x2, params), kernel_fn(x1, x2, params))


def test_inside_jit_and_grad():
    def kernel_fn(x1, x2, params):
        first, second = (network(params, x) for x in (x1, x1 if x2 is None else x2))
        return jnp.einsum("iab,jab->ij", first, second)

    batched, x1, x2 = batch(kernel_fn, 2), TABLE1[:3], TABLE2[:2]
    same(jax.jit(batched)(x1, None, PARAMS), kernel_fn(x1, None, PARAMS))
    same(*(jax.grad(lambda p, k=k: k(x1, x2, p).sum())(PARAMS) for k in (batched, kernel_fn)))


def test_arguments_and_patterns_are_passed_on():
    def kernel_fn(x1, x2, flip, key, *, pattern=None, scale=1.0):
        p1, p2 = pattern
        sign = -1 if flip else 1
        return sign * scale * jax.random.uniform(key) * (x1 * p1) @ (x1 * p1 if x2 is None else x2 * p2).T

    x1, x2 = TABLE1[:, 0], TABLE2[:, 0]
    p1, p2 = TABLE1[:, 1], TABLE2[:, 1]
    key = jax.random.key(0)
    for second, pattern in ((x2, (p1, p2)), (None, (p1, p1))):
        for flip in (True, False):
            given = (x1, second, flip, key)
            same(batch(kernel_fn, 4)(*given, pattern=pattern, scale=2.0), kernel_fn(*given, pattern=pattern, scale=2.0))
        same(
            jax.jit(batch(kernel_fn, 4), static_argnums=2)(*given, pattern=pattern), kernel_fn(*given, pattern=pattern)
        )


def test_arrays_that_do_not_depend_on_the_blocks_are_given_once():
    def kernel_fn(x1, x2, w):
        return {"k": x1 @ x2.T, "x1": x1.sum(1), "x2": x2.T, "w": w}

    x1, x2 = TABLE1[:, 0], TABLE2[:, 0]
    same(batch(kernel_fn, 3)(x1, x2, PARAMS["a"]), kernel_fn(x1, x2, PARAMS["a"]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: batch(k, -1), "batch_size: expected the rows of a block, or 0, got -1"),
        (lambda k: batch(k, 2.5), "batch_size: expected"),
        (lambda k: batch(k, 2, 99), "device_count: expected -1"),
        (lambda k: batch(k, 2)(X, Y[:, :3]), r"x2: expected examples of shape \(4, 5, 3\) as x1 has"),
        (lambda k: batch(k, 2)(X[:0]), "x1: expected one row or more"),
        (lambda k: batch(None), "kernel_fn: expected a function, got None"),
        (lambda k: batch(k, 2, 0, "yes"), "store_on_device: expected true or false"),
        (lambda k: batch(lambda a, b: jnp.sum(a) * jnp.sum(b), 2)(X, Y), "kernel_fn: expected a kernel with an axis"),
        (lambda k: batch(lambda a, b: {"k": a @ b.T, "cov": a @ a.T}, 2)(X[:, 0, 0], Y[:, 0, 0]), "'cov' of shape"),
    ],
)
def test_mistakes_are_sentences(call, message):
    with pytest.raises(ConfigError, match=message):
        call(NETWORKS["pool"][2])


def test_one_block_is_the_kernel_whatever_its_axes():
    x1, x2 = np.ones((2, 3), np.float32), np.ones((2, 5), np.float32)
    whole = batch(lambda x1, x2: jnp.einsum("ca,cb->ab", x1, x2), device_count=0)
    np.testing.assert_array_equal(whole(x1, x2), x1.T @ x2)
    assert isinstance(batch(lambda x1, x2: x1.sum() * x2, device_count=0, store_on_device=False)(x1, x2), np.ndarray)
