"""Meshes, and where a batch lies on them: one program on one device, on many, and on many hosts.

A mesh has three named axes. A batch is split over `data` and `fsdp` together. The train step is written for one device
and compiled for the mesh; `per_replica` is the explicit form, in the manner of `jax.pmap`.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aijax.errors import ConfigError
from aijax.typing import Array, Batch, PRNGKey

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    *,
    devices: Sequence[jax.Device] | None = None,
    where: str = "config.mesh",
) -> Mesh:
    """Returns a mesh with the axes `data`, `fsdp` and `tensor` over `devices` (default: all).

    Args:
      data: replicas that split the batch; -1 takes the devices that the other axes leave.
      fsdp: devices that split both the batch and the parameters; may be -1 instead.
      tensor: devices that split parameters by rule; may be -1 instead.
      devices: the devices to use, all of which the mesh must take.
      where: the mesh's place in the config, for messages.

    Raises:
      ConfigError: a size that is neither -1 nor positive, two -1, or a product that is not the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = dict(zip(AXES, (data, fsdp, tensor), strict=True))
    for axis, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size == 0 or size < -1:
            raise ConfigError(f"{where}.{axis}: expected a positive number of devices or -1 for the rest, got {size!r}")
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ConfigError(f"{where}: {' and '.join(free)} are both -1; only one axis can take the rest")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if math.prod(sizes.values()) != len(devices):
        shape = " x ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise ConfigError(f"{where}: {shape} does not make the {len(devices)} devices there are")
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that holds an array whole on each device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits an array's first axis over `data` and `fsdp`."""
    return NamedSharding(mesh, P(BATCH_AXES))


def check_batch_size(mesh: Mesh, batch_size: int, *, where: str = "config.batch_size") -> None:
    """Raises a `ConfigError` when a batch cannot be split evenly over the mesh."""
    parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if batch_size < 1 or batch_size % parts:
        raise ConfigError(f"{where}: {batch_size} examples cannot be split over data x fsdp = {parts} devices")


def process_share(mesh: Mesh, batch_size: int) -> tuple[int, int]:
    """Returns `(index, count)`: of `count` equal parts of a global batch, the one that this process is to load.

    Processes that hold the same rows, as when `tensor` spans hosts, get the same index.
    """
    rows_of: dict[int, set[int]] = {}
    for device, (rows,) in batch_sharding(mesh).devices_indices_map((batch_size,)).items():
        rows_of.setdefault(device.process_index, set()).update(range(*rows.indices(batch_size)))
    parts = sorted({tuple(sorted(rows)) for rows in rows_of.values()})
    return parts.index(tuple(sorted(rows_of[jax.process_index()]))), len(parts)


def replicate_key(key: PRNGKey, mesh: Mesh) -> PRNGKey:
    """Returns a key, the same on every process, as a global array held whole on each device of the mesh."""
    if jax.process_count() == 1:
        return jax.device_put(key, replicated(mesh))
    data = np.asarray(jax.random.key_data(key))
    whole = jax.make_array_from_process_local_data(replicated(mesh), data)
    return jax.random.wrap_key_data(whole)


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> Batch:
    """Returns the global batch on the mesh, from this process's rows of it (see `process_share`).

    For a mesh of one device the arrays are returned as they are: a compiled function places them as it is called, at a
    tenth of the cost of `jax.device_put`.
    """
    if mesh.size == 1:
        return dict(batch)
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(dict(batch), sharding)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def on_mesh(function: Callable, mesh: Mesh) -> Callable:
    """Returns `function`, which, when it is compiled, knows the mesh: what it calls may use `keep_batch_split`."""

    @functools.wraps(function)
    def traced(*args, **kwargs):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return traced


def keep_batch_split(x: Array) -> Array:
    """Returns `x`, held to have its first axis split over `data` and `fsdp` in a program compiled `on_mesh`.

    A model says so of its residual stream. Without it XLA may cut activations as the parameters are cut, above all
    inside a scan, and move them at each layer in place of the weights. Elsewhere (no mesh, or inside `shard_map`) this
    does nothing.
    """
    mesh = jax.sharding.get_abstract_mesh()
    automatic = [axis for axis, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Auto]
    if not set(BATCH_AXES) <= set(automatic) or x.shape[0] % math.prod(mesh.shape[axis] for axis in BATCH_AXES):
        return x
    return jax.lax.with_sharding_constraint(x, P(BATCH_AXES, *[P.UNCONSTRAINED] * (x.ndim - 1)))


def on_many_devices() -> bool:
    """Returns whether the program that is being compiled `on_mesh` has its batch split over more devices than one."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES if axis in mesh.axis_names) > 1


def on_one_device() -> bool:
    """Returns whether the program that is being traced is for one device: `on_mesh` of one, or where there is no other.

    Where it is not, nothing should loop over pieces of a batch: XLA gathers a batch that is split over devices before
    it cuts it, and where axes are explicit a batch that is cut again has no type.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return (jax.device_count() if mesh.empty else mesh.size) == 1 and set(mesh.axis_types) <= {AxisType.Auto}


def per_replica(function: Callable, mesh: Mesh, *, in_axes: Sequence[int | None], out_axes: Any = None) -> Callable:
    """Returns `function` compiled to run once a replica, in the manner of `jax.pmap` with `axis_name="data"`.

    Inside, each device sees its own rows, `jax.grad` gives the gradient of its own loss, and the collectives of
    `jax.lax` take the axis name "data". Unlike `pmap`, arrays keep their global shape: there is no leading device axis
    to add and to strip.

    Args:
      function: any function of arrays and trees.
      mesh: a mesh whose devices all lie on `data`.
      in_axes: for each argument, 0 if its arrays are split along their first axis, None if each replica has it whole.
      out_axes: the same for the result (or a tree of them that is a prefix of it): None says that the result is equal
        on all replicas (after a `pmean`), 0 joins the replicas' rows.

    >>> mesh = make_mesh()
    >>> mean = per_replica(lambda x: jax.lax.pmean(x.mean(), "data"), mesh, in_axes=(0,))
    >>> float(mean(jax.numpy.arange(8.0)))
    3.5
    """
    if mesh.shape["data"] != mesh.size:
        raise ConfigError(f"mesh: replicas need every device on the axis 'data', got {dict(mesh.shape)}")

    def partition(axis):
        if axis not in (0, None):
            raise ConfigError(f"per_replica: expected 0 (split the first axis) or None (whole), got {axis!r}")
        return P("data") if axis == 0 else P()

    def replica(*arguments):
        # a whole argument counts as the replica's own copy: otherwise its gradient would be summed over replicas
        own = [
            jax.lax.pcast(x, "data", to="varying") if axis is None else x
            for x, axis in zip(arguments, in_axes, strict=True)
        ]
        return function(*own)

    out_specs = jax.tree.map(partition, out_axes, is_leaf=lambda axis: axis is None)
    return jax.jit(jax.shard_map(replica, mesh=mesh, in_specs=tuple(map(partition, in_axes)), out_specs=out_specs))
