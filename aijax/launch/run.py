"""`aijax run`: from a resolved config to a run folder with everything the run made."""

import argparse
import contextlib
import datetime
import functools
import math
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from aijax.errors import ConfigError, DataError, RunError
from aijax.launch import folder as folders
from aijax.launch.config import Loaded, import_experiment


def run_command(options: argparse.Namespace, loaded: Loaded) -> int:
    """Returns the exit status of `aijax run`: 0 when the run has ended or was stopped and saved."""
    folder = Path(options.workdir) if options.workdir else folders.default_folder(loaded.name, datetime.datetime.now())
    console = own_console(watched=options.heartbeat is not None)
    if options.process_id in (None, 0) and options.heartbeat is None:
        summary = folders.claim(folder, loaded.config, fresh=options.fresh)
        if summary is not None and summary["status"] == "finished":
            show_end(console, folder, summary)
            console.print("The run had ended before; nothing was left to do. --fresh starts it over.")
            return 0
    if options.processes is not None and options.processes > 1:
        from aijax.launch.supervise import supervise

        return supervise(options, folder, console)
    start_jax(options)
    import jax

    console.quiet = jax.process_index() != 0
    module = import_experiment(loaded.experiment, loaded.project)
    if hasattr(module, "main"):
        return run_main(module, loaded, folder, console)
    return run_training(module, loaded, folder, console, options)


def own_console(*, watched: bool) -> Console:
    """Returns the console to print on. A process that is watched by the launcher prints there alone: what native
    libraries write to its standard output goes where its errors go, to its log."""
    if not watched:
        return Console()
    terminal = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return Console(file=terminal)


def start_jax(options: argparse.Namespace) -> None:
    """Sets up memory and devices and joins the other processes, before anything else touches jax."""
    import jax

    from aijax import parallel
    from aijax.allocator import keep_freed_memory

    if options.devices is not None:
        jax.config.update("jax_num_cpu_devices", options.devices)
    parallel.initialize_processes(
        os.environ,
        coordinator=options.coordinator,
        num_processes=options.num_processes,
        process_id=options.process_id,
    )
    if options.devices is not None and len(jax.local_devices()) != options.devices:
        raise ConfigError(
            f"--devices: {options.devices} asked for, and {jax.default_backend()} has {len(jax.local_devices())}; "
            "devices are simulated on CPU only"
        )
    if jax.default_backend() == "cpu":
        keep_freed_memory()


def run_training(
    module: ModuleType, loaded: Loaded, folder: Path, console: Console, options: argparse.Namespace
) -> int:
    """Returns the exit status of an experiment that trains: its module has `load` and `build`."""
    import jax

    from aijax.data.described import describe
    from aijax.data.tokenizer import save_tokenizer
    from aijax.launch.signals import stop_on_signal
    from aijax.train.fit import fit
    from aijax.train.prepare import prepare
    from aijax.train.progress import progress
    from aijax.trees import count_parameters

    config = loaded.config
    sources = module.load(config)
    experiment = module.build(config, sources)
    prepared = prepare(experiment, config)
    parameters = count_parameters(prepared.state.params)
    with own_folder(folder) as first:
        if first:
            described = {name: describe(source) for name, source in sources.items()}
            folders.write_beginning(folder, loaded, described, [str(device) for device in jax.devices()])
            if experiment.tokenizer is not None:
                save_tokenizer(experiment.tokenizer, folder)
        console.print(
            f"[bold]{loaded.name}[/bold]: {parameters:,} parameters, {prepared.cadence.total:,} steps of "
            f"{config.batch_size} examples on {describe_mesh(prepared.mesh)}",
            soft_wrap=True,
        )
        with stop_on_signal() as asked, heartbeat(options.heartbeat) as beat:
            fitted = fit(
                experiment,
                config,
                folder,
                prepared=prepared,
                stop=lambda step: beat(step) or asked(step),
                report=lambda sentence: console.print(f"aijax: {sentence}", highlight=False, soft_wrap=True),
                progress=functools.partial(progress, console, label=loaded.name),
            )
        if first:
            finish_training(experiment, fitted, folder, parameters, console)
            if options.heartbeat is None:
                show_resumption(folder, console)
    return 0


def finish_training(experiment: Any, fitted: Any, folder: Path, parameters: int, console: Console) -> None:
    """Draws the figures of a run that has ended, writes its summary and shows it."""
    import jax

    from aijax.launch.figures import draw_curves

    ended = fitted.step == fitted.total_steps
    metrics = dict(fitted.metrics)
    if ended:
        draw_curves(folder)
        if experiment.draw is not None:
            metrics |= experiment.draw(jax.device_get(fitted.state.best_params), folder / "figures") or {}
    summary = {
        "status": "finished" if ended else "stopped",
        "step": fitted.step,
        "total_steps": fitted.total_steps,
        "seconds": round(fitted.seconds, 3),
        "parameters": parameters,
        "metrics": metrics,
        "message": "" if ended else f"stopped by a signal after step {fitted.step}, saved",
    }
    folders.write_summary(folder, **summary)
    show_end(console, folder, summary)


def run_main(module: ModuleType, loaded: Loaded, folder: Path, console: Console) -> int:
    """Returns the exit status of an experiment that does not train: its `main(config, folder) -> metrics`."""
    import jax

    with own_folder(folder) as first:
        if first:
            folders.write_beginning(folder, loaded, {}, [str(device) for device in jax.devices()])
            (folder / "figures").mkdir(exist_ok=True)
        began = datetime.datetime.now()
        metrics = dict(module.main(loaded.config, folder))
        seconds = (datetime.datetime.now() - began).total_seconds()
        if first:
            summary = {"status": "finished", "seconds": round(seconds, 3), "metrics": metrics, "message": ""}
            folders.write_summary(folder, **summary)
            show_end(console, folder, summary)
    return 0


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[bool]:
    """Holds the run folder, and gives whether this process is the one that writes there; a run that cannot go on leaves
    a summary that says why."""
    import jax

    if jax.process_index() != 0:
        yield False
        return
    with folders.locked(folder):
        try:
            yield True
        except RunError as error:
            before = folders.read_summary(folder) or {}
            with contextlib.suppress(DataError):
                folders.write_summary(folder, **(before | {"metrics": {}, "status": "failed", "message": str(error)}))
            raise


def show_end(console: Console, folder: Path, summary: Mapping[str, Any]) -> None:
    """Prints the short table of a run's last metrics and the folder's path."""
    metrics = summary["metrics"]
    if metrics:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        order = sorted(metrics, key=lambda name: (name.startswith("train/"), name))
        for name in order:
            table.add_row(name, _number(metrics[name]))
        if "seconds" in summary:
            table.add_row("seconds", f"{summary['seconds']:.1f}")
        console.print(table)
    console.print(f"Run folder: {folder}", highlight=False, soft_wrap=True)


def show_resumption(folder: Path, console: Console) -> None:
    """Prints what to type to go on with a run that was stopped before its end."""
    if (folders.read_summary(folder) or {}).get("status") == "stopped":
        console.print(f"To go on: {resume_command(folder)}", highlight=False, soft_wrap=True)


def resume_command(folder: Path) -> str:
    """Returns what to type to go on with a run, the options of this process kept."""
    words = [Path(sys.argv[0]).name if sys.argv[0].endswith("aijax") else "aijax", *sys.argv[1:]]
    if not any(word.split("=")[0] == "--workdir" for word in words):
        words += ["--workdir", str(folder)]
    return shlex.join(word for word in words if word != "--fresh")


def describe_mesh(mesh: Any) -> str:
    """Returns the words for a mesh: `8 devices (data=4 x fsdp=2)`."""
    used = " x ".join(f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1)
    return f"{mesh.size} devices ({used})" if mesh.size > 1 else "1 device"


@contextlib.contextmanager
def heartbeat(path: str | None) -> Iterator[Any]:
    """Gives `beat(step)`, which leaves the step in a small file for whoever watches this process; it returns False."""
    if path is None:
        yield lambda step: False
        return
    with open(path, "w") as stream:

        def beat(step: int) -> bool:
            stream.seek(0)
            stream.write(f"{step}\n")
            stream.flush()
            return False

        yield beat


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if not math.isfinite(value) or abs(value) < 1e4 else f"{value:,.0f}"
    return str(value)
