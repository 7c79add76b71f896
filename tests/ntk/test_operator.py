"""Kernel-vector products against reference values and dense kernels: batches, columns, meshes, solvers, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import parallel
from aijax.errors import ConfigError
from aijax.linalg import cg, lanczos
from aijax.ntk.operator import empirical_ntk_vp_fn, kernel_vector_product


def dense(apply_fn, params, x1, x2):
    """The kernel as a matrix over all entries of the outputs, from full Jacobians."""

    def flat(x):
        jacobian = jax.jacobian(lambda p: jnp.concatenate([y.ravel() for y in jax.tree.leaves(apply_fn(p, x))]))(params)
        return jnp.concatenate([j.reshape(j.shape[0], -1) for j in jax.tree.leaves(jacobian)], axis=1)

    return flat(x1) @ flat(x2).T


def mlp(params, x):
    for w, b in params[:-1]:
        x = jnp.tanh(x @ w + b)
    return x @ params[-1]


@pytest.fixture(scope="module")
def network():
    """A small network, its parameters, and 11 and 7 examples."""
    keys = jax.random.split(jax.random.key(0), 5)
    params = [
        (jax.random.normal(keys[0], (4, 6)) / 2, 0.1 * jax.random.normal(keys[1], (6,))),
        jax.random.normal(keys[2], (6, 3)) / 2,
    ]
    return mlp, params, jax.random.normal(keys[3], (11, 4)), jax.random.normal(keys[4], (7, 4))


def test_the_golden_products(empirical_case, quick):
    apply_fn, params, _, arrays, tolerance = empirical_case
    x1, x2, v, expected = (arrays[name] for name in ("x1", "x2", "vp_v", "vp_out"))
    with jax.enable_x64(True):
        products = (empirical_ntk_vp_fn(apply_fn, x1, x2, params), kernel_vector_product(apply_fn, params, x1, x2))
        results = jax.device_get(quick(lambda v: [product(v) for product in products], v))
    for result in results:
        assert np.abs(result - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("batch_size", [pytest.param(None, marks=pytest.mark.slow), 3, 7])
def test_batches_and_columns_agree_with_the_matrix_traced_or_from_the_host(network, batch_size):
    apply_fn, params, x1, x2 = network
    v = jax.random.normal(jax.random.key(1), (7, 3, 2))
    expected = (dense(apply_fn, params, x1, x2) @ v.reshape(21, 2)).reshape(11, 3, 2)
    matvec = kernel_vector_product(apply_fn, params, np.asarray(x1), np.asarray(x2), batch_size=batch_size)
    for product in (matvec, jax.jit(matvec)):
        np.testing.assert_allclose(product(v), expected, rtol=2e-5, atol=1e-4)
        np.testing.assert_allclose(product(v[..., 0]), expected[..., 0], rtol=2e-5, atol=1e-4)


def test_trees_of_inputs_and_outputs(network):
    apply_fn, params, x1, _ = network

    def f(params, x):
        return {"y": apply_fn(params, x["a"]), "z": [jnp.sum(x["b"][..., None] * params[1], (1, 2, 3))]}

    x = {"a": x1, "b": jnp.ones((11, 2, 6)) * x1[:, :1, None]}
    v = {"y": jnp.ones((11, 3)), "z": [jnp.arange(11.0)]}
    flat = jnp.concatenate([v["y"].ravel(), v["z"][0]])
    expected = dense(f, params, x, x) @ flat
    result = kernel_vector_product(f, params, x, batch_size=4)(v)
    np.testing.assert_allclose(jnp.concatenate([result["y"].ravel(), result["z"][0]]), expected, rtol=1e-5, atol=1e-4)


def test_a_memory_mapped_file_is_read_batch_by_batch(network, tmp_path):
    apply_fn, params, x1, _ = network
    np.save(tmp_path / "x.npy", x1)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    v = jnp.ones((11, 3))
    result = kernel_vector_product(apply_fn, params, mapped, batch_size=4)(v)
    np.testing.assert_allclose(result, kernel_vector_product(apply_fn, params, x1)(v), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_a_mesh_gives_what_one_device_gives(network, jit):
    apply_fn, params, x1, x2 = network
    x1 = jnp.concatenate([x1, x2])  # 18: two batches of eight and two left over
    mesh = parallel.make_mesh(data=4, fsdp=2)
    v = jax.random.normal(jax.random.key(1), (18, 3))
    alone = kernel_vector_product(apply_fn, params, x1)(v)
    matvec = kernel_vector_product(apply_fn, params, np.asarray(x1), batch_size=8, mesh=mesh)
    np.testing.assert_allclose((jax.jit(matvec) if jit else matvec)(v), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_solver_runs_outside_of_loops_with_its_products_compiled(network):
    apply_fn, params, x1, _ = network
    batches = []

    def counted(params, x):
        batches.append(x.shape[0])
        return apply_fn(params, x)

    matvec = kernel_vector_product(counted, params, np.asarray(x1), batch_size=5)
    with jax.disable_jit():
        start = jax.random.normal(jax.random.key(0), (11, 3))
        process = lanczos(matvec, start, 4)
    assert len(batches) < 20  # traced for two sizes of batches, twice each, and for the checks: not for each product
    expected = lanczos(kernel_vector_product(apply_fn, params, x1), start, 4)
    np.testing.assert_allclose(process.alpha, expected.alpha, rtol=1e-3)


def test_conjugate_gradients_solve_kernel_regression(network):
    apply_fn, params, x1, _ = network
    matvec = kernel_vector_product(apply_fn, params, x1, batch_size=4)
    b = jax.random.normal(jax.random.key(2), (11, 3))
    solution = cg(lambda v: matvec(v) + 0.5 * v, b).solution
    kernel = dense(apply_fn, params, x1, x1)
    expected = jnp.linalg.solve(kernel + 0.5 * jnp.eye(33), b.ravel()).reshape(11, 3)
    np.testing.assert_allclose(solution, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_derivatives_pass_through_the_parameters(network):
    apply_fn, params, x1, _ = network
    v = jax.random.normal(jax.random.key(1), (11, 3))

    def energy(params, batch_size):
        return jnp.vdot(v, kernel_vector_product(apply_fn, params, x1, batch_size=batch_size)(v))

    whole, batches = (jax.grad(energy)(params, size) for size in (None, 4))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), whole, batches)


def test_examples_that_interact_are_taken_together_or_refused(network):
    apply_fn, params, x1, _ = network

    def centred(params, x):
        y = apply_fn(params, x)
        return y - y.mean(0)

    v = jax.random.normal(jax.random.key(1), (11, 3))
    expected = (dense(centred, params, x1, x1) @ v.ravel()).reshape(11, 3)
    np.testing.assert_allclose(kernel_vector_product(centred, params, x1)(v), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="batch_size: examples cannot be taken 4"):
        kernel_vector_product(centred, params, x1, batch_size=4)


def test_vp_fn_takes_keyword_arguments_and_the_same_inputs(network):
    apply_fn, params, x1, x2 = network

    def noisy(params, x, *, rng, scale=1.0):
        return scale * apply_fn(params, x + jax.random.normal(rng, x.shape))

    key = jax.random.key(3)
    key1, key2 = jax.random.split(key)
    v = jax.random.normal(key, (7, 3))
    result = empirical_ntk_vp_fn(noisy, x1, x2, params, rng=key, scale=(jnp.array(2.0), jnp.array(3.0)))(v)
    noise1, noise2 = jax.random.normal(key1, x1.shape), jax.random.normal(key2, x2.shape)
    expected = 6 * kernel_vector_product(apply_fn, params, x1 + noise1, x2 + noise2)(v)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    same = empirical_ntk_vp_fn(noisy, x2, None, params, rng=key)(v)
    expected = kernel_vector_product(apply_fn, params, x2 + jax.random.normal(key, x2.shape))(v)
    np.testing.assert_allclose(same, expected, rtol=1e-4, atol=1e-4)


def test_refusals(network):
    apply_fn, params, x1, x2 = network
    with pytest.raises(ConfigError, match="params"):
        kernel_vector_product(apply_fn, {"w": jnp.arange(3)}, x1)
    with pytest.raises(ConfigError, match="outputs"):
        kernel_vector_product(lambda p, x: apply_fn(p, x).argmax(-1), params, x1)
    with pytest.raises(ConfigError, match="x2"):
        kernel_vector_product(apply_fn, params, x1, {"a": x1, "b": x2})
    for batch_size in (0, 2.5, True):
        with pytest.raises(ConfigError, match="batch_size"):
            kernel_vector_product(apply_fn, params, x1, batch_size=batch_size)
    with pytest.raises(ConfigError, match="batch_size"):
        kernel_vector_product(apply_fn, params, x1, batch_size=3, mesh=parallel.make_mesh())
    with pytest.raises(ConfigError, match="v: expected"):
        kernel_vector_product(apply_fn, params, x1, x2)(jnp.ones((11, 3)))
