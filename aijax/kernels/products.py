"""Products with a Gram matrix that is never held: its rows are made in blocks, used and forgotten.

The rows are dealt out over the devices of a mesh, and each device makes its own, block by block; only the vectors go
between devices (Wang et al. 2019, arXiv:1903.08114, section 3). A block of rows is made in tiles of some columns, so
that it is used while it is in a cache: memory is that of a tile. In reverse mode tiles are made again, so that it is
the same there.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from aijax.linalg.vectors import check_count
from aijax.parallel import each_device, replicated
from aijax.typing import Any, Array, Callable, Float, PyTree

BLOCK_SIZE = 1024
TILE_SIZE = 4096


def kernel_product(
    kernel: Any,
    x1: Any,
    x2: Any,
    v: Float[Array, "n2 *k"],
    *,
    block_size: int | None = None,
    mesh: Mesh | None = None,
) -> Float[Array, "n1 *k"]:
    """Returns `k(x1, x2) v` in the memory of a tile of the matrix. Differentiable.

    Args:
      kernel: a kernel, or any function of two sets of points.
      x1: n1 points: arrays whose first axis counts them.
      x2: n2 points.
      v: `[n2]` or `[n2, k]`.
      block_size: rows made at a time on each device, 4096 entries of each; default 1024.
      mesh: devices that share the rows; default one.

    >>> from aijax.kernels.stationary import RBF
    >>> x = jnp.zeros((3, 2))
    >>> kernel_product(RBF(), x, x, jnp.ones(3)).tolist()
    [3.0, 3.0, 3.0]
    """
    n1 = count_rows(x1)
    rows = split_rows(n1, block_size, mesh)
    columns = v if v.ndim == 2 else v[:, None]
    return rows_product(kernel, rows, rows.pad(x1), x2, columns)[:n1].reshape(n1, *v.shape[1:])


@dataclass(frozen=True)
class Rows:
    """How n rows are dealt out: `devices x blocks x size` of them, the last ones copies to fill up."""

    n: int
    devices: int
    blocks: int
    size: int
    mesh: Mesh | None

    @property
    def padded(self) -> int:
        return self.devices * self.blocks * self.size

    def pad(self, tree: PyTree) -> PyTree:
        """Returns arrays of `padded` rows: the last row is repeated."""
        extra = self.padded - self.n
        return jax.tree.map(lambda a: jnp.pad(a, [(0, extra)] + [(0, 0)] * (jnp.ndim(a) - 1), mode="edge"), tree)

    def pad_zero(self, array: Array) -> Array:
        """Returns the array with rows of 0 up to `padded`."""
        return jnp.pad(array, [(0, self.padded - self.n)] + [(0, 0)] * (array.ndim - 1))


def split_rows(n: int, block_size: int | None = None, mesh: Mesh | None = None) -> Rows:
    """Returns how to deal out n rows; blocks are of equal size, at most `block_size`."""
    block_size = BLOCK_SIZE if block_size is None else block_size
    check_count("block_size", block_size)
    devices = 1 if mesh is None else mesh.size
    share = math.ceil(n / devices)
    blocks = math.ceil(share / block_size)
    return Rows(n, devices, blocks, math.ceil(share / blocks), mesh)


def rows_product(kernel: Any, rows: Rows, x1: Any, x2: Any, v: Float[Array, "n2 k"]) -> Float[Array, "n1 k"]:
    """Returns `k(x1, x2) v`, all `rows.padded` rows of it, for points x1 that were padded."""
    tiles = split_rows(count_rows(x2), TILE_SIZE)

    def stack(a):
        return a.reshape(tiles.blocks, tiles.size, *a.shape[1:])

    def block(kernel, x2, v, part):
        @jax.checkpoint
        def add(total, tile):
            points, vectors = tile
            return total + jnp.matmul(kernel(part, points), vectors, precision="highest"), None

        return jax.lax.scan(add, jnp.zeros((rows.size, v.shape[-1]), v.dtype), (x2, v))[0], ()

    whole = (kernel, jax.tree.map(stack, tiles.pad(x2)), stack(tiles.pad_zero(v)))
    return map_rows(block, rows, whole, (x1,))[0]


def map_rows(
    function: Callable[..., tuple[PyTree, PyTree]], rows: Rows, whole: tuple, parts: tuple
) -> tuple[PyTree, PyTree]:
    """Returns what `function(*whole, *blocks) -> (by row, sums)` gives for all rows: the first put together, the second
    added up. Nothing inside of it is kept for the derivative.

    Args:
      function: of the whole arguments and a block of `rows.size` rows of each of the others.
      rows: of `split_rows`.
      whole: trees that each device has whole.
      parts: trees of arrays with `rows.padded` rows.
    """

    def device(*arguments):
        once = jax.checkpoint(functools.partial(function, *arguments[: len(whole)]))
        return jax.lax.map(lambda blocks: once(*blocks), arguments[len(whole) :])

    def stack(a):
        return a.reshape(rows.devices, rows.blocks, rows.size, *a.shape[1:])

    def everywhere(tree):
        # what is not made of rows of the kernel is small, and each device has it: they talk once a product
        return tree if rows.mesh is None else jax.lax.with_sharding_constraint(tree, replicated(rows.mesh))

    stacked = jax.tree.map(stack, everywhere(parts))
    by_row, sums = everywhere(each_device(device, rows.mesh, whole=len(whole))(*whole, *stacked))
    by_row = jax.tree.map(lambda a: a.reshape(rows.padded, *a.shape[3:]), by_row)
    return by_row, jax.tree.map(lambda a: a.sum((0, 1)), sums)


def map_points(function: Callable[[PyTree], PyTree], x: PyTree, block_size: int | None = None) -> PyTree:
    """Returns `function(x)`, whose arrays count the points first, worked out for a block of points at a time.

    Args:
      function: of points, each by itself: what it gives for one does not depend on the others.
      x: points: arrays whose first axis counts them; anything else is one block.
      block_size: points of a block; default 1024.

    >>> map_points(lambda x: 2 * x, jnp.arange(3.0), block_size=2).tolist()
    [0.0, 2.0, 4.0]
    """
    if not all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(x)):
        return function(x)
    rows = split_rows(count_rows(x), block_size)
    if rows.blocks == 1:
        return function(x)
    blocks = jax.tree.map(lambda a: a.reshape(rows.blocks, rows.size, *a.shape[1:]), rows.pad(x))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[: rows.n], jax.lax.map(function, blocks))


def count_rows(x: Any) -> int:
    """Returns how many points x are."""
    return jnp.shape(jax.tree.leaves(x)[0])[0]
