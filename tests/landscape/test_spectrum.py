"""Eigenvalues with their bounds, densities with their errors, and saddles."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec

from aijax import landscape, linalg
from aijax.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "loop"),
    [
        ("curv_mlp_nobias_tanh_mse", "compiled"),
        pytest.param("curv_mlp_nobias_tanh_mse", "host", marks=pytest.mark.slow),
        pytest.param("curv_cnn_tanh_mse", "auto", marks=pytest.mark.slow),
    ],
)
def test_ends_of_a_spectrum_are_those_of_the_dense_matrix(read_case, name, loop):
    case = read_case(name)
    given = case.loss_fn, case.params, case.batch
    pairs = landscape.compute_hessian_eigenvalues(*given, which="magnitude", loop=loop)
    np.testing.assert_allclose(pairs.values, case.arrays["top10_magnitude"], rtol=1e-8, atol=1e-12)
    assert pairs.converged.all() and (pairs.residuals < 2e-9 * abs(pairs.values[0])).all()
    top = case.flat(jax.tree.map(lambda leaf: leaf[0], pairs.vectors))
    assert abs(top @ case.arrays["top1_vec"]) == pytest.approx(1, abs=1e-8)


@pytest.mark.slow
def test_eigenvalues_of_data_and_parameters_on_eight_devices(read_case):
    case = read_case("curv_mlp_nobias_tanh_mse")
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    axes = {"net.0.weight": ("model",), "net.2.weight": (None, "model"), "net.4.weight": ()}
    params = {
        name: jax.device_put(a, NamedSharding(mesh, PartitionSpec(*axes[name]))) for name, a in case.params.items()
    }
    batch = jax.device_put(case.batch, NamedSharding(mesh, PartitionSpec("data")))
    pairs = landscape.compute_hessian_eigenvalues(case.loss_fn, params, batch, 5)
    np.testing.assert_allclose(pairs.values, case.arrays["top10_algebraic"][:5], rtol=1e-8)


def test_the_largest_eigenvalue_within_transformations():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)))
    loss_fn = lambda p, x: jnp.mean(jnp.tanh(x @ p["w"]) ** 2 + jnp.sin(x @ p["w"]) * p["b"])  # noqa: E731
    places = {"w": jnp.asarray(np.random.default_rng(1).normal(size=(4, 3))), "b": jnp.arange(4.0)}

    def largest(params):
        return landscape.compute_hessian_eigenvalues(loss_fn, params, x, 1).values[0]

    def dense(params):
        flat, whole = ravel_pytree(params)
        return jnp.linalg.eigvalsh(jax.hessian(lambda flat: loss_fn(whole(flat), x))(flat))[-1]

    both = [jax.value_and_grad(function) for function in (largest, dense)]
    scanned = jax.jit(lambda places: jax.lax.scan(lambda _, p: (None, both[0](p)), None, places)[1])(places)
    mapped, expected = (jax.jit(jax.vmap(function))(places) for function in both)
    for found in (scanned, mapped):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), found, expected)


def test_more_eigenvalues_than_parameters_are_refused():
    with pytest.raises(ConfigError, match="k: expected at most the dimension 3, got 4"):
        landscape.compute_hessian_eigenvalues(lambda w, x: jnp.mean(x @ w**2), jnp.ones(3), jnp.eye(3), 4)
    with pytest.raises(ConfigError, match="loop: unknown value 'no'"):
        landscape.compute_hessian_eigenvalues(lambda w, x: jnp.mean(x @ w**2), jnp.ones(3), jnp.eye(3), 1, loop="no")
    with pytest.raises(ConfigError, match="loop: 'host' needs values that are known"):
        jax.eval_shape(lambda d: linalg.eigsh(lambda v: d * v, jax.random.key(0), 3, 1, loop="host"), jnp.ones(3))


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("slq_mlp1k_gelu_ce", (10, 30, 20, 5)),
        pytest.param("slq_mlp2k_tanh_ce", (20, 40, 24, 10), marks=pytest.mark.slow),
    ],
)
def test_density_is_that_of_the_given_probes_and_near_the_exact_one(read_case, name, widths):
    shapes = {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        shapes |= {f"net.{2 * layer}.weight": (outputs, inputs), f"net.{2 * layer}.bias": (outputs,)}
    case = read_case(name, shapes=shapes)
    arrays = case.arrays
    matvec = landscape.hessian(case.loss_fn, case.params, case.batch)
    probes = case.vector(arrays["probes10"].astype(float))
    run = jax.jit(
        lambda matvec: landscape.spectral_density(
            matvec, None, case.params, steps=90, grid=jnp.asarray(arrays["grid"]), width=arrays["kernel_sigma"],
            probes=probes, batch_size=10,
        )
    )  # fmt: skip
    found = run(matvec)
    np.testing.assert_allclose(found.density, arrays["density_slq10"], rtol=1e-6, atol=1e-6 * found.density.max())
    step = arrays["grid"][1] - arrays["grid"][0]
    miss = np.sum(np.abs(found.density - arrays["density_exact"])) * step
    assert miss == pytest.approx(float(arrays["l1_error_slq10"]), rel=0.02)
    assert miss < 0.021
    off = np.abs(found.density - arrays["density_exact"]) <= 4 * found.standard_error + 1e-6 * found.density.max()
    assert off.mean() > 0.95
    process = jax.jit(lambda matvec, v: linalg.lanczos(matvec, v, 15))(matvec, case.vector(arrays["v0"].astype(float)))
    np.testing.assert_allclose(process.alpha, arrays["alpha"][:15], rtol=1e-6)
    np.testing.assert_allclose(process.beta[:14], arrays["beta"][:14], rtol=1e-6)


@pytest.mark.slow
def test_trace_diagonal_and_norm_are_within_their_errors(read_case):
    case = read_case("curv_mlp_nobias_tanh_mse")

    @jax.jit
    def run(matvec, key):
        given = matvec, key, matvec.params, 60
        return [
            verb(*given) for verb in (linalg.estimate_trace, linalg.estimate_diagonal)
        ], linalg.estimate_frobenius_norm(*given, method="hutch++")

    (trace, diagonal), norm = run(landscape.hessian(case.loss_fn, case.params, case.batch), jax.random.key(0))
    for found, name in ((trace, "trace"), (norm, "fro")):
        assert abs(found.value - case.arrays[name]) < 4 * found.standard_error < 0.1 * case.arrays[name]
    off = np.abs(case.flat(diagonal.value) - case.arrays["diag"]) / case.flat(diagonal.standard_error)
    assert (off < 3).mean() > 0.95


@pytest.mark.parametrize(
    "name",
    [
        "rank2_bottleneck_saddle",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("origin", "saddle_drop_smallest", "saddle_keep_middle")
        ),
    ],
)
def test_a_saddle_is_known_by_its_index_and_its_way_out(golden, name):
    with np.load(golden / "science" / "curvature" / f"critical_{name}.npz") as stored:
        case = dict(stored)
    params = {"w1": jnp.asarray(case["W1"]), "w2": jnp.asarray(case["W2"])}
    loss_fn = lambda p, batch: 0.5 * jnp.sum((p["w2"] @ p["w1"] - batch[0]) ** 2)  # noqa: E731
    matvec = landscape.hessian(loss_fn, params, case["M"][None])
    way = landscape.escape_direction(matvec, jax.random.key(0), params, tolerance=1e-12)
    assert way.values[0] == pytest.approx(case["eigvals"][0], rel=1e-9)
    out = jax.tree.map(lambda p, v: p + 0.01 * v[0], params, way.vectors)
    assert loss_fn(out, case["M"][None]) < case["loss"]
    steps = case["eigvals"].size
    every = landscape.compute_hessian_eigenvalues(loss_fn, params, case["M"][None], steps).values
    np.testing.assert_allclose(every[::-1], case["eigvals"], atol=1e-9)
    share = landscape.negative_share(matvec, jax.random.key(1), params, threshold=1e-9, num_samples=200, steps=steps)
    assert abs(share.value - case["n_negative"] / steps) <= 3 * share.standard_error + 1e-9
