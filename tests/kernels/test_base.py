"""What holds of every kernel, and how kernels compose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax import kernels, parallel
from aijax.errors import ConfigError


def spectral_mixture(d, rng):
    return kernels.SpectralMixture(rng.uniform(0.1, 1, 3), rng.normal(size=(3, d)), rng.uniform(0, 0.3, (3, d)))


def several_outputs(d, rng):
    """On d + 1 columns, the last of them the output; `points` of this file has whole numbers there."""
    return kernels.ICM(kernels.RBF(2.0), rng.normal(size=(3, 2)), rng.uniform(size=3))


EVERY = {
    "rbf": lambda d, rng: kernels.RBF(rng.uniform(0.5, 2, d), 1.5),
    "matern12": lambda d, rng: kernels.Matern12(rng.uniform(0.5, 2, d), 1.5),
    "matern32": lambda d, rng: kernels.Matern32(rng.uniform(0.5, 2, d), 1.5),
    "matern52": lambda d, rng: kernels.Matern52(1.3),
    "rational_quadratic": lambda d, rng: kernels.RationalQuadratic(rng.uniform(0.5, 2, d), 0.7, 1.5),
    "wendland0": lambda d, rng: kernels.Wendland(2.0 * d, order=0),
    "wendland1": lambda d, rng: kernels.Wendland(2.0 * d, order=1),
    "wendland2": lambda d, rng: kernels.Wendland(2.0 * d, order=2),
    "wendland3": lambda d, rng: kernels.Wendland(2.0 * d, order=3),
    "periodic": lambda d, rng: kernels.Periodic(rng.uniform(0.5, 2, d), rng.uniform(0.5, 2, d)),
    "cosine": lambda d, rng: kernels.Cosine(rng.uniform(0.5, 2, d)),
    "spectral_mixture": spectral_mixture,
    "linear": lambda d, rng: kernels.Linear(rng.uniform(0.5, 2, d)),
    "polynomial": lambda d, rng: kernels.Polynomial(3, 0.5 / d, 0.3),
    "arc_cosine0": lambda d, rng: kernels.ArcCosine(0),
    "arc_cosine1": lambda d, rng: kernels.ArcCosine(1, rng.uniform(0.5, 2, d) / d),
    "arc_cosine2": lambda d, rng: kernels.ArcCosine(2, 0.5 / d, 0.0),
    "constant": lambda d, rng: kernels.Constant(2.0),
    "white": lambda d, rng: kernels.White(2.0),
    "change_point": lambda d, rng: kernels.ChangePoint(kernels.RBF(), kernels.Linear(), 0.1, 3.0),
    "linear_map": lambda d, rng: kernels.LinearMap(kernels.Matern32(), rng.normal(size=(2, d))),
    "columns": lambda d, rng: kernels.Columns(kernels.RBF(), (d - 1,)) * kernels.Constant(),
    "warped": lambda d, rng: kernels.Warped(kernels.RBF(), jnp.tanh),
    "function": lambda d, rng: kernels.from_kernel_fn(lambda a, b: jnp.exp(a @ b / a.size)),
    "composite": lambda d, rng: 2.0 * kernels.RBF() ** 2 + kernels.Matern12() * kernels.Linear() + kernels.White(0.1),
}


def points(n, d, seed):
    """Points of which some coincide and some nearly do."""
    x = np.random.default_rng(seed).normal(size=(n, d))
    x[1], x[3] = x[0], x[2] + 1e-9
    return x


@jax.jit
def values(kernel, x):
    return kernel(x), kernel(x, x), kernel.diagonal(x)


def check_positive_semidefinite(kernel, x, white_on_diagonal=False):
    gram, of_two_sets, diagonal = map(np.asarray, values(kernel, jnp.asarray(x)))
    scale = np.max(np.diagonal(gram))
    np.testing.assert_allclose(gram, gram.T, rtol=1e-13, atol=1e-14 * scale)
    assert np.linalg.eigvalsh((gram + gram.T) / 2)[0] > -1e-10 * len(x) * scale
    np.testing.assert_allclose(diagonal, np.diagonal(gram), rtol=1e-12)
    if not white_on_diagonal:
        np.testing.assert_allclose(of_two_sets, gram, rtol=1e-12, atol=1e-13 * scale)


@pytest.mark.parametrize("name", EVERY)
def test_symmetric_positive_semidefinite_and_its_own_diagonal(name):
    for d in (1, 32):
        kernel = EVERY[name](d, np.random.default_rng(d))
        check_positive_semidefinite(kernel, points(24, d, d), name in ("white", "composite"))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(set(EVERY) - {"function"})), st.integers(0, 10**6), st.floats(0.01, 100.0))
def test_positive_semidefinite_at_any_scale(name, seed, scale):
    kernel = EVERY[name](32, np.random.default_rng(seed))
    check_positive_semidefinite(kernel, scale * points(24, 32, seed), name in ("white", "composite"))


def test_several_outputs_are_positive_semidefinite():
    x = points(24, 4, 0)
    x[:, -1] = np.random.default_rng(0).integers(3, size=24)
    check_positive_semidefinite(several_outputs(3, np.random.default_rng(0)), x)


@pytest.mark.parametrize("name", EVERY)
def test_transformations_and_float32(name):
    """jit, vmap over points and parameters, gradients that are finite though points coincide; float32 stays."""
    x = jnp.asarray(points(6, 2, 0))
    kernel = EVERY[name](2, np.random.default_rng(0))

    @jax.jit
    def everything(kernel, x):
        grams = jax.vmap(lambda x: kernel(x))(jnp.stack([x, x + 1]))
        gradient = jax.grad(lambda kernel, x: jnp.sum(kernel(x) * x[:, :1]), (0, 1))(kernel, x)
        return grams, gradient

    grams, gradient = everything(kernel, x)
    np.testing.assert_allclose(grams[0], kernel(x), rtol=1e-12, atol=1e-13)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert kernel(x.astype(jnp.float32)).dtype == kernel.diagonal(x.astype(jnp.float32)).dtype == jnp.float32


def test_vmap_over_parameters():
    x = jnp.asarray(points(5, 2, 0))
    batch = jax.vmap(lambda l: kernels.RBF(l) + kernels.White(l[0]))(jnp.array([[1.0, 2.0], [0.5, 0.7]]))
    got = jax.vmap(lambda kernel: kernel(x))(batch)
    np.testing.assert_allclose(got[1], (kernels.RBF([0.5, 0.7]) + kernels.White(0.5))(x), rtol=1e-13)


def test_algebra():
    x, z = points(4, 2, 0), points(5, 2, 1)
    a, b = kernels.RBF(), kernels.Matern32(2.0)
    np.testing.assert_allclose((a + b + a)(x, z), 2 * a(x, z) + b(x, z), rtol=1e-14)
    np.testing.assert_allclose((a * b * a)(x, z), a(x, z) ** 2 * b(x, z), rtol=1e-14)
    np.testing.assert_allclose((a**3)(x, z), a(x, z) ** 3, rtol=1e-14)
    for two in (2.0, 2, np.float64(2.0), jnp.float32(2.0), np.array(2.0)):
        np.testing.assert_allclose((two * a)(x), 2 * a(x), rtol=1e-14)
        np.testing.assert_allclose((a * two).diagonal(x), 2 * a.diagonal(x), rtol=1e-14)
    assert len((a + b + a).kernels) == len((a * b * a).kernels) == 3


def test_golden_composite(case):
    for name in ("s0d3", "s1d3"):
        composite = case(f"kernel_composite_{name}")
        p = composite.params
        theta = [p["c1"], *p["rbf_lengthscale"], p["c2"], p["matern32_lengthscale"], p["rq_alpha"]]
        theta = jnp.log(jnp.array([*theta, p["rq_lengthscale"], p["noise"]]))

        def kernel(theta):
            t = jnp.exp(theta)
            product = t[4] * kernels.Matern32(t[5]) * kernels.RationalQuadratic(t[7], t[6])
            return t[0] * kernels.RBF(t[1:4]) + product + kernels.White(t[8])

        @jax.jit
        def values(theta, kernel=kernel, x=composite.x, z=composite.z):
            return kernel(theta)(x), kernel(theta)(x, z), jax.jacfwd(lambda theta: kernel(theta)(x))(theta)

        for result, array in zip(values(theta), ("k_xx", "k_xz", "dk_dlogtheta"), strict=True):
            composite.check(result, array)


def test_white_noise_is_of_one_set_only():
    x = points(4, 2, 0)
    kernel = kernels.White(0.5)
    np.testing.assert_array_equal(kernel(x), 0.5 * np.eye(4))
    np.testing.assert_array_equal(kernel(x, x), 0)


def test_change_point_is_one_kernel_on_either_side():
    kernel = kernels.ChangePoint(kernels.RBF(), kernels.Linear(), location=0.5, steepness=100.0, column=1)
    early, late = np.array([[3.0, -2.0], [1.0, -1.0]]), np.array([[3.0, 4.0], [1.0, 2.0]])
    np.testing.assert_allclose(kernel(early), kernels.RBF()(early), rtol=1e-12)
    np.testing.assert_allclose(kernel(late), kernels.Linear()(late), rtol=1e-12)
    np.testing.assert_allclose(kernel(early, late), 0, atol=1e-12)
    far = jnp.array([[0.0, 1e6], [0.0, -1e6]])
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.grad(lambda k: k(far).sum()))(kernel)))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: kernels.RBF() ** 0.5, "exponent: expected a positive integer, got 0.5"),
        (lambda: kernels.RBF() ** True, "exponent: expected a positive integer, got True"),
        (lambda: -1.0 * kernels.RBF(), "variance: expected a positive number, got -1.0"),
        (lambda: kernels.RBF() + "a", "kernel: expected a kernel to add or multiply, got 'a'"),
        (lambda: kernels.RBF() + 1.0, "kernel: expected a kernel to add or multiply, got 1.0"),
        (lambda: kernels.White(0.0), "variance: expected a positive number, got 0.0"),
        (lambda: kernels.ChangePoint(kernels.RBF(), kernels.RBF(), steepness=-1.0), "steepness: expected a positive"),
        (lambda: kernels.ChangePoint(kernels.RBF(), kernels.RBF(), column=2)(jnp.zeros((3, 2))), "column: .* got 2"),
        (lambda: (kernels.RBF() + kernels.White())(jnp.arange(3)), "x: expected floating points"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_sharded_points_give_the_same_matrix():
    x = jnp.asarray(points(16, 3, 0))
    kernel = kernels.RBF([1.0, 2.0, 3.0]) + kernels.White(0.1)
    sharded = jax.device_put(x, parallel.batch_sharding(parallel.make_mesh()))
    np.testing.assert_allclose(jax.jit(lambda x: kernel(x))(sharded), kernel(x), rtol=1e-13)
