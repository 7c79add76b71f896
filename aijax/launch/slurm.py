"""Writes a sweep as a SLURM array script: the index of an array task chooses the run."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=aijax-sweep
#SBATCH --array={array}
#SBATCH --output={logs}/slurm-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
# Partition, GPUs and time are for you to add, here or on the sbatch line.
# TERM comes two minutes before the time limit: the run saves, and submitting again resumes it.
cd {directory} || exit 1
case "$SLURM_ARRAY_TASK_ID" in
{cases}
  *) echo "aijax: no run has the index '$SLURM_ARRAY_TASK_ID'" >&2; exit 2 ;;
esac
"""


def array_script(
    commands: Mapping[int, Sequence[str]], logs: Path, directory: Path, parallel: int | None = None
) -> str:
    """Returns the text of an array script.

    Args:
      commands: array index to the command line of its run.
      logs: the folder for the tasks' output, absolute.
      directory: the folder that the commands start in.
      parallel: tasks at a time; None leaves that to SLURM.
    """
    array = ",".join(_spans(sorted(commands))) + (f"%{parallel}" if parallel else "")
    cases = "\n".join(f"  {index}) exec {shlex.join(command)} ;;" for index, command in sorted(commands.items()))
    return _SCRIPT.format(array=array, logs=logs, directory=shlex.quote(str(directory)), cases=cases)


def _spans(indices: Sequence[int]) -> list[str]:
    """Returns `["0-2", "5"]` for 0, 1, 2, 5."""
    spans: list[list[int]] = []
    for index in indices:
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return [str(first) if first == last else f"{first}-{last}" for first, last in spans]
