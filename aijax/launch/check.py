"""`aijax check`: all that can be known of a run without training, on this machine's devices or on a mesh it has not.

The experiment is built and its step compiled for the mesh by shape only: no parameter is drawn and no step is run.
`--devices 256` compiles for as many simulated CPU devices.
"""

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aijax import durations
from aijax.errors import ConfigError
from aijax.launch.config import Loaded, flatten, import_experiment


def check_command(options: argparse.Namespace, loaded: Loaded) -> int:
    """Returns the exit status of `aijax check`: 0 when the config can be run."""
    import jax

    from aijax.train.prepare import prepare

    if options.devices is not None:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", options.devices)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"[bold]{loaded.name}[/bold]: {loaded.description}", highlight=False)
    console.print(table_of(flatten(loaded.config).items(), "config"))
    module = import_experiment(loaded.experiment, loaded.project)
    if hasattr(module, "main"):
        console.print(f"{loaded.config.experiment} does not train; its config can be read.")
        return 0
    sources = module.load(loaded.config)
    experiment = module.build(loaded.config, sources)
    prepared = prepare(experiment, loaded.config)
    found = examine(prepared, loaded.config, sources)
    show(console, found)
    if options.json:
        write_json(Path(options.json), loaded, found)
    return 0


def examine(prepared: Any, config: Mapping[str, Any], sources: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what there is to know of a prepared run, as plain data.

    Args:
      prepared: from `aijax.train.prepare.prepare`.
      config: the resolved config.
      sources: name to source, as the experiment's `load` gives.
    """
    from aijax.data.described import describe

    return {
        "data": {name: describe(source) for name, source in sources.items()},
        "durations": durations_of(prepared, config, len(next(iter(sources.values())))),
        "mesh": dict(prepared.mesh.shape),
        "parameters": parameters_of(prepared),
        **program_of(prepared),
    }


def durations_of(prepared: Any, config: Mapping[str, Any], examples: int) -> dict[str, Any]:
    """Returns the durations of a run in steps, and how often it sees its examples."""
    cadence, batch_size = prepared.cadence, config["batch_size"]
    clock = durations.Clock(batch_size, examples, cadence.total)
    schedule = config.get("schedule", {})
    ends = {
        name: durations.resolve(schedule, name, clock, where="config.schedule", default=0)
        for name in ("warmup", "cooldown")
    }
    return {
        "total_steps": cadence.total,
        "epochs": round(cadence.total * batch_size / examples, 3),
        "warmup_steps": ends["warmup"],
        "cooldown_steps": ends["cooldown"],
        "log_every_steps": cadence.log_every,
        "evaluate_every_steps": cadence.evaluate_every,
        "checkpoint_every_steps": cadence.checkpoint_every,
    }


def parameters_of(prepared: Any) -> list[dict[str, Any]]:
    """Returns the shape, the partition and the bytes a device of each parameter."""
    from aijax.trees import named_leaves

    return [
        {
            "name": name,
            "shape": list(leaf.shape),
            "dtype": leaf.dtype.name,
            "partition": [list(entry) if isinstance(entry, tuple) else entry for entry in leaf.sharding.spec],
            "bytes_per_device": bytes_per_device(leaf),
        }
        for name, leaf in named_leaves(prepared.state.params).items()
    ]


def bytes_per_device(leaf: Any) -> int:
    """Returns the bytes that a device holds of an array, given its shape and sharding."""
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def program_of(prepared: Any) -> dict[str, Any]:
    """Returns the FLOPs, the memory and the collectives of the compiled step."""
    import jax

    from aijax import flops, hlo
    from aijax.trees import count_bytes, count_parameters

    arguments = (prepared.state, prepared.batch, prepared.key)
    counted = flops.count(prepared.step, *arguments)
    began = time.perf_counter()
    compiled = prepared.step.lower(*arguments).compile()
    seconds = time.perf_counter() - began
    memory, program = compiled.memory_analysis(), hlo.read_program(compiled.as_text())
    return {
        "parameter_count": count_parameters(prepared.state.params),
        "flops_per_step": {
            "total": counted.total,
            "products": counted.model,
            "products_per_device": program.product_flops,
            "uncounted": list(counted.uncounted),
        },
        "state_bytes": count_bytes(prepared.state),
        "bytes_per_device": {
            "state": sum(map(bytes_per_device, jax.tree.leaves(prepared.state))),
            "batch": sum(map(bytes_per_device, jax.tree.leaves(prepared.batch))),
            "activations": None if memory is None else memory.temp_size_in_bytes,
        },
        "collective_bytes_per_device": program.collective_bytes,
        "platform": jax.default_backend(),
        "compile_seconds": round(seconds, 2),
    }


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Prints what was found."""
    for name, source in found["data"].items():
        fields = ", ".join(f"{field} {leaf['dtype']}{leaf['shape']}" for field, leaf in source["spec"].items())
        classes = f", {len(source['classes'])} classes" if source["classes"] else ""
        console.print(
            f"data '{name}': {source['length']:,} examples of {fields}{classes}", highlight=False, markup=False
        )
    console.print(table_of(found["durations"].items(), "durations"))
    console.print(parameter_table(found))
    console.print(table_of(summary_rows(found), "step"))
    if found["flops_per_step"]["uncounted"]:
        console.print(f"FLOPs leave out: {', '.join(found['flops_per_step']['uncounted'])}")


def summary_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the lines of the table about the step."""
    devices, counted, memory = math.prod(found["mesh"].values()), found["flops_per_step"], found["bytes_per_device"]
    mesh = " x ".join(f"{axis}={size}" for axis, size in found["mesh"].items())
    rows = [
        ("mesh", f"{mesh}: {devices:,} {'device' if devices == 1 else 'devices'} ({found['platform']})"),
        ("parameters", f"{found['parameter_count']:,}"),
        ("FLOPs", f"{readable(counted['total'], 1000)}FLOP, {readable(counted['products'], 1000)}FLOP in products"),
    ]
    each = counted["products_per_device"]
    if each is not None:
        ratio = each * devices / max(1, counted["products"])
        rows.append(("  per device", f"{readable(each, 1000)}FLOP in products, {ratio:.3g} of an even share"))
    rows.append(("state", f"{readable(found['state_bytes'])}B, per device {readable(memory['state'])}B"))
    rows.append(("batch", f"per device {readable(memory['batch'])}B"))
    if memory["activations"] is not None:
        whole = memory["state"] + memory["batch"] + memory["activations"]
        rows.append(("activations", f"per device {readable(memory['activations'])}B (with workspace)"))
        rows.append(("memory", f"per device {readable(whole)}B"))
    for kind, size in found["collective_bytes_per_device"].items():
        rows.append((kind, f"per device {readable(size)}B received"))
    return [*rows, ("compile", f"{found['compile_seconds']:.1f} s")]


def parameter_table(found: Mapping[str, Any]) -> Table:
    """Returns the table of parameters; blocks that are alike share a line."""
    groups: dict[tuple, list[dict]] = {}
    for parameter in found["parameters"]:
        name = re.sub(r"_\d+(?=/|$)", "_*", parameter["name"])
        groups.setdefault((name, str(parameter["shape"]), str(parameter["partition"])), []).append(parameter)
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    for column in ("parameter", "count", "shape", "split over", "per device"):
        table.add_column(column, justify="right" if column in ("count", "per device") else "left", overflow="fold")
    for (name, *_), members in groups.items():
        first = members[0]
        entries = [", ".join(entry) if isinstance(entry, list) else entry or "-" for entry in first["partition"]]
        partition = "(" + ", ".join(entries) + ")" if any(first["partition"]) else "whole"
        shape = " x ".join(map(str, first["shape"])) or "scalar"
        size = sum(member["bytes_per_device"] for member in members)
        name = first["name"] if len(members) == 1 else name
        table.add_row(name, str(len(members)), shape, partition, f"{readable(size)}B")
    return table


def table_of(rows: Any, title: str) -> Table:
    """Returns a table of names and values."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, title=title, title_justify="left")
    for name, value in rows:
        table.add_row(name, value if isinstance(value, str) else repr(value))
    return table


def readable(number: float, base: int = 1024) -> str:
    """Returns a number with its prefix.

    >>> readable(3 * 2**20), readable(7.5e9, 1000), readable(12)
    ('3 Mi', '7.5 G', '12 ')
    """
    if number < base:
        return f"{number:.0f} "
    prefixes = ("k", "M", "G", "T", "P", "E") if base == 1000 else ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
    power = min(int(math.log(number, base)), len(prefixes))
    return f"{number / base**power:.3g} {prefixes[power - 1]}" if power else f"{number:.0f} "


def write_json(path: Path, loaded: Loaded, found: Mapping[str, Any]) -> None:
    """Writes what was found, with the resolved config, as JSON.

    Raises:
      ConfigError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps({"config": loaded.config.to_dict(), **found}, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot be written: {error.strerror}") from None
