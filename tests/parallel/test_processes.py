import pytest

from aijax import parallel
from aijax.errors import ConfigError


@pytest.mark.parametrize(
    ("environment", "cluster"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}, None),
        ({"SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "8"}, "SLURM"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU"),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}, "Kubernetes"),
    ],
)
def test_clusters_are_known_by_their_variables(environment, cluster):
    assert parallel.detect_cluster(environment) == cluster


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coordinator": "a:1", "num_processes": 2}, "--process-id: missing"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "--process-id: expected 0 to 1, got 2"),
        ({"coordinator": "a", "num_processes": 2, "process_id": 0}, "--coordinator: expected HOST:PORT, got 'a'"),
    ],
)
def test_contradicting_processes_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parallel.initialize_processes({}, **arguments)
