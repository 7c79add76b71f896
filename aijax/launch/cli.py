"""The command `aijax`: run, check, sweep, report, list.

A mistake in the command line or in the config is one sentence on stderr and exit status 2, told before jax is imported;
`run` and `check` import it only when the config is resolved. What is not the user's mistake keeps its traceback.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from aijax import __version__
from aijax.errors import ConfigError, UserError, did_you_mean
from aijax.launch.arguments import build_parser, check_options, describe_leftover, split_overrides

COMMANDS = ("run", "check", "sweep", "report", "list")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status of the command line `argv` (default: the process's own).

    0: done, or stopped on request; 1: the run failed and says why; 2: a mistake in the command, the config or the
    data; 130: interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(argv)
    except UserError as error:
        print(f"aijax: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("aijax: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `aijax list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _dispatch(argv: list[str]) -> int:
    parser, commands = build_parser()
    if not argv:
        parser.print_help()
        return 0
    if argv[0] in ("-h", "--help"):
        parser.print_help()
        return 0
    if argv[0] == "--version":
        print(f"aijax {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        raise ConfigError(_unknown_command(argv[0]))
    command = commands[argv[0]]
    if "-h" in argv or "--help" in argv:
        command.print_help()
        return 0
    takes_config = argv[0] in ("run", "check", "sweep")
    rest, overrides = split_overrides(argv[1:]) if takes_config else (argv[1:], [])
    options, leftover = command.parse_known_args(rest)
    if leftover:
        raise ConfigError(describe_leftover(leftover[0], argv[0], command, takes_config))
    options.command = argv[0]
    check_options(options)
    return _COMMANDS[argv[0]](options, overrides)


def _unknown_command(word: str) -> str:
    if word.startswith("-"):
        return f"{word}: the command comes first: aijax {{{','.join(COMMANDS)}}} ..."
    if word.endswith((".py", ".json")) or ".py:" in word:
        return f"{word}: the command comes first; did you mean 'aijax run {word}'?"
    return f"{word!r}: unknown command{did_you_mean(word, COMMANDS)}"


def _run(options: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    from aijax.launch.config import load

    loaded = load(options.config, overrides)
    from aijax.launch.run import run_command

    return run_command(options, loaded)


def _check(options: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    from aijax.launch.config import load

    loaded = load(options.config, overrides)
    from aijax.launch.check import check_command

    return check_command(options, loaded)


def _sweep(options: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    if options.bayesopt is not None:
        from aijax.launch.search import search_command

        return search_command(options, overrides)
    from aijax.launch.sweep import sweep_command

    return sweep_command(options, overrides)


def _report(options: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    from aijax.launch.report import report_command

    return report_command(options)


def _list(options: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    from aijax.launch.listing import list_command

    return list_command(options)


_COMMANDS = {"run": _run, "check": _check, "sweep": _sweep, "report": _report, "list": _list}
