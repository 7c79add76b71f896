"""What functions, parameters and inputs of empirical kernels must be like, told before anything is computed."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.independence import check_independent, check_pure
from aijax.ntk.tangent import Mapped, prefix_axes, removed
from aijax.trees import named_leaves, path_name
from aijax.typing import Params, PyTree


def check_params(params: Params) -> None:
    """Refuses parameters that cannot be differentiated."""
    for name, leaf in named_leaves(params).items():
        if isinstance(leaf, str):
            raise ConfigError(f"params: expected real floating-point arrays, got {leaf!r}")
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ConfigError(f"params: expected real floating-point arrays, but {name!r} is {jnp.result_type(leaf)}")


def check_rows(name: str, x: PyTree) -> int:
    """Returns the length of the first axis of a tree of arrays, refusing trees whose arrays differ in it or are empty.

    The arrays may be anything with `shape` and `dtype`.
    """
    leaves = jax.tree_util.tree_leaves_with_path(x)
    if not leaves:
        raise ConfigError(f"{name}: expected an array or a tree of arrays, got {x!r}")
    rows = None
    for path, leaf in leaves:
        where = f"{name}/{path_name(path)}" if path else name
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise ConfigError(f"{where}: expected an array, got {type(leaf).__name__}")
        if len(leaf.shape) == 0 or leaf.shape[0] == 0:
            raise ConfigError(f"{where}: expected one row or more, got shape {tuple(leaf.shape)}")
        rows = leaf.shape[0] if rows is None else rows
        if leaf.shape[0] != rows:
            raise ConfigError(f"{where}: expected {rows} rows as in the first array, got {leaf.shape[0]}")
    return rows


def check_alike(x1: PyTree, x2: PyTree | None, axes: Sequence[int | None] | None) -> None:
    """Refuses batches whose trees or shapes differ in more than the number of examples, or that are empty.

    Args:
      x1: a tree of arrays.
      x2: another, or None where there is one batch only.
      axes: the axis of examples of each array, or None for one that has none; None for all where it is not known: only
        the trees and the numbers of axes are compared then.
    """
    leaves1, tree1 = jax.tree.flatten(x1)
    leaves2, tree2 = jax.tree.flatten(x1 if x2 is None else x2)
    if tree1 != tree2:
        raise ConfigError(f"x2: expected a tree like x1's, {tree1}, got {tree2}")
    for index, shapes in enumerate(zip(map(_shape, leaves1), map(_shape, leaves2), strict=True)):
        one, two = shapes
        if len(one) != len(two):
            raise ConfigError(f"x2: expected {len(one)} axes as x1 has, got shape {two}")
        if axes is None:
            continue
        axis = axes[index]
        if axis is not None and not -len(one) <= axis < len(one):
            raise ConfigError(f"x1: expected an axis {axis} of examples, got shape {one}")
        for name, shape in (("x1", one), ("x2", two)):
            if axis is not None and shape[axis] == 0:
                raise ConfigError(f"{name}: expected at least one example, got shape {shape}")
        one, two = (shape if axis is None else removed(shape, axis) for shape in shapes)
        if one != two:
            raise ConfigError(f"x2: expected examples of shape {one} as x1 has, got {two}")


def check_batch(
    function: Callable[[Params, Any], Any], params: Params, inputs: PyTree, mapped: Mapped, shapes: PyTree, where: str
) -> None:
    """Refuses inputs and outputs that do not agree in the number of examples, and examples that interact."""
    leaves, tree = jax.tree.flatten(inputs)
    axes = prefix_axes(mapped.in_axes, inputs)
    counts = {x.shape[axis] for x, axis in zip(leaves, axes, strict=True) if axis is not None}
    if len(counts) != 1:
        raise ConfigError(f"x1: expected arrays with the same number of examples, got {sorted(counts) or 'none'}")
    (n,) = counts
    for shape, axis in zip(jax.tree.leaves(shapes), prefix_axes(mapped.out_axes, shapes), strict=True):
        if axis is None or not -len(shape.shape) <= axis < len(shape.shape) or shape.shape[axis] != n:
            raise ConfigError(f"{where}: expected outputs with {n} examples on axis {axis}, got shape {shape.shape}")

    def batch_of(count):
        sized = []
        for x, axis in zip(leaves, axes, strict=True):
            shape = list(x.shape)
            if axis is not None:
                shape[axis] = count
            sized.append(jax.ShapeDtypeStruct(shape, x.dtype))
        return jax.tree.unflatten(tree, sized)

    check_independent(functools.partial(function, params), batch_of, where)


def output_shapes(
    function: Callable[[Params, Any], Any], params: Params, inputs: PyTree, where: str = "apply_fn"
) -> PyTree:
    """Returns the shapes of a function's outputs, refusing one that is not pure, cannot be traced or is not real.

    The inputs may be anything with `shape` and `dtype`.
    """
    inputs = jax.tree.map(_described, inputs)
    try:
        check_pure(function, params, inputs, where=where)
        shapes = jax.eval_shape(function, params, inputs)
    except ConfigError:
        raise
    except Exception as error:
        told = next(iter(str(error).strip().splitlines()), "")
        raise ConfigError(
            f"{where}: cannot be traced with these parameters and inputs ({type(error).__name__}: {told[:200]})"
        ) from error
    if not jax.tree.leaves(shapes):
        raise ConfigError(f"{where}: expected an array or a tree of arrays, got none")
    for shape in jax.tree.leaves(shapes):
        if not jnp.issubdtype(shape.dtype, jnp.floating):
            raise ConfigError(f"{where}: expected real floating-point outputs, got {shape.dtype}{list(shape.shape)}")
    return shapes


def _described(x: Any) -> Any:
    """Returns an array on a device as it is, of any other its shape and the type that it has there."""
    return x if isinstance(x, jax.Array) else jax.ShapeDtypeStruct(x.shape, jnp.result_type(x))


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(x.shape)
