"""Kernels block by block: against the whole kernel, on one device and on many, from any kind of input."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh

from aijax import parallel
from aijax.errors import ConfigError, RunError
from aijax.ntk.assembly import find_mirror, mirrored
from aijax.ntk.block_programs import compiled as compiled_programs
from aijax.ntk.blocks import FactoredKernel, kernel_blocks

WEIGHTS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
Both = collections.namedtuple("Both", "nngp ntk")


def features(x, w):
    return jnp.tanh(x @ w)


def zipped(x1, x2, w):
    """A kernel with an output axis twice, [n1, n2, 3, 3], that is not the same when its output axes are exchanged."""
    return jnp.einsum("ia,jb->ijab", features(x1, w), features(x2, w))


def rows(count, seed=1):
    return np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def meshes():
    return {count: parallel.make_mesh(devices=jax.devices()[:count]) for count in (1, 3, 8)}


@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize("shape", [(10, None), (29, None), (10, 7), (3, 23), (1, None), (1, 2)])
def test_blocks_give_the_whole_kernel(meshes, devices, shape):
    x1, x2 = rows(shape[0]), None if shape[1] is None else rows(shape[1], 2)
    whole = zipped(x1, x1 if x2 is None else x2, WEIGHTS)
    for block_size in (4, "auto"):
        found = kernel_blocks(zipped, x1, x2, kernel_args=(WEIGHTS,), block_size=block_size, mesh=meshes[devices])
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, whole, atol=1e-6)
        if x2 is None:
            np.testing.assert_array_equal(found, found.transpose(1, 0, 3, 2))


def test_one_device_and_eight_give_the_same(meshes):
    x = rows(37)
    one, eight = (
        kernel_blocks(zipped, x, kernel_args=(WEIGHTS,), block_size=4, mesh=meshes[count]) for count in (1, 8)
    )
    np.testing.assert_allclose(one, eight, rtol=0, atol=2e-7)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(1, 5))
def test_any_sizes_and_pairs_of_block_sizes(n1, n2, b1, b2):
    x1, x2 = rows(n1), rows(n2, 2)
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    found = kernel_blocks(lambda a, b: a @ b.T, x1, x2, block_size=(b1, b2), mesh=mesh)
    np.testing.assert_allclose(found, x1 @ x2.T, atol=1e-5)


def test_only_the_upper_triangle_is_computed_and_its_diagonal_by_none(meshes):
    met = []

    def kernel(x1, x2):
        jax.debug.callback(lambda a, b: met.append((int(a), int(b))), x1[0, 0], (x1 if x2 is None else x2)[0, 0])
        return jnp.ones((len(x1), len(x1 if x2 is None else x2))) * (2.0 if x2 is None else 1.0)

    x = np.arange(20, dtype=np.float32)[:, None]
    for count in (1, 8):
        met.clear()
        found = kernel_blocks(kernel, x, block_size=4, mesh=meshes[count])
        jax.effects_barrier()
        assert sorted(tuple(sorted(pair)) for pair in met) == sorted(
            itertools.combinations_with_replacement(range(0, 20, 4), 2)
        )
        np.testing.assert_array_equal(found == 2, np.kron(np.eye(5), np.ones((4, 4))) == 1)


def test_a_block_size_has_one_compiled_shape():
    traced = collections.Counter()

    def kernel(x1, x2):
        traced[x1.shape[0], None if x2 is None else x2.shape[0]] += 1
        return x1 @ (x1 if x2 is None else x2).T

    kernel_blocks(kernel, rows(11), block_size=4)
    kernel_blocks(kernel, rows(11), rows(6, 2), block_size=4)
    assert set(traced) <= {(2, 3), (4, None), (4, 4)}


def test_features_are_computed_once_a_row():
    met = []

    def features_fn(x):
        jax.debug.callback(lambda a: met.append(int(a)), x[0, 0])
        return {"f": x * 2.0}

    kernel = FactoredKernel(features_fn, lambda a, b: a["f"] @ b["f"].T)
    x = np.arange(20, dtype=np.float32)[:, None]
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    found = kernel_blocks(kernel, x, block_size=4, mesh=mesh)
    jax.effects_barrier()
    assert sorted(met) == list(range(0, 20, 4))
    np.testing.assert_allclose(found, 4 * x @ x.T)
    halved = FactoredKernel(features_fn, kernel.pair_fn, lambda a: a["f"] @ a["f"].T * 1.5)
    marked = kernel_blocks(halved, x, block_size=4, mesh=mesh)
    np.testing.assert_array_equal(marked, found * np.where(np.kron(np.eye(5), np.ones((4, 4))), 1.5, 1))
    np.testing.assert_array_equal(halved(x), 6 * x @ x.T)
    jax.effects_barrier()
    met.clear()
    tight = kernel_blocks(kernel, x, block_size=4, mesh=mesh, memory_budget=100)  # one block of columns at a time
    jax.effects_barrier()
    assert len(met) == 5 * 6 / 2
    np.testing.assert_array_equal(tight, found)


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_a_factored_kernel_goes_round_the_ring(meshes, devices):
    kernel = FactoredKernel(features, lambda a, b, w: jnp.einsum("ia,jb->ijab", a, b))
    for x2 in (None, rows(13, 2)):
        found = kernel_blocks(kernel, rows(29), x2, kernel_args=(WEIGHTS,), block_size=3, mesh=meshes[devices])
        np.testing.assert_allclose(found, zipped(rows(29), rows(29) if x2 is None else x2, WEIGHTS), atol=1e-6)


def test_trees_of_inputs_and_of_results():
    x = {"a": rows(7), "b": (rows(7, 2).astype(np.float64),)}

    def kernel(x1, x2):
        return Both(x1["a"] @ x2["a"].T, jnp.einsum("ik,jl->ijkl", x1["b"][0][:, :2], x2["b"][0][:, :2]))

    found = kernel_blocks(kernel, x, block_size=3)
    assert isinstance(found, Both)
    np.testing.assert_allclose(found.nngp, x["a"] @ x["a"].T, atol=1e-5)
    np.testing.assert_allclose(found.ntk[1, 2], np.outer(x["b"][0][1, :2], x["b"][0][2, :2]), atol=1e-5)
    np.testing.assert_array_equal(found.ntk, found.ntk.transpose(1, 0, 3, 2))


class Sliceable:
    """What HDF5 and Zarr arrays offer, and no more; counts the rows that were read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __getitem__(self, index):
        assert isinstance(index, slice)
        self.most = max(self.most, index.stop - index.start)
        return self.array[index]


def test_inputs_stay_on_the_host(tmp_path):
    array = rows(23)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=array.shape)
    mapped[:] = array
    lazy = Sliceable(array)
    for x in (mapped, lazy, jnp.asarray(array)):
        np.testing.assert_allclose(kernel_blocks(lambda a, b: a @ b.T, x, block_size=5), array @ array.T, atol=1e-5)
    assert lazy.most <= 5


@pytest.mark.parametrize("devices", [1, 8])
def test_a_gradient_inside_a_block_is_of_that_block_alone(meshes, devices):
    def kernel(x1, x2, w):
        def jacobian(x):
            def f(w):
                return jax.lax.scan(lambda c, _: (jnp.tanh(c + x @ w), None), jnp.zeros((len(x), 3)), length=2)[0].sum(
                    1
                )

            return jax.jacrev(f)(w).reshape(len(x), -1)

        return jacobian(x1) @ jacobian(x2).T

    x = rows(13)
    found = kernel_blocks(kernel, x, kernel_args=(jnp.asarray(WEIGHTS),), block_size=2, mesh=meshes[devices])
    np.testing.assert_allclose(found, kernel(x, x, WEIGHTS), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("devices", [1, 3])
def test_parameters_on_another_mesh(meshes, devices):
    x = rows(9)
    for mesh in meshes.values():
        w = jax.device_put(WEIGHTS, parallel.replicated(mesh))
        closed_over = kernel_blocks(lambda a, b: zipped(a, b, w), x, block_size=4, mesh=meshes[devices])  # noqa: B023
        passed = kernel_blocks(zipped, x, kernel_args=(w,), block_size=4, mesh=meshes[devices])
        np.testing.assert_allclose(closed_over, passed, atol=1e-6)
        np.testing.assert_allclose(passed, zipped(x, x, WEIGHTS), atol=1e-6)


def test_the_second_of_equal_programs_is_not_compiled_again_and_has_its_own_arrays(meshes):
    def run(w):
        return kernel_blocks(lambda a, b: jnp.cos(a @ w) @ jnp.cos(b @ w).T, rows(9), block_size=4, mesh=meshes[1])

    before = compiled_programs.cache_info().misses
    first = run(jnp.asarray(WEIGHTS))
    assert compiled_programs.cache_info().misses == before + 1  # without x2=None the diagonal runs the same program
    second = run(jnp.asarray(2 * WEIGHTS))
    assert compiled_programs.cache_info().misses == before + 1
    np.testing.assert_allclose(first, np.cos(rows(9) @ WEIGHTS) @ np.cos(rows(9) @ WEIGHTS).T, atol=1e-5)
    np.testing.assert_allclose(second, np.cos(rows(9) @ WEIGHTS * 2) @ np.cos(rows(9) @ WEIGHTS * 2).T, atol=1e-5)


@pytest.mark.parametrize("devices", [1, 8])
def test_out_of_memory_halves_the_block_and_says_so_once(meshes, devices):
    def kernel(x1, x2, w):
        if x1.shape[0] > 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return zipped(x1, x1 if x2 is None else x2, w)

    said, x = [], rows(29)
    mesh = meshes[devices]
    found = kernel_blocks(kernel, x, kernel_args=(WEIGHTS,), block_size=5, mesh=mesh, report=said.append)
    np.testing.assert_allclose(found, zipped(x, x, WEIGHTS), atol=1e-6)
    np.testing.assert_array_equal(found, found.transpose(1, 0, 3, 2))
    assert said == ["kernel_blocks: a block of 5 x 5 rows is more than the memory of a device; going on with 3 x 3"]
    chosen = kernel_blocks(kernel, x, kernel_args=(WEIGHTS,), mesh=mesh, report=pytest.fail)
    np.testing.assert_allclose(chosen, found, atol=1e-6)


def test_out_of_memory_in_the_middle_goes_on_where_it_was(meshes):
    failed, met = [], []

    def host(a):
        met.append(int(a))
        if int(a) == 8 and not failed:
            failed.append(True)
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return np.float32(1)

    def kernel(x1, x2):
        return jax.pure_callback(host, jax.ShapeDtypeStruct((), jnp.float32), x1[0, 0]) * x1 @ x2.T

    x, said = np.arange(1, 13, dtype=np.float32)[:, None] - 1, []
    found = kernel_blocks(kernel, x, x, block_size=4, mesh=meshes[1], report=said.append)
    np.testing.assert_allclose(found, x @ x.T)
    assert len(said) == 1 and "going on with 2 x 2" in said[0]


def test_one_row_too_much_is_an_error():
    def kernel(x1, x2):
        if x1.shape[0] == x2.shape[0]:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
        return x1 @ x2.T

    for block_size in (4, "auto"):
        with pytest.raises(RunError, match="one row by one row"):
            kernel_blocks(kernel, rows(9), rows(9), block_size=block_size, report=lambda sentence: None)


def test_auto_keeps_the_memory_budget():
    sizes = []

    def kernel(x1, x2):
        sizes.append(x1.shape[0])
        return jnp.einsum("ia,jb->ijab", x1, x2).sum((2, 3))[..., None] * jnp.ones(1000)

    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    x = rows(200)
    kernel_blocks(kernel, x, x, mesh=mesh, memory_budget=20_000_000)
    large = sizes[-1]
    kernel_blocks(kernel, x, x, mesh=mesh, memory_budget=2_000_000)
    assert 4 * sizes[-1] ** 2 * 1000 < 2_000_000 < 4 * large**2 * 1000 < 20_000_000


def test_progress_is_told(capsys):
    told = []
    kernel_blocks(lambda a, b: a @ b.T, rows(10), block_size=4, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 6) and told[-1] == (6, 6) and told == sorted(told)
    kernel_blocks(lambda a, b: a @ b.T, rows(10), block_size=4)
    assert capsys.readouterr() == ("", "")


def test_arguments_that_are_no_arrays_are_fixed():
    def kernel(x1, x2, options, key):
        scale = {"plain": 1.0, "double": 2.0}[options["name"]] * jax.random.uniform(key)
        return scale * (x1 @ x2.T)

    key, x = jax.random.key(3), rows(5)
    found = kernel_blocks(kernel, x, kernel_args=({"name": "double"}, key), block_size=2)
    np.testing.assert_allclose(found, 2 * float(jax.random.uniform(key)) * x @ x.T, rtol=1e-5)


def test_double_precision_is_kept():
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(7, 4))
        found = kernel_blocks(lambda a, b: a @ b.T, x, block_size=3)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, x @ x.T, rtol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x2": np.ones((3, 4), np.float32)}, r"x2: expected examples of shape \(5,\) as x1 has, got \(4,\)"),
        ({"x2": {"a": rows(3)}}, "x2: expected a tree like x1's"),
        ({"x1": np.ones((0, 5))}, r"x1: expected one row or more, got shape \(0, 5\)"),
        ({"x1": np.float32(1)}, r"x1: expected one row or more, got shape \(\)"),
        ({"x1": {"a": rows(3), "b": rows(4)}}, "x1/b: expected 3 rows as in the first array, got 4"),
        ({"x1": [1.0, 2.0]}, "x1/0: expected an array, got float"),
        ({"x1": {}}, "x1: expected an array or a tree of arrays"),
        ({"block_size": 0}, "block_size: expected rows .*, got 0"),
        ({"block_size": "big"}, "block_size: expected rows .*, got 'big'"),
        ({"block_size": 2.0}, "block_size: expected rows"),
        ({"block_size": (2, 3)}, "block_size: with x2=None blocks are square"),
        ({"memory_budget": 0}, "memory_budget: expected a number of bytes above 0"),
        ({"mesh": Mesh(np.array(jax.devices()[:2]), ("rows",))}, "mesh: expected a mesh of aijax.parallel.make_mesh"),
        ({"mesh": 8}, "mesh: expected a mesh"),
        ({"kernel_fn": lambda a, b: (a @ b.T)[:, :1]}, r"kernel_fn: expected arrays .* \(2, 3\), got shape \(2, 1\)"),
        ({"kernel_fn": lambda a, b: jnp.sum(a)}, r"kernel_fn: expected arrays .* got shape \(\)"),
        ({"kernel_fn": lambda a, b: {}}, "kernel_fn: expected an array or a tree"),
        ({"kernel_fn": lambda a, b: a[:, :1] + 2 * (a @ b.T)}, "kernel_fn: with x2=None it must be symmetric"),
    ],
)
def test_mistakes_are_sentences(arguments, message):
    given = {"kernel_fn": lambda a, b: a @ b.T, "x1": rows(6), "block_size": 4} | arguments
    with pytest.raises(ConfigError, match=message):
        kernel_blocks(**given)


def test_mirror_images_leave_axes_that_are_there_once():
    random = np.random.default_rng(0)
    f = random.normal(size=(4, 2, 3, 3))
    paired = np.einsum("iabc,jxbc->ijaxbc", f, f)  # axis a is there twice, b and c once although b is as long as c
    assert find_mirror(paired) == (1, 0, 2, 3)
    assert find_mirror(np.einsum("iabc,jxyz->ijaxbycz", f, f)) == (1, 0, 3, 2, 5, 4)
    assert find_mirror(np.einsum("iabc,jabc->ij", f, f)) == ()
    np.testing.assert_allclose(mirrored(paired[:2, 2:], (1, 0, 2, 3)), paired[2:, :2])
