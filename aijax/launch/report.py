"""Compares runs: a table for the terminal and one self-contained HTML page. This module imports no jax."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aijax.errors import ConfigError
from aijax.launch.files import write_text
from aijax.launch.report_html import render_page
from aijax.launch.runs import MISSING, Run, best_first, best_value, config_differences, find_runs, metric_names

_MAX_FIELDS, _MAX_METRICS = 6, 5
_STATUS_STYLE = {"finished": "green", "stopped": "yellow", "failed": "red"}


def report_command(options: argparse.Namespace) -> int:
    """Returns 0 when the table is printed and the page is written; see `aijax report --help`."""
    folders = options.folders
    runs = find_runs(folders)
    output = Path(options.output) if options.output else Path(folders[0] if len(folders) == 1 else ".", "report.html")
    if output.is_dir():
        raise ConfigError(f"--output {output}: a folder; expected a file such as {output / 'report.html'}")
    runs = best_first(runs, next(iter(metric_names(runs)), None))
    write_text(output, render_page(runs))
    console = make_console()
    console.print(terminal_table(runs))
    for run in runs:
        for note in run.notes:
            console.print(f"{run.name}: {note}", markup=False, soft_wrap=True, style="yellow")
    console.print(f"page: {output}", markup=False, soft_wrap=True)
    return 0


def make_console() -> Console:
    """Returns the console for tables: as wide as the terminal, and wide enough where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def terminal_table(runs: Sequence[Run], fields: bool = True) -> Table:
    """Returns the table that compares `runs`: the best first, the best value of each metric in bold.

    Args:
      runs: what `find_runs` returns.
      fields: whether to give the config fields that differ a column each; the first six get one.
    """
    metrics = metric_names(runs)
    runs = best_first(runs, next(iter(metrics), None))
    differences = config_differences(runs) if fields else {}
    table = Table(header_style="bold", title_justify="left", caption_justify="left")
    table.add_column("run", overflow="fold")
    table.add_column("status")
    table.add_column("step", justify="right")
    for path in list(differences)[:_MAX_FIELDS]:
        table.add_column(path, overflow="fold", style="cyan")
    for metric in metrics[:_MAX_METRICS]:
        table.add_column(metric, justify="right", overflow="fold")
    for index, run in enumerate(runs):
        status = str(run.summary.get("status", "unfinished"))
        row = [Text(run.name), Text(status, style=_STATUS_STYLE.get(status, "dim")), str(run.summary.get("step", ""))]
        row += [Text(show_value(values[index])) for values in list(differences.values())[:_MAX_FIELDS]]
        row += [_metric_cell(runs, run, metric) for metric in metrics[:_MAX_METRICS]]
        table.add_row(*row)
    more = max(0, len(differences) - _MAX_FIELDS), max(0, len(metrics) - _MAX_METRICS)
    if any(more):
        table.caption = f"not shown: {more[0]} fields that differ, {more[1]} metrics; the page has them"
    return table


def show_value(value: Any) -> str:
    """Returns a config value as text; a field that a run does not have is a dash."""
    return "–" if value is MISSING else str(value)


def _metric_cell(runs: Sequence[Run], run: Run, metric: str) -> Text:
    if metric not in run.metrics:
        return Text("–")
    return Text(f"{run.metrics[metric]:.4g}", style="bold" if run.metrics[metric] == best_value(runs, metric) else "")
