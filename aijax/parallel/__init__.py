"""Meshes, shardings, blocks and processes: one program on one device, on many, and on many hosts."""

from aijax.parallel.blocks import cut_rows, each_device, fetch, pass_on, stack_rows, stack_sharding
from aijax.parallel.mesh import (
    AXES,
    BATCH_AXES,
    batch_sharding,
    check_batch_size,
    keep_batch_split,
    make_mesh,
    on_many_devices,
    on_mesh,
    on_one_device,
    per_replica,
    process_share,
    put_batch,
    replicate_key,
    replicated,
)
from aijax.parallel.partition import fsdp_partition, parameter_shardings, state_shardings
from aijax.parallel.processes import detect_cluster, initialize_processes

__all__ = [
    "AXES", "BATCH_AXES", "batch_sharding", "check_batch_size", "cut_rows", "detect_cluster", "each_device",
    "fetch", "fsdp_partition", "initialize_processes", "keep_batch_split", "make_mesh", "on_many_devices",
    "on_mesh", "on_one_device", "parameter_shardings", "pass_on", "per_replica", "process_share", "put_batch",
    "replicate_key", "replicated", "stack_rows", "stack_sharding", "state_shardings",
]  # fmt: skip
