"""The compiled functions of a kernel's blocks: one shape each, for every device of a mesh at once.

A kernel k(x, x') is compiled as features f(x) of a block of rows and a function of two blocks' features. For a plain
`kernel_fn` the features are the rows themselves; a `FactoredKernel` has the work that depends on one row only, such as
the factors of a Jacobian, in `features_fn`, where it is done once a block of rows and not once a block of the matrix.

Arrays that `kernel_fn` closes over (its parameters) are taken out of its jaxpr and passed to the compiled program as
arguments: as constants they would be copied into each program and folded by the compiler.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun
from jax.sharding import Mesh, NamedSharding

from aijax import parallel
from aijax.errors import ConfigError, RunError
from aijax.trees import count_bytes
from aijax.typing import PyTree

DEFAULT_BUDGET = 2**30
"""Bytes of a device that blocks may take where the device does not say how much it has."""
LEAST_ROWS, MOST_ROWS = 32, 1024
"""Rows of a block that is chosen: memory apart, a quarter of a device's share of the rows, between these."""
RESULTS_HELD = 3
"""Blocks of results on a device at once: one that is computed, two on their way to the host."""

NO_ROOM = "kernel_blocks: one row by one row of the kernel is more than the memory of a device"


@dataclasses.dataclass(frozen=True)
class FactoredKernel:
    """A kernel k(x1, x2) = pair(features(x1), features(x2)): a `kernel_fn` that says which work is done once a row.

    Attributes:
      features_fn: `features_fn(x, *kernel_args)`, any tree of arrays.
      pair_fn: `pair_fn(features1, features2, *kernel_args)`: the block `[n1, n2, ...]`.
      diagonal_fn: `diagonal_fn(features, *kernel_args)`: the block of rows with themselves, where there is a way that
        costs less than `pair_fn(features, features)`.

    >>> linear = FactoredKernel(lambda x: x * 2.0, lambda f1, f2: f1 @ f2.T)
    >>> linear(np.ones((2, 3)), np.ones((4, 3))).shape
    (2, 4)
    """

    features_fn: Callable[..., PyTree]
    pair_fn: Callable[..., PyTree]
    diagonal_fn: Callable[..., PyTree] | None = None

    def __call__(self, x1: PyTree, x2: PyTree | None = None, *kernel_args: Any) -> PyTree:
        first = self.features_fn(x1, *kernel_args)
        if x2 is None and self.diagonal_fn is not None:
            return self.diagonal_fn(first, *kernel_args)
        second = first if x2 is None else self.features_fn(x2, *kernel_args)
        return self.pair_fn(first, second, *kernel_args)


@dataclasses.dataclass(frozen=True)
class KernelParts:
    """A kernel as three functions `(arrays, *blocks)`, the arguments that are no arrays bound.

    Attributes:
      arrays: the arrays among the kernel's arguments.
      features: of a block of rows, or None where they are the rows.
      pair: of two blocks' features.
      diagonal: of one block's features, where that is another function than `pair` of them with themselves; it may
        turn out when it is traced that it is not.
    """

    arrays: list[Any]
    features: Callable | None
    pair: Callable
    diagonal: Callable | None


def as_kernel(kernel_fn: Callable, kernel_args: Sequence[Any]) -> KernelParts:
    """Returns `kernel_fn(x1, x2, *kernel_args)` as `KernelParts`."""
    arrays, arguments = split_arrays(tuple(kernel_args))
    if isinstance(kernel_fn, FactoredKernel):
        own = kernel_fn.diagonal_fn
        return KernelParts(
            arrays,
            lambda arrays, x: kernel_fn.features_fn(x, *arguments(arrays)),
            lambda arrays, first, second: kernel_fn.pair_fn(first, second, *arguments(arrays)),
            None if own is None else lambda arrays, features: own(features, *arguments(arrays)),
        )
    # what a jitted function closes over would stay inside its own jaxpr
    plain = kernel_fn.__wrapped__ if isinstance(kernel_fn, jax.stages.Wrapped) else kernel_fn
    return KernelParts(
        arrays,
        None,
        lambda arrays, x1, x2: plain(x1, x2, *arguments(arrays)),
        lambda arrays, x: plain(x, None, *arguments(arrays)),
    )


def split_arrays(tree: PyTree) -> tuple[list[Any], Callable[[Sequence[Any]], PyTree]]:
    """Returns the arrays of a tree, and the function that puts others in their place: what is no array stays."""
    leaves, structure = jax.tree.flatten(tree)
    is_array = [isinstance(leaf, (jax.Array, np.ndarray, np.generic)) for leaf in leaves]

    def with_arrays(arrays):
        given = iter(arrays)
        return structure.unflatten(
            [next(given) if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]
        )

    return [leaf for leaf, array in zip(leaves, is_array, strict=True) if array], with_arrays


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function of stacked blocks.

    Attributes:
      run: `run(*stacks)`, each stack with one block a device on its first axis.
      output: shapes of the result of one device.
      bytes: what it takes of a device while it runs, its results counted `RESULTS_HELD` times.
    """

    run: Callable
    output: PyTree
    bytes: int


class Programs:
    """The programs of a kernel for blocks of `sizes` rows on a mesh, each compiled when it is first asked for.

    Args:
      kernel: from `as_kernel`.
      x1, x2: shapes of all the inputs; x2 is None for a symmetric kernel.
      sizes: rows of a block of x1 and of x2.
      mesh: the devices.
      check: whether each array of a block must begin with the rows of both (`check_block`).
    """

    def __init__(
        self,
        kernel: KernelParts,
        x1: PyTree,
        x2: PyTree | None,
        sizes: tuple[int, int],
        mesh: Mesh,
        *,
        check: bool = True,
    ):
        self.kernel, self.mesh, self.sizes, self._check = kernel, mesh, sizes, check
        self._inputs = [_resized(x, size) for x, size in zip((x1, x1 if x2 is None else x2), sizes, strict=True)]

    @functools.cached_property
    def features(self) -> tuple[Program, Program] | None:
        """Of a block of x1 and of a block of x2, or None where the features are the rows."""
        if self.kernel.features is None:
            return None
        first, second = (self._compile(*self._trace(self.kernel.features, x), x) for x in self._inputs)
        return first, second

    @property
    def held(self) -> list[PyTree]:
        """Shapes of what a device holds of a block of x1 and of a block of x2."""
        return self._inputs if self.features is None else [program.output for program in self.features]

    @functools.cached_property
    def pair(self) -> Program:
        """`run(first, second, wanted)`: of two blocks' features; `wanted` says which devices compute anything."""
        traced = self._trace(self.kernel.pair, *self.held)
        if self._check:
            check_block(traced[1], self.sizes)
        return self._compile(*traced, *self.held, optional=True)

    @functools.cached_property
    def diagonal(self) -> Program:
        """`run(features, wanted)`: of a block with itself."""
        traced = None
        if self.kernel.diagonal is not None:
            try:
                traced = self._trace(self.kernel.diagonal, self.held[0])
                if self._check:
                    check_block(traced[1], self.sizes)
            except jax.errors.JaxRuntimeError:
                raise
            except Exception:  # it knows no x2=None: whatever else is wrong with it is raised by `pair`
                traced = None
        if traced is not None:
            return self._compile(*traced, self.held[0], optional=True)
        pair = self.pair
        return Program(lambda features, wanted: pair.run(features, features, wanted), pair.output, pair.bytes)

    def _trace(self, function: Callable, *blocks: PyTree) -> tuple[ClosedJaxpr, PyTree]:
        arrays = _spec(self.kernel.arrays)
        traced = jax.make_jaxpr(function, return_shape=True)(arrays, *blocks)
        placed = any(isinstance(getattr(array, "sharding", None), NamedSharding) for array in traced[0].consts)
        if placed and self.mesh.size > 1:
            # the jaxpr says on which mesh these are; as constants of a jaxpr inside they may be used on any
            return jax.make_jaxpr(jax.jit(function), return_shape=True)(arrays, *blocks)
        return traced

    def _compile(self, closed: ClosedJaxpr, output: PyTree, *blocks: PyTree, optional: bool = False) -> Program:
        """Returns the program of a traced function of `(arrays, *blocks)` for the mesh. Where it is `optional` a last
        stack says, as one flag a device, which devices are to compute anything."""
        mesh, guarded, arrays = self.mesh, optional and self.mesh.size > 1, self.kernel.arrays
        program = compiled(_Recipe(closed, arrays, blocks, output, mesh, guarded))
        whole = jax.device_put((closed.consts, arrays), parallel.replicated(mesh))
        placed = parallel.stack_sharding(mesh)

        def run(*stacks):
            *stacks, wanted = stacks if optional else (*stacks, None)
            flags = [jax.device_put(np.asarray(wanted), placed)] if guarded else []
            return program(*whole, *stacks, *flags)

        return Program(run, output, _bytes_of(program, output))


class _Recipe:
    """A traced function to compile; two are equal when their programs are."""

    def __init__(
        self, closed: ClosedJaxpr, arrays: list, blocks: Sequence[PyTree], output: PyTree, mesh, guarded: bool
    ):
        self.jaxpr, self.blocks, self.output, self.mesh, self.guarded = closed.jaxpr, blocks, output, mesh, guarded
        self.whole = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), _dtype(leaf), sharding=parallel.replicated(mesh)),
            (closed.consts, arrays),
        )
        self.inner = list(inner_constants(closed.jaxpr))  # kept, so that their identities stay theirs
        structures = jax.tree.structure((arrays, blocks)), jax.tree.structure(output)
        self._key = str(closed.jaxpr), tuple(map(id, self.inner)), structures, mesh, guarded

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Recipe) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@functools.lru_cache(maxsize=32)
def compiled(recipe: _Recipe) -> Any:
    """Returns the compiled program of `(constants, arrays, *stacks)`; what was compiled before is not compiled again,
    as with `jax.jit`, but for equal programs, whatever function they were traced from."""
    jaxpr, output, mesh = recipe.jaxpr, recipe.output, recipe.mesh

    def evaluate(constants, arrays, *blocks):
        leaves = jaxpr_as_fun(ClosedJaxpr(jaxpr, constants))(*jax.tree.leaves((arrays, blocks)))
        return jax.tree.structure(output).unflatten(map(jnp.asarray, leaves))

    def evaluate_wanted(constants, arrays, *blocks):
        *blocks, wanted = blocks
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), output)
        return jax.lax.cond(wanted, lambda *blocks: evaluate(constants, arrays, *blocks), lambda *_: nothing, *blocks)

    stacks = [*recipe.blocks, jax.ShapeDtypeStruct((), bool)] if recipe.guarded else recipe.blocks
    placed = parallel.stack_sharding(mesh)
    specs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((mesh.size, *leaf.shape), leaf.dtype, sharding=placed), stacks
    )
    stacked = parallel.each_device(evaluate_wanted if recipe.guarded else evaluate, mesh, whole=2)
    return jax.jit(stacked).lower(*recipe.whole, *specs).compile()


def inner_constants(jaxpr: Jaxpr) -> Iterator[Any]:
    """Yields the arrays that are constants of the jaxprs inside a jaxpr."""
    for equation in jaxpr.eqns:
        for variable in equation.invars:
            if isinstance(variable, Literal) and np.ndim(variable.val) > 0:
                yield variable.val
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if isinstance(inner, ClosedJaxpr):
                yield from inner.consts
                yield from inner_constants(inner.jaxpr)
            elif isinstance(inner, Jaxpr):
                yield from inner_constants(inner)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, (ClosedJaxpr, Jaxpr))


def check_block(output: PyTree, sizes: tuple[int, int]) -> None:
    """Raises a `ConfigError` unless each array of a block begins with the sizes of its two blocks of rows."""
    for leaf in jax.tree.leaves(output):
        if leaf.shape[:2] != tuple(sizes):
            raise ConfigError(
                f"kernel_fn: expected arrays whose first two axes are the rows of the blocks, {tuple(sizes)}, got "
                f"shape {tuple(leaf.shape)}"
            )
    if not jax.tree.leaves(output):
        raise ConfigError("kernel_fn: expected an array or a tree of arrays, got a tree without arrays")


def probe(kernel: KernelParts, x1: PyTree, x2: PyTree | None) -> tuple[PyTree, ClosedJaxpr]:
    """Returns the shapes of a block of 2 x 3 rows and its jaxpr, which tells one kernel from another.

    Raises:
      ConfigError: what `check_block` finds.
    """

    def block(arrays, x1, x2):
        if kernel.features is not None:
            x1, x2 = kernel.features(arrays, x1), kernel.features(arrays, x2)
        return kernel.pair(arrays, x1, x2)

    inputs = _resized(x1, 2), _resized(x1 if x2 is None else x2, 3)
    closed, output = jax.make_jaxpr(block, return_shape=True)(_spec(kernel.arrays), *inputs)
    check_block(output, (2, 3))
    return output, closed


def choose_sizes(
    kernel: KernelParts, x1: PyTree, x2: PyTree | None, mesh: Mesh, budget: int, processes: int = 1
) -> tuple[tuple[int, int], Programs]:
    """Returns the rows of a block that fit into `budget` bytes of a device, and the programs compiled to know it.

    A block's memory grows at most as the product of its rows: a block that is too big is cut by the square root of
    what it takes over the budget. Each of `processes` has a mesh like this one.
    """
    lengths = [rows_of(x) for x in ((x1, x1) if x2 is None else (x1, x2))]
    share = 4 * mesh.size * processes
    sizes = tuple(_even(n, min(max(-(-n // share), LEAST_ROWS), MOST_ROWS), mesh.size) for n in lengths)
    while True:
        one_block = x2 is None and sizes[0] >= lengths[0]
        programs = Programs(kernel, x1, x2, sizes, mesh)
        try:
            used = (programs.diagonal if one_block else programs.pair).bytes
            if programs.features is not None:
                used = max(used, *(program.bytes for program in programs.features))
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            if max(sizes) == 1:
                raise RunError(NO_ROOM) from None
            used = 4 * budget
        if used <= budget or max(sizes) == 1:
            return sizes, programs
        shrink = math.sqrt(budget / used)
        sizes = tuple(
            _even(n, max(1, min(int(b * shrink), b - 1)), mesh.size) for n, b in zip(lengths, sizes, strict=True)
        )


def budget_of(mesh: Mesh) -> int:
    """Returns the bytes of a device that blocks may take by default: half of what is free, 1 GiB where unknown."""
    found = [device.memory_stats() or {} for device in mesh.devices.flat]
    free = [stats["bytes_limit"] - stats.get("bytes_in_use", 0) for stats in found if "bytes_limit" in stats]
    return min(free) // 2 if free else DEFAULT_BUDGET


def out_of_memory(error: BaseException) -> bool:
    """Returns whether an error of the runtime says that a device is out of memory."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def rows_of(x: PyTree) -> int:
    """Returns the length of the first axis of a tree of arrays."""
    return jax.tree.leaves(x)[0].shape[0]


def _even(size: int, block: int, devices: int) -> int:
    """Returns the rows of a block, at most `block`, that share `size` rows evenly among blocks and devices."""
    return -(-size // (devices * -(-size // (block * devices))))


def _resized(x: PyTree, rows: int) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), _dtype(leaf)), x)


def _spec(tree: PyTree) -> PyTree:
    """Returns the shapes of a tree of arrays, wherever they are: programs place their arguments themselves."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), _dtype(leaf)), tree)


def _dtype(leaf: Any) -> Any:
    """Returns the type that an array has on a device."""
    key = isinstance(leaf, jax.Array)  # typed keys have a type that NumPy does not know
    return leaf.dtype if key else jax.dtypes.canonicalize_dtype(leaf.dtype)


def _bytes_of(compiled: Any, output: PyTree) -> int:
    memory, results = compiled.memory_analysis(), count_bytes(output)
    if memory is None:
        return RESULTS_HELD * results
    return memory.temp_size_in_bytes + memory.argument_size_in_bytes + RESULTS_HELD * results
