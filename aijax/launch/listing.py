"""Lists experiments and configs with their one-line docstrings, read by `ast`: nothing is executed, jax stays out."""

import argparse
import ast
import dataclasses
from pathlib import Path

from rich.table import Table
from rich.text import Text

from aijax.launch.projects import project_of, python_files, shipped_root
from aijax.launch.report import make_console


@dataclasses.dataclass(frozen=True)
class Entry:
    """An experiment or a config: how a user names it, and the first line of its docstring."""

    name: str
    description: str


def list_command(options: argparse.Namespace) -> int:
    """Returns 0 when the experiments and configs of the current project and of aijax are printed."""
    here, shipped = project_of(Path.cwd()), shipped_root().resolve()
    console = make_console()
    roots = {here: f"this project ({here})"} if here and here != shipped else {}
    for root, label in (roots | {shipped: "aijax"}).items():
        groups = {"experiment": experiments(root), "config": configs(root)}
        for kind, entries in groups.items():
            if entries:
                console.print(_table(f"{kind}s of {label}", kind, entries))
            else:
                console.print(f"no {kind}s in {label}", soft_wrap=True, markup=False)
    return 0


def experiments(root: Path) -> list[Entry]:
    """Returns the experiments under `root/experiments`, named as `config.experiment` names them."""
    folder = root / "experiments"
    files = python_files(folder)
    return [Entry(".".join(file.relative_to(folder).with_suffix("").parts), describe(file)) for file in files]


def configs(root: Path) -> list[Entry]:
    """Returns the configs under `root/configs`: the files that define `get_config`, or that cannot be parsed."""
    folder = root / "configs"
    return [
        Entry(file.relative_to(root).as_posix(), describe(file)) for file in python_files(folder) if _is_config(file)
    ]


def describe(file: Path) -> str:
    """Returns the first line of the docstring of `file`, or what is wrong with the file, in brackets."""
    tree = _parse(file)
    if isinstance(tree, str):
        return f"({tree})"
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def _is_config(file: Path) -> bool:
    tree = _parse(file)
    return isinstance(tree, str) or any(
        isinstance(node, ast.FunctionDef) and node.name == "get_config" for node in tree.body
    )


def _parse(file: Path) -> ast.Module | str:
    try:
        return ast.parse(file.read_bytes())
    except SyntaxError as error:
        return f"syntax error in line {error.lineno}"
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"


def _table(title: str, kind: str, entries: list[Entry]) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column(kind, style="cyan", no_wrap=True)
    table.add_column("description")
    for entry in entries:
        table.add_row(Text(entry.name), Text(entry.description))
    return table
