"""Kernels made of functions: of vectors, of batches (tangent kernels), of strings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import kernels, ntk
from aijax.errors import ConfigError
from aijax.ntk import stax

X = np.random.default_rng(0).normal(size=(5, 3))
IMAGES = np.random.default_rng(1).normal(size=(4, 4, 4, 2))
NETWORK = stax.serial(stax.Conv(2, (3, 3)), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))


def rbf(x, z):
    return jnp.exp(-jnp.sum((x - z) ** 2) / 2)


def shared_letters(s, t):
    return len(set(s) & set(t))


def test_a_function_of_two_vectors():
    kernel = kernels.as_kernel(rbf)
    np.testing.assert_allclose(kernel(X, X[:2]), kernels.RBF()(X, X[:2]), rtol=1e-12)
    np.testing.assert_allclose(kernel.diagonal(X), 1)
    assert kernels.as_kernel(kernel) is kernel


def test_scalars_are_vectors_of_length_one():
    kernel = kernels.from_kernel_fn(lambda x, z: jnp.exp(-((x - z) ** 2) / 2))
    np.testing.assert_allclose(kernel(X[:, 0]), kernels.RBF()(X[:, 0]), rtol=1e-12)


def test_parameters_are_differentiated():
    kernel = kernels.from_kernel_fn(lambda p, x, z: p["scale"] * rbf(x, z), {"scale": 2.0})
    gradient = jax.grad(lambda kernel: kernel(X).sum())(kernel)
    np.testing.assert_allclose(gradient.params["scale"], kernels.RBF()(X).sum(), rtol=1e-12)


def test_points_that_are_trees():
    kernel = kernels.from_kernel_fn(lambda a, b: rbf(a["x"], b["x"]) * (a["group"] == b["group"]))
    x = {"x": X, "group": np.array([0, 0, 1, 1, 2])}
    same = x["group"][:, None] == x["group"]
    np.testing.assert_allclose(kernel(x), kernels.RBF()(X) * same, rtol=1e-12)


def test_infinite_network_on_images():
    kernel_fn = functools.partial(NETWORK[2], get="ntk")
    kernel = 2.0 * kernels.from_kernel_fn(kernel_fn, batched=True) + kernels.White(0.1)

    @jax.jit
    def everything(kernel, x):
        gradient = jax.grad(lambda kernel: jnp.linalg.slogdet(kernel(x))[1])(kernel)
        return kernel(x), kernel(x[:1], x), kernel.diagonal(x), gradient

    gram, cross, diagonal, gradient = everything(kernel, IMAGES)
    plain = jax.jit(lambda x: kernel_fn(x, None))(IMAGES)
    np.testing.assert_allclose(gram, 2 * plain + 0.1 * np.eye(4), rtol=1e-12)
    np.testing.assert_allclose(cross, 2 * plain[:1], rtol=1e-12)
    np.testing.assert_allclose(diagonal, np.diagonal(gram), rtol=1e-12)
    inverse = np.linalg.inv(gram)
    np.testing.assert_allclose(gradient.kernels[1].variance, np.trace(inverse), rtol=1e-9)
    np.testing.assert_allclose(gradient.kernels[0].variance, np.sum(inverse * plain), rtol=1e-9)


def test_infinite_network_with_a_variance_of_weights():
    def kernel_fn(w_std, x1, x2):
        return stax.serial(stax.Dense(1, W_std=w_std), stax.Relu(), stax.Dense(1))[2](x1, x2, "nngp")

    kernel = kernels.from_kernel_fn(kernel_fn, 1.5, batched=True)
    value, gradient = jax.jit(jax.value_and_grad(lambda kernel: kernel(X).sum()))(kernel)
    np.testing.assert_allclose(gradient.params, 2 * value / 1.5, rtol=1e-10)


def test_empirical_tangent_kernel():
    _, params = NETWORK[0](jax.random.key(0), IMAGES.shape)

    def kernel_fn(params, x1, x2=None):
        return ntk.empirical_ntk(NETWORK[1], params, x1, x2, trace_outputs=True)

    kernel = kernels.from_kernel_fn(kernel_fn, params, batched=True)
    gram, diagonal = jax.jit(lambda kernel: (kernel(IMAGES), kernel.diagonal(IMAGES)))(kernel)
    np.testing.assert_allclose(gram, jax.jit(kernel_fn)(params, IMAGES), rtol=1e-10)
    np.testing.assert_allclose(diagonal, np.diagonal(gram), rtol=1e-10)


def test_strings():
    words = ["kernel", "strange", "a", "range"]
    kernel = 2.0 * kernels.from_kernel_fn(shared_letters, objects=True) + kernels.White(0.5)
    expected = 2.0 * np.array([[shared_letters(s, t) for t in words] for s in words])
    np.testing.assert_array_equal(kernel(words), expected + 0.5 * np.eye(4))
    np.testing.assert_array_equal(kernel(words[:1], words), expected[:1])
    np.testing.assert_array_equal(kernel.diagonal(words), np.diagonal(expected) + 0.5)
    whole = kernels.from_kernel_fn(
        lambda s, t: np.array([[shared_letters(a, b) for b in t] for a in s]), objects=True, batched=True
    )
    np.testing.assert_array_equal(2 * whole(words), expected)
    np.testing.assert_array_equal(2 * whole.diagonal(words), np.diagonal(expected))


def test_strings_with_a_parameter():
    kernel = kernels.from_kernel_fn(lambda p, s, t: p ** abs(len(s) - len(t)), 0.5, objects=True)
    value, gradient = jax.value_and_grad(lambda kernel: kernel(["a", "bbb", "cc"]).sum())(kernel)
    assert (value, gradient.params) == (5.5, 6.0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: kernels.from_kernel_fn(3), "fn: expected a function of two points or two batches, got 3"),
        (lambda: kernels.as_kernel(kernels.RBF), "kernel: expected a kernel of aijax.kernels or a function"),
        (lambda: kernels.as_kernel(lambda x, z: x)(X), r"<lambda>: expected a number for two points, got .*\(3,\)"),
        (lambda: kernels.from_kernel_fn(rbf, batched=True)(X), r"rbf: expected a matrix of shape \(5, 5\)"),
        (lambda: kernels.from_kernel_fn(NETWORK[2], batched=True)(IMAGES), "expected a matrix .* got Kernel"),
        (lambda: kernels.as_kernel(shared_letters)(["a", "b"]), "arrays of numbers; .* objects=True"),
        (lambda: kernels.from_kernel_fn(rbf, objects=True)(X), "x: expected a list of objects"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
