import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax import parallel


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(4, 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 12))
def test_pieces_take_each_row_once_and_lie_in_one_block(size, block, piece):
    pieces = parallel.cut_rows(size, block, piece=piece)
    assert [row for part in pieces for row in range(size)[part]] == list(range(size))
    assert all(part.start // block == (part.stop - 1) // block and part.stop - part.start <= piece for part in pieces)


def test_each_device_has_a_block_and_short_ones_repeat_their_last_row(mesh):
    rows = parallel.cut_rows(10, 4)
    stacked = parallel.stack_rows(mesh, {"x": np.arange(10.0)}, rows, 4)["x"]
    assert stacked.shape == (8, 4) and {shard.data.shape for shard in stacked.addressable_shards} == {(1, 4)}
    assert stacked[2].tolist() == [8.0, 9.0, 9.0, 9.0]
    assert stacked[7].tolist() == stacked[2].tolist()


def test_a_function_of_blocks_runs_on_each_device_with_the_gradient_of_its_own(mesh):
    x = parallel.stack_rows(mesh, np.arange(16.0), parallel.cut_rows(16, 2), 2)
    gradient = jax.jit(
        parallel.each_device(lambda scale, x: jax.grad(lambda s: s * (x**2).sum())(scale), mesh, whole=1)
    )
    np.testing.assert_array_equal(gradient(3.0, x), (np.arange(16.0) ** 2).reshape(8, 2).sum(1))


def test_blocks_go_round_the_ring_of_devices(mesh):
    x = parallel.stack_rows(mesh, np.arange(8.0), parallel.cut_rows(8, 1), 1)
    passed = parallel.pass_on(mesh)(x)
    assert passed.ravel().tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    assert passed.sharding.is_equivalent_to(x.sharding, 2)


@pytest.mark.parametrize("ahead", [0, 2, 9])
def test_results_come_in_order_while_only_so_many_wait(ahead):
    begun = []

    def results():
        for label in range(5):
            begun.append(label)
            yield label, {"x": jax.numpy.full(2, label)}

    for label, tree in parallel.fetch(results(), ahead=ahead):
        assert isinstance(tree["x"], np.ndarray) and tree["x"].tolist() == [label] * 2
        assert begun[-1] == min(label + ahead, 4)
