"""The processes of a run: how this one finds the others."""

from collections.abc import Mapping

import jax

from aijax.errors import ConfigError


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
