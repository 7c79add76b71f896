"""Covariances with derivatives: reference values, closed forms, any kernel, points that coincide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import kernels
from aijax.errors import ConfigError
from aijax.kernels import with_all_derivatives, with_derivative

X = np.random.default_rng(0).normal(size=(4, 2))
DIFFERENTIABLE = {
    "rbf": kernels.RBF([1.0, 2.0]),
    "matern32": kernels.Matern32([1.0, 2.0]),
    "matern52": kernels.Matern52(0.7),
    "periodic": kernels.Periodic(1.0, [2.0, 3.0]),
    "spectral_mixture": kernels.SpectralMixture([0.3, 0.7], [[0.1, 0.2], [0.3, 0.4]], [[0.1, 0.2], [0.2, 0.1]]),
    "polynomial": kernels.Polynomial(3),
    "arc_cosine1": kernels.ArcCosine(1),
    "product": 2.0 * kernels.RBF() * kernels.Linear() + kernels.Constant(),
    "deep": kernels.Warped(kernels.Matern52(), jnp.tanh),
    "function": kernels.from_kernel_fn(lambda a, b: jnp.exp(a @ b / 3)),
}


@pytest.mark.parametrize("name", ["s0d3", "s1d3"])
def test_golden(case, name):
    case = case(f"kernel_grad_matern52_{name}")
    kernel = kernels.Derivative(kernels.Matern52(case.params["lengthscale"]))
    case.check(kernel(with_all_derivatives(case.x)), "k_xx")
    case.check(kernel(with_all_derivatives(case.x), with_all_derivatives(case.z)), "k_xz")


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_every_block_is_a_derivative_and_the_whole_is_positive_semidefinite(name):
    kernel = DIFFERENTIABLE[name]
    x = with_all_derivatives(jnp.concatenate([X, X[:1]]))

    @jax.jit
    def values(kernel, x):
        joint = kernels.Derivative(kernel)
        return joint(x), joint.diagonal(x)

    gram, diagonal = values(kernel, x)
    np.testing.assert_allclose(gram, gram.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(diagonal, np.diagonal(gram), rtol=1e-12, atol=1e-13)
    assert np.linalg.eigvalsh(gram)[0] > -1e-12
    h, a, b = 1e-4, jnp.asarray(X[0]), jnp.asarray(X[1])
    along = h * jnp.concatenate([jnp.eye(2), -jnp.eye(2)])
    rows, columns = jax.jit(lambda kernel: (kernel(a + along, b[None]), kernel(a[None], b + along)))(kernel)
    np.testing.assert_allclose(gram[1:3, 3], (rows[:2, 0] - rows[2:, 0]) / (2 * h), 1e-6, 1e-7)
    np.testing.assert_allclose(gram[0, 4:6], (columns[0, :2] - columns[0, 2:]) / (2 * h), 1e-6, 1e-7)


@pytest.mark.parametrize("name", ["matern32", "arc_cosine1"])
def test_gradients_in_parameters_where_points_coincide(name):
    """Against differences of Gram matrices: a third derivative of a profile that has no finite one at 0."""
    x = with_all_derivatives(jnp.concatenate([X[:2], X[:1]]))
    leaves, structure = jax.tree.flatten(DIFFERENTIABLE[name])

    @jax.jit
    def value(leaves):
        return jnp.sum(kernels.Derivative(structure.unflatten(leaves))(x) * x[:, :1])

    leaves = [jnp.asarray(leaf, float) for leaf in leaves]
    for got, up, down in zip(
        jax.jit(jax.grad(value))(leaves),
        ([leaf + (i == j) * 1e-5 for j, leaf in enumerate(leaves)] for i in range(len(leaves))),
        ([leaf - (i == j) * 1e-5 for j, leaf in enumerate(leaves)] for i in range(len(leaves))),
        strict=True,
    ):
        np.testing.assert_allclose(jnp.sum(got), (value(up) - value(down)) / 2e-5, 1e-6, 1e-8)


@pytest.mark.parametrize("kernel, curvature", [(kernels.RBF, 1.0), (kernels.Matern32, 3.0), (kernels.Matern52, 5 / 3)])
def test_slopes_at_coincident_points(kernel, curvature):
    lengthscale = np.array([0.5, 2.0, 1.0])
    x = with_all_derivatives(np.ones((1, 3)))
    expected = np.diag([1.5, *(1.5 * curvature / lengthscale**2)])
    for gram in (kernels.Derivative(kernel(lengthscale, 1.5))(x), kernels.Derivative(kernel(lengthscale, 1.5))(x, x)):
        np.testing.assert_allclose(gram, expected, rtol=1e-13, atol=1e-14)


def test_each_point_says_what_was_observed():
    joint = kernels.Derivative(kernels.RBF())
    everything = joint(with_all_derivatives(X))
    observed = np.array([0, 2, 1, 0])
    rows = 3 * np.arange(4) + observed
    np.testing.assert_allclose(joint(with_derivative(X, observed)), everything[np.ix_(rows, rows)], rtol=1e-14)
    np.testing.assert_allclose(joint(with_derivative(X, 0)), kernels.RBF()(X), rtol=1e-14)


def test_a_slope_is_learned_from_values():
    """The slope of a sine, from values of it alone: the covariance with the derivative does the work."""
    kernel = kernels.Derivative(kernels.RBF())
    x, x_new = np.linspace(0, 6, 25), np.array([1.0, 2.5, 4.0])
    data = with_derivative(x, 0)
    weights = np.linalg.solve(kernel(data) + 1e-10 * np.eye(25), np.sin(x))
    np.testing.assert_allclose(kernel(with_derivative(x_new, 1), data) @ weights, np.cos(x_new), atol=1e-5)


@pytest.mark.parametrize(
    "rough",
    [kernels.Matern12(), kernels.Wendland(order=0), kernels.ArcCosine(0), kernels.RBF() + 2.0 * kernels.White()],
)
def test_kernels_without_derivatives_are_refused(rough):
    with pytest.raises(ConfigError, match="kernel: expected one whose samples have derivatives, got"):
        kernels.Derivative(rough)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: with_derivative(X, 3), "index: expected whole numbers from 0 to 2, got 3"),
        (lambda: with_derivative(X, [0.5]), "index: expected integers"),
        (lambda: with_derivative(X, [0, 1]), r"index: expected integers, one or \[4\], got int64 of shape \(2,\)"),
        (lambda: kernels.Derivative(kernels.RBF())(X), "last column of x: expected the value"),
        (lambda: kernels.Derivative(kernels.RBF())(X[:, 0]), r"x: expected points \[n, d \+ 1\]"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
