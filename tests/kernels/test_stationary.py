"""Stationary kernels against reference values, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import kernels
from aijax.errors import ConfigError

MATERN = [f"matern{p}2_{kind}" for p, kind in [
    (1, "ard_s0d3"), (1, "iso_s0d1"), (1, "iso_s1d3"), (3, "ard_s1d3"), (3, "iso_s0d3"), (3, "iso_s1d3"),
    (5, "ard_s1d3"), (5, "iso_s1d1"), (5, "iso_s1d3"),
]]  # fmt: skip
KINDS = {
    "rbf": kernels.RBF, "matern12": kernels.Matern12, "matern32": kernels.Matern32, "matern52": kernels.Matern52,
}  # fmt: skip


@pytest.mark.parametrize("name", ["rbf_ard_s0d3", "rbf_iso_s0d3", "rbf_iso_s1d1", *MATERN])
def test_golden(case, name):
    case = case(f"kernel_{name}")

    def kernel(theta):
        return KINDS[name.split("_")[0]](lengthscale=jnp.exp(theta))

    check_with_gradient(case, kernel, jnp.log(jnp.array(case.params["lengthscale"])))


@pytest.mark.parametrize("name", ["s1d1", "s1d3"])
def test_golden_rational_quadratic(case, name):
    case = case(f"kernel_rational_quadratic_{name}")

    def kernel(theta):
        return kernels.RationalQuadratic(alpha=jnp.exp(theta[0]), lengthscale=jnp.exp(theta[1]))

    check_with_gradient(case, kernel, jnp.log(jnp.array([case.params["alpha"], case.params["lengthscale"]])))


def check_with_gradient(case, kernel, theta):
    weights = np.random.default_rng(0).normal(size=(len(case.x),) * 2)

    @jax.jit
    def everything(theta):
        k_xx, pull_back = jax.vjp(lambda theta: kernel(theta)(case.x), theta)
        forward = jax.jacfwd(lambda theta: kernel(theta)(case.x))(theta)
        return k_xx, kernel(theta)(case.x, case.z), forward, pull_back(weights)[0]

    k_xx, k_xz, forward, reverse = everything(theta)
    case.check(k_xx, "k_xx")
    case.check(k_xz, "k_xz")
    case.check(forward, "dk_dlogtheta")
    np.testing.assert_allclose(reverse, np.einsum("ij,ijp->p", weights, forward), 1e-12, 1e-12)


@pytest.mark.parametrize("name", ["wendland0_s0d3", "wendland1_s1d1", "wendland3_s1d1", "wendland3_s1d3"])
def test_golden_wendland(case, name):
    case = case(f"kernel_{name}")
    kernel = kernels.Wendland(case.params["lengthscale"], order=case.params["q"])
    case.check(kernel(case.x, case.z), "k_xz")
    if case.params["q"]:
        case.check(kernel(case.x), "k_xx")
    else:  # the reference lost the last eight digits of r where points coincide
        case.check(kernel(case.x), "k_xx", ~np.eye(len(case.x), dtype=bool))
        np.testing.assert_array_equal(jnp.diagonal(kernel(case.x)), 1)


def test_wendland_of_order_2_in_three_dimensions():
    """`(1 - r)^6 (35 r^2 + 18 r + 3) / 3`: the best known of them, Wendland 1995, table 1."""
    x = np.random.default_rng(0).uniform(size=(40, 3))
    r = np.linalg.norm(x[:, None] - x, axis=-1) / 1.3
    expected = np.maximum(1 - r, 0) ** 6 * (35 * r**2 + 18 * r + 3) / 3
    np.testing.assert_allclose(kernels.Wendland(1.3, order=2)(x), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("order, curvature", [(1, 3.0), (2, 5 / 3)])
def test_matern_second_derivatives_at_coincident_points(order, curvature):
    """`3 I` and `5/3 I`: a maximum under the root gives 0, and an L1 distance fills the whole matrix."""
    kernel = (kernels.Matern32(), kernels.Matern52())[order - 1]
    point = jnp.array([[0.3, -1.0, 2.0]])
    second = jax.jit(jax.jacfwd(jax.jacrev(lambda a, b: kernel(a, b)[0, 0], 0), 1))(point, point)
    np.testing.assert_allclose(second.reshape(3, 3), curvature * np.eye(3), atol=1e-14)


@pytest.mark.parametrize("kind", [kernels.Matern12, kernels.Matern32, kernels.Matern52])
def test_distances_are_euclidean(kind):
    """With the L1 distance, 400 normal points in the plane give eigenvalues down to -2."""
    x = np.random.default_rng(0).normal(size=(400, 2))
    assert np.linalg.eigvalsh(kind()(x))[0] > -1e-12


def test_rational_quadratic_tends_to_rbf():
    x = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(kernels.RationalQuadratic(alpha=1e14)(x), kernels.RBF()(x), rtol=1e-12)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: kernels.RBF(lengthscale=0.0), "lengthscale: expected a positive number, got 0.0"),
        (lambda: kernels.RBF(lengthscale=[1.0, -2.0]), "lengthscale: expected a positive number, got -2.0"),
        (lambda: kernels.Matern32(variance=float("nan")), "variance: expected a positive number, got nan"),
        (lambda: kernels.Wendland(order=4), "order: expected 0, 1, 2 or 3, got 4"),
        (lambda: kernels.RBF([1.0, 2.0])(jnp.zeros((4, 3))), "lengthscale: .* each of the 3 coordinates, got .*2"),
        (lambda: kernels.RBF(jnp.ones((2, 2)))(jnp.zeros((4, 2))), "lengthscale: expected a number or one for each"),
        (lambda: kernels.RBF()(jnp.arange(4)), "x: expected floating points .*, got int64; convert them first"),
        (lambda: kernels.RBF()(jnp.zeros((2, 2, 2))), r"x: expected points .*shape \(2, 2, 2\)"),
        (lambda: kernels.RBF()(jnp.zeros((2, 2)), jnp.zeros((2, 3))), r"x2: expected points of shape \(2,\)"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
