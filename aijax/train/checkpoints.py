"""Checkpoints of a run, written by Orbax while the run goes on, and read back on any mesh.

A checkpoint is a folder named by its step that holds the state, and beside it as JSON what it belongs to: the position
in the data and the config. A folder appears under its name when it is whole (Orbax renames it then), so a run killed at
any instant leaves only whole ones. Each carries a manifest of its files' sizes and checksums: one that has been damaged
since is told from a good one, said, and set aside, and the one before it is used.
"""

import contextlib
import dataclasses
import errno
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aijax.errors import RunError
from aijax.trees import count_bytes, named_leaves
from aijax.typing import PyTree

MANIFEST = "files.json"
NAME_LENGTH = 9


class Checkpoints:
    """The checkpoints of one run folder. It owns Orbax's background threads: close it, or use it in a `with`."""

    def __init__(self, directory: Path, *, keep_last: int = 3, keep_every: int | None = None):
        """Opens (and makes) a folder of checkpoints.

        Args:
          directory: the folder, on a file system that all processes share.
          keep_last: how many of the newest to keep.
          keep_every: keeps besides each whose step is a multiple of it.
        """
        import orbax.checkpoint as ocp

        self._orbax = ocp
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={"state": ocp.StandardCheckpointHandler(), "about": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep_last,
                keep_period=keep_every,
                step_format_fixed_length=NAME_LENGTH,
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifests),
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *_) -> None:
        self.close()

    def steps(self) -> list[int]:
        """Returns the steps of the whole checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: PyTree, about: Mapping[str, Any]) -> None:
        """Begins to write the state of a step; returns when it has left the device, the writing goes on behind.

        Args:
          step: the checkpoint's number.
          state: tree of arrays, on any mesh.
          about: plain data to keep beside it.

        Raises:
          RunError: the disk is full or cannot be written, now or in the write before this one.
        """
        if step in self.steps():
            return
        with self._telling_of_disk_errors():
            needed, free = count_bytes(state), shutil.disk_usage(self.directory).free
            if needed > free:
                raise OSError(errno.ENOSPC, f"the state takes {needed / 1e6:.1f} MB and {free / 1e6:.1f} MB are free")
            self._manager.save(
                step,
                args=self._orbax.args.Composite(
                    state=self._orbax.args.StandardSave(state), about=self._orbax.args.JsonSave(dict(about))
                ),
            )

    def wait(self) -> None:
        """Waits until what was begun is written; raises a `RunError` when it could not be."""
        with self._telling_of_disk_errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Ends the background work, waiting for a write under way."""
        with self._telling_of_disk_errors():
            self._manager.close()

    def restore_latest(
        self, target: PyTree, report: Callable[[str], None]
    ) -> tuple[int, PyTree, dict[str, Any]] | None:
        """Returns `(step, state, about)` of the newest good checkpoint, or None when there is none at all.

        Args:
          target: tree of `jax.ShapeDtypeStruct` with shardings: what is read lands on the device where it says.
          report: told in a sentence of each damaged checkpoint, which is moved to the folder `damaged` beside.

        Raises:
          RunError: there are checkpoints and all are damaged, or one holds other parameters than `target`.
        """
        found = self.steps()
        for step in reversed(found):
            problem = self._same_on_all_processes(self._damage(step))
            if problem is None:
                mismatch = self._mismatch(step, target)
                if mismatch is not None:
                    raise RunError(mismatch)
                try:
                    return step, self.restore(step, target), self.about(step)
                except (ValueError, OSError) as error:
                    problem = str(error).splitlines()[0][:200]
            report(f"checkpoint {step} is damaged ({problem}); it is set aside and the one before it is used")
            self._set_aside(step)
        if found:
            raise RunError(f"{self.directory}: all {len(found)} checkpoints are damaged; --fresh starts the run anew")
        return None

    def problem(self, step: int, target: PyTree) -> str | None:
        """Returns what is wrong with the checkpoint of a step for reading it as `target`, in a sentence, or None."""
        damage = self._damage(step)
        return f"{self._folder(step)}: is damaged ({damage})" if damage else self._mismatch(step, target)

    def restore(self, step: int, target: PyTree) -> PyTree:
        """Returns the state of a step, placed as `target` says.

        A field of the target that is None may be missing: the checkpoint is from before there was one.
        """
        wanted, later = target, []
        if dataclasses.is_dataclass(target):
            saved = self._manager.item_metadata(step).state
            fields = {field.name: getattr(target, field.name) for field in dataclasses.fields(target)}
            later = [name for name, value in fields.items() if value is None and name not in saved]
        if later:
            wanted = {name: value for name, value in fields.items() if name not in later}
        restored = self._manager.restore(
            step, args=self._orbax.args.Composite(state=self._orbax.args.StandardRestore(wanted))
        )
        return dataclasses.replace(target, **restored.state) if later else restored.state

    def about(self, step: int) -> dict[str, Any]:
        """Returns the plain data kept beside the state of a step."""
        restored = self._manager.restore(step, args=self._orbax.args.Composite(about=self._orbax.args.JsonRestore()))
        return restored.about

    def _folder(self, step: int) -> Path:
        return self.directory / f"{step:0{NAME_LENGTH}d}"

    def _write_manifests(self) -> None:
        if jax.process_index() != 0:
            return
        for folder in self.directory.glob("*.orbax-checkpoint-tmp*"):
            files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.parent != folder]
            entries = {str(file.relative_to(folder)): [file.stat().st_size, _checksum(file)] for file in files}
            (folder / MANIFEST).write_text(json.dumps(entries))

    def _damage(self, step: int) -> str | None:
        folder = self._folder(step)
        try:
            entries = json.loads((folder / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            return f"its list of files cannot be read: {error}"
        for name, (size, checksum) in entries.items():
            file = folder / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} bytes of {size}"
            if _checksum(file) != checksum:
                return f"the contents of {name} have changed"
        return None

    def _same_on_all_processes(self, problem: str | None) -> str | None:
        if jax.process_count() == 1:
            return problem
        from jax.experimental import multihost_utils

        damaged = multihost_utils.process_allgather(np.asarray(problem is not None)).any()
        return (problem or "as another process sees it") if damaged else None

    def _mismatch(self, step: int, target: PyTree) -> str | None:
        saved = named_leaves(self._manager.item_metadata(step).state)
        wanted = named_leaves(target)
        for name in sorted(saved.keys() | wanted.keys()):
            if name not in saved or name not in wanted:
                where = "the run" if name in wanted else "the checkpoint"
                return f"{self._folder(step)}: '{name}' is only in {where}; it is of another model or optimiser"
            shapes = tuple(saved[name].shape), tuple(wanted[name].shape)
            if shapes[0] != shapes[1]:
                return f"{self._folder(step)}: '{name}' has shape {shapes[0]}, but the run needs {shapes[1]}"
        return None

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            aside = self.directory / "damaged"
            aside.mkdir(exist_ok=True)
            shutil.rmtree(aside / self._folder(step).name, ignore_errors=True)
            self._folder(step).rename(aside / self._folder(step).name)
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()

    @contextlib.contextmanager
    def _telling_of_disk_errors(self) -> Iterator[None]:
        try:
            yield
        except RunError:
            raise
        except Exception as error:
            full = getattr(error, "errno", None) == errno.ENOSPC or "os_error_code='28'" in str(error)
            if not full and not isinstance(error, OSError):
                raise
            told = getattr(error, "strerror", None) or "no space left for what was being written"
            reason = "the disk is full" if full else "it cannot be written"
            steps = self.steps()
            kept = f"the last whole checkpoint is step {steps[-1]}" if steps else "there is no whole checkpoint"
            raise RunError(f"{self.directory}: {reason} ({told}); {kept}") from error


def _checksum(file: Path) -> int:
    total = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            total = zlib.crc32(block, total)
    return total
