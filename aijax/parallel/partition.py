"""Where parameters and what belongs to them lie on a mesh.

A parameter is replicated over `data`, cut along one of its dimensions over `fsdp` (Rajbhandari et al. 2020, ZeRO stage
3: XLA gathers a weight where it is used and scatters the sum of its gradients), and cut over `tensor` where a rule says
so.
"""

import math
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aijax.errors import ConfigError, did_you_mean
from aijax.parallel.mesh import AXES, replicated
from aijax.trees import map_named, match_rules, named_leaves
from aijax.typing import PyTree


def parameter_shardings(
    mesh: Mesh,
    parameters: PyTree,
    *,
    rules: Sequence[tuple[str, Sequence[Any]]] = (),
    fsdp_min_elements: int = 0,
    where: str = "config.mesh.rules",
) -> PyTree:
    """Returns the tree of shardings of `parameters` (arrays or shapes).

    The first rule whose pattern matches a parameter's path gives its partition; without one, the parameter is cut over
    `fsdp` along its largest dimension that divides evenly, and is held whole where none does.

    Args:
      mesh: a mesh of `make_mesh`.
      parameters: any tree of arrays or of `jax.ShapeDtypeStruct`.
      rules: pairs (regular expression, partition); a partition names, for each dimension, an axis, several or None,
        as in `(".*/mlp/up/kernel", ("fsdp", "tensor"))`.
      fsdp_min_elements: parameters with fewer elements are held whole unless a rule matches.
      where: the rules' place in the config, for messages.

    Raises:
      ConfigError: an unknown axis, more entries than dimensions, a dimension that an axis does not divide, a pattern
        that matches nothing.
    """

    def by_shape(_, leaf):
        return fsdp_partition(leaf.shape, mesh.shape["fsdp"], fsdp_min_elements)

    partitions = match_rules(rules, parameters, default=by_shape, where=where)

    def sharding(name, leaf, partition):
        _check_partition(name, leaf.shape, tuple(partition), mesh, where)
        return NamedSharding(mesh, P(*(tuple(entry) if isinstance(entry, list) else entry for entry in partition)))

    return map_named(sharding, parameters, partitions)


def fsdp_partition(shape: Sequence[int], fsdp: int, min_elements: int = 0) -> P:
    """Returns the partition that cuts the largest dimension divisible by `fsdp` (the last of equals), else none.

    >>> tuple(fsdp_partition((768, 3072), 8)), tuple(fsdp_partition((3,), 8))
    ((None, 'fsdp'), ())
    """
    candidates = [(size, axis) for axis, size in enumerate(shape) if size and size % fsdp == 0]
    if fsdp == 1 or not candidates or math.prod(shape) < min_elements:
        return P()
    _, axis = max(candidates)
    return P(*([None] * axis), "fsdp")


def state_shardings(mesh: Mesh, state: PyTree, parameters: PyTree, shardings: PyTree) -> PyTree:
    """Returns the shardings of a train state: what has a parameter's path and shape lies as that parameter does, and
    anything else (counters, factored moments) is cut by shape where it has the parameter's path, else held whole.

    Args:
      mesh: the mesh.
      state: tree of arrays or shapes whose paths end in those of `parameters` (moments, averages, the parameters).
      parameters: the parameters (arrays or shapes).
      shardings: their shardings, as from `parameter_shardings`.
    """
    shapes = {name: leaf.shape for name, leaf in named_leaves(parameters).items()}
    placed = named_leaves(shardings)

    def sharding(name, leaf):
        words = name.split("/")
        owner = next((tail for i in range(len(words)) if (tail := "/".join(words[i:])) in shapes), None)
        if owner is None:
            return replicated(mesh)
        if shapes[owner] == leaf.shape:
            return placed[owner]
        return NamedSharding(mesh, fsdp_partition(leaf.shape, mesh.shape["fsdp"]))

    return map_named(sharding, state)


def _check_partition(name: str, shape: Sequence[int], partition: tuple, mesh: Mesh, where: str) -> None:
    if len(partition) > len(shape):
        raise ConfigError(f"{where}: {partition!r} has {len(partition)} entries, but '{name}' has shape {tuple(shape)}")
    for size, entry in zip(shape, partition, strict=False):
        axes = () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
        for axis in axes:
            if axis not in mesh.shape:
                raise ConfigError(f"{where}: '{name}' names the unknown axis {axis!r}{did_you_mean(str(axis), AXES)}")
        parts = math.prod(mesh.shape[axis] for axis in axes)
        if size % parts:
            raise ConfigError(
                f"{where}: '{name}' of shape {tuple(shape)} cannot be cut into {parts} along its dimension of {size}"
            )
