"""Meshes, shardings and processes: one program on one device, on many, and on many hosts.

A mesh has three named axes. A batch is split over `data` and `fsdp` together. A parameter is replicated over `data`,
cut along one of its dimensions over `fsdp` (Rajbhandari et al. 2020, ZeRO stage 3: XLA gathers a weight where it is
used and scatters the sum of its gradients), and cut over `tensor` where a rule says so. The train step is written for
one device and compiled for the mesh; `per_replica` is the explicit form, in the manner of `jax.pmap`.

Work that is too big for the devices at once is cut into blocks of rows: `cut_rows`, `stack_rows` (a block for each
device), `each_device` (a function of blocks), `pass_on` (blocks go round the ring of devices), `fetch` (results come to
the host while the next are computed).
"""

import collections
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aijax.errors import ConfigError, did_you_mean
from aijax.trees import map_named, match_rules, named_leaves
from aijax.typing import Array, Batch, PRNGKey, PyTree

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


def cut_rows(size: int, block: int, *, piece: int | None = None) -> list[slice]:
    """Returns the slices that cut `size` rows into blocks, and each block into pieces of at most `piece` rows.

    >>> cut_rows(10, 4)
    [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    >>> cut_rows(5, 4, piece=3)
    [slice(0, 3, None), slice(3, 4, None), slice(4, 5, None)]
    """
    ends = [min(start + block, size) for start in range(0, size, block)]
    piece = block if piece is None else piece
    return [
        slice(first, min(first + piece, end))
        for start, end in zip(range(0, size, block), ends, strict=True)
        for first in range(start, end, piece)
    ]


def stack_rows(mesh: Mesh, tree: PyTree, rows: Sequence[slice], block: int) -> PyTree:
    """Returns blocks of rows of host arrays on the mesh, one a device: `[devices, block, ...]`.

    Args:
      mesh: any mesh.
      tree: array-likes with `shape` that can be sliced: NumPy, memory-mapped, HDF5, Zarr.
      rows: which rows each device gets, at most `block`; its last row is repeated up to `block`, and devices without
        rows get those of the last.
      block: rows of a block.
    """
    rows = [*rows, *[rows[-1]] * (mesh.size - len(rows))]
    placed = stack_sharding(mesh)

    def stack(leaf):
        blocks = [np.asarray(leaf[part]) for part in rows]
        blocks = [x[np.minimum(np.arange(block), len(x) - 1)] if len(x) < block else x for x in blocks]
        return jax.device_put(blocks[0][None] if len(blocks) == 1 else np.stack(blocks), placed)

    return jax.tree.map(stack, tree)


def stack_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that gives each device of the mesh one entry of an array's first axis."""
    return NamedSharding(mesh, P(mesh.axis_names))


def each_device(function: Callable, mesh: Mesh | None, *, whole: int = 0) -> Callable:
    """Returns `function`, to be compiled, run once on each device of the mesh, each on a block of its own.

    Blocks are stacked: the first axis of each array, and of each result, has one entry a device (`stack_rows`). The
    devices do not talk, and a gradient that is taken inside is of the device's own block.

    Args:
      function: any function of trees of arrays.
      mesh: any mesh; all of its axes are used alike. None is one device.
      whole: how many of the first arguments are no blocks: each device has them whole.

    >>> mesh = make_mesh()
    >>> x = stack_rows(mesh, np.arange(16.0), cut_rows(16, 16 // mesh.size), 16 // mesh.size)
    >>> float(jax.jit(each_device(lambda x: x.sum(), mesh))(x).sum())
    120.0
    """

    def one(*arguments):
        blocks = jax.tree.map(lambda x: x[0], arguments[whole:])
        return jax.tree.map(lambda x: jnp.expand_dims(x, 0), function(*arguments[:whole], *blocks))

    if mesh is None or mesh.size == 1:
        return one

    def all_devices(*arguments):
        specs = (P(),) * whole + (P(mesh.axis_names),) * (len(arguments) - whole)
        # unchecked: a function that was written for one device need not say which of its values differ between devices
        return jax.shard_map(one, mesh=mesh, in_specs=specs, out_specs=P(mesh.axis_names), check_vma=False)(*arguments)

    return all_devices


def pass_on(mesh: Mesh) -> Callable[[PyTree], PyTree]:
    """Returns the compiled function that gives each device the block of the next, and the last that of the first."""

    def rotate(tree):
        return jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), tree)

    return jax.jit(rotate, out_shardings=stack_sharding(mesh))


def fetch(results: Iterable[tuple[Any, PyTree]], *, ahead: int = 2) -> Iterator[tuple[Any, PyTree]]:
    """Yields each `(label, tree)` with the tree's arrays in host memory, `ahead` more being computed meanwhile."""
    waiting: collections.deque[tuple[Any, PyTree]] = collections.deque()
    for label, tree in results:
        for leaf in jax.tree.leaves(tree):
            leaf.copy_to_host_async()
        waiting.append((label, tree))
        if len(waiting) > ahead:
            label, tree = waiting.popleft()
            yield label, jax.device_get(tree)
    while waiting:
        label, tree = waiting.popleft()
        yield label, jax.device_get(tree)


def detect_cluster(environment: Mapping[str, str]) -> str | None:
    """Returns the name of the cluster whose variables say that this is one process of several, else None.

    >>> detect_cluster({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "4"}), detect_cluster({})
    ('SLURM', None)
    """
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return "SLURM"
    if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return "Open MPI"
    if (
        len(environment.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1
        or "MEGASCALE_COORDINATOR_ADDRESS" in environment
    ):
        return "TPU"
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        return "Kubernetes"
    return None


def initialize_processes(
    environment: Mapping[str, str],
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> str | None:
    """Joins this process to the others of its run through `jax.distributed`, before any other use of jax.

    Given the three arguments it joins as they say; given none it joins as the cluster's variables say (SLURM, Open MPI,
    TPU, Kubernetes), and does nothing where there is no cluster.

    Args:
      environment: the process's environment variables.
      coordinator: `host:port` of process 0.
      num_processes: how many processes there are.
      process_id: this one's number, from 0.

    Returns:
      What was joined ("explicit" or the cluster's name), or None for a single process.

    Raises:
      ConfigError: only some of the three were given, or they contradict each other.
    """
    given = {"coordinator": coordinator, "num-processes": num_processes, "process-id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if not missing:
        if not 0 <= process_id < num_processes:
            raise ConfigError(f"--process-id: expected 0 to {num_processes - 1}, got {process_id}")
        if ":" not in coordinator:
            raise ConfigError(f"--coordinator: expected HOST:PORT, got {coordinator!r}")
        if num_processes > 1:
            jax.distributed.initialize(coordinator, num_processes, process_id)
        return "explicit"
    if len(missing) < len(given):
        raise ConfigError(f"--{missing[0]}: missing; give --coordinator, --num-processes and --process-id together")
    cluster = detect_cluster(environment)
    if cluster is not None:
        jax.distributed.initialize()
    return cluster


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
