"""The grammar of the command line: flags, their help, and one sentence for each way to get them wrong."""

import argparse
import re
from typing import NoReturn

from aijax.errors import ConfigError, did_you_mean

_OVERVIEW = """\
aijax: train, check and compare experiments that are written as plain config files.

  aijax run CONFIG      run an experiment; the same command again resumes it
  aijax check CONFIG    parameters, FLOPs, memory and sharding, without training
  aijax sweep CONFIG    a grid of runs in one folder, or a search for the best one
  aijax report DIR...   compare runs: a table here and a page of curves (HTML)
  aijax list            the experiments and configs there are
  aijax COMMAND --help  all about one command

examples:
  aijax run configs/vit/digits.py
  aijax run configs/vit/digits.py --config.optimizer.learning_rate=3e-4 --workdir runs/a
  aijax check configs/vit/digits.py --devices 256 --config.batch_size=1024
  aijax sweep configs/vit/digits.py --axis optimizer.learning_rate=1e-3,3e-4 --axis seed=0:4
  aijax report runs
"""

_CONFIG_HELP = """\
CONFIG is a Python file with get_config(), `file.py:argument` to pass it an argument, or a run folder (or its
config.json), which repeats that run.

--config.FIELD=VALUE changes a field of the config, checked against the type it has there:
  --config.model.depth=6 --config.seed=1e3        an int, also as 1e3 or 1_000
  --config.optimizer.learning_rate=3e-4           a number
  --config.model.use_bias=false                   true or false
  --config.model.widths=64,128                    a list or tuple; one item: --config.model.widths[0]=32
  --config.model.head=None                        None, for any field
  --config.total_steps=100                        a duration in another unit replaces the config's own
"""

_RUN = f"""\
Runs the experiment that CONFIG describes. With the same --workdir again it resumes from the last checkpoint; with a
changed config it refuses and shows the difference.

{_CONFIG_HELP}
examples:
  aijax run configs/vit/digits.py
  aijax run configs/vit/digits.py --config.total_epochs=5 --workdir runs/short
  aijax run runs/short/config.json --workdir runs/again
  aijax run configs/vit/digits.py --processes 2 --devices 4
"""

_CHECK = f"""\
Says all that can be known of CONFIG without training: the resolved config, parameters, FLOPs a step, memory per device
and how each parameter is sharded, also on a mesh larger than this machine.

{_CONFIG_HELP}
examples:
  aijax check configs/vit/digits.py
  aijax check configs/vit/digits.py --devices 256 --config.batch_size=1024 --config.mesh.fsdp=64
"""

_SWEEP = f"""\
Runs CONFIG at every point of a grid, each an ordinary run in one sweep folder. The same command again skips the
finished ones and resumes the others.

--axis FIELD=VALUES takes a comma list, or a range of ints: `seed=0:4` is 0,1,2,3 and `depth=2:10:4` is 2,6. Tuples
stand in brackets: `model.widths=(32,),(64,64)`.

--bayesopt METRIC --trials N searches instead: each run is chosen from the results before it, by Bayesian optimisation.
The metric is one that `aijax report` shows; a loss or an error is made small and any other large, unless --direction
says otherwise. An axis may then be a range of numbers, `dropout=0:0.5`, even in the logarithm with `:log`:
`learning_rate=1e-4:1e-1:log`, and for an int field `width=16:1024:log`. Lists and ranges of ints are as in a grid. A
trial that fails counts as a bad one. The same command goes on where it was, also with more trials.

{_CONFIG_HELP}
examples:
  aijax sweep configs/vit/digits.py --axis optimizer.learning_rate=1e-3,3e-4 --axis seed=0:4
  aijax sweep configs/vit/digits.py --axis seed=0:8 --jobs 2 --workdir runs/seeds
  aijax sweep configs/vit/digits.py --axis seed=0:8 --slurm
  aijax sweep configs/mlp/digits.py --bayesopt test/loss --trials 20 --axis optimizer.learning_rate=1e-4:1e-1:log
"""

_REPORT = """\
Compares runs: a table in the terminal, and one self-contained HTML page with curves, final metrics, the fields in which
the configs differ, and figures. DIR is a run folder, a sweep folder, or any folder above them.

examples:
  aijax report runs
  aijax report runs/a runs/b --output comparison.html
"""

_LIST = """\
Lists the experiments and configs of the current project and those that aijax ships, with their one-line docstrings.

example:
  aijax list
"""


class _Parser(argparse.ArgumentParser):
    """Raises a ConfigError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (-[^\s/:]*/)?([^:]+):", r"\2:", message)
        missing = re.match(r"the following arguments are required: (.*)", message)
        if missing:
            message = f"{self.prog.partition(' ')[2]}: {missing[1]} is missing; see {self.prog} --help"
        message = re.sub(r"expected (one|at least one) argument", "expected a value after it", message)
        raise ConfigError(message)


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Returns the parser of `aijax --help` and the parser of each command."""
    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, "add_help": False}
    top = _Parser(prog="aijax", usage="aijax COMMAND ...", description=_OVERVIEW, **raw)
    top.add_argument("-h", "--help", action="store_true", help="show this help")
    top.add_argument("--version", action="store_true", help="show the version")
    texts = {"run": _RUN, "check": _CHECK, "sweep": _SWEEP, "report": _REPORT, "list": _LIST}
    commands = {name: _Parser(prog=f"aijax {name}", description=text, **raw) for name, text in texts.items()}
    run, check, sweep = commands["run"], commands["check"], commands["sweep"]
    for command in (run, check, sweep):
        command.add_argument("config", metavar="CONFIG", help="config file, file:argument, or run folder")
    run.add_argument("--workdir", metavar="DIR", type=_path, help="the run folder (default: chosen from the config)")
    run.add_argument("--fresh", action="store_true", help="start over: move aside what the run folder holds")
    run.add_argument("--devices", metavar="N", type=_positive, help="devices a process; on CPU, simulated ones")
    run.add_argument("--processes", metavar="N", type=_positive, help="start and watch N processes on this machine")
    run.add_argument("--heartbeat", metavar="FILE", help=argparse.SUPPRESS)
    several = run.add_argument_group(
        "several hosts, started by hand (SLURM, Open MPI, TPU and Kubernetes are detected)"
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", type=_address, help="address of process 0")
    several.add_argument("--num-processes", metavar="N", type=_positive, help="processes in all")
    several.add_argument("--process-id", metavar="I", type=_natural, help="this process, counted from 0")
    check.add_argument("--devices", metavar="N", type=_positive, help="devices of the mesh, also more than there are")
    check.add_argument("--json", metavar="FILE", type=_path, help="write what is found to a JSON file too")
    sweep.add_argument(
        "--axis", metavar="FIELD=VALUES", action="append", help="a field and its values; repeat for a grid"
    )
    sweep.add_argument("--jobs", metavar="N", type=_positive, default=1, help="runs at a time (default: 1)")
    sweep.add_argument("--bayesopt", metavar="METRIC", type=_path, help="search for the best value of this metric")
    sweep.add_argument("--trials", metavar="N", type=_positive, help="runs of the search in all")
    sweep.add_argument("--direction", choices=("maximize", "minimize"), help="of the search (default: by the metric)")
    sweep.add_argument("--slurm", action="store_true", help="write a SLURM array script instead of running")
    sweep.add_argument("--workdir", metavar="DIR", type=_path, help="the sweep folder (default: runs/NAME-sweep)")
    commands["report"].add_argument("folders", metavar="DIR", nargs="+", help="a run, a sweep, or a folder above them")
    commands["report"].add_argument("--output", metavar="FILE", type=_path, help="the page (default: DIR/report.html)")
    for command in commands.values():
        command.add_argument("-h", "--help", action="store_true", help="show this help")
    return top, commands


def split_overrides(argv: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns the other tokens of `argv`, and its `--config.path=value` and `--config.path value` as pairs.

    >>> split_overrides(["a.py", "--config.seed=1", "--config.model.depth", "6", "--fresh"])
    (['a.py', '--fresh'], [('seed', '1'), ('model.depth', '6')])
    """
    rest, overrides, index = [], [], 0
    while index < len(argv):
        token = argv[index]
        index += 1
        if token == "--config" or token.startswith("--config="):
            value = token.partition("=")[2] or (argv[index] if index < len(argv) else "")
            hint = f": aijax run {value}" if value and not value.startswith("-") else ""
            raise ConfigError(
                f"{token}: the config file is given without a flag{hint}; a field is --config.FIELD=VALUE"
            )
        if not token.startswith("--config."):
            rest.append(token)
            continue
        path, equals, text = token.removeprefix("--config.").partition("=")
        if not path:
            raise ConfigError(f"{token}: no field; expected --config.FIELD=VALUE")
        if not equals:
            if index == len(argv) or argv[index].startswith("--"):
                raise ConfigError(f"--config.{path}: no value; expected --config.{path}=VALUE")
            text = argv[index]
            index += 1
        overrides.append((path, text))
    return rest, overrides


def describe_leftover(token: str, name: str, command: argparse.ArgumentParser, takes_config: bool) -> str:
    """Returns the sentence for a token that the command `name` does not take."""
    flags = re.findall(r"--[a-z][a-z-]*", command.format_usage())
    word, equals, value = token.partition("=")
    if takes_config and not token.startswith("-") and equals:
        return f"{token}: unexpected argument; did you mean '--config.{word}={value}'?"
    if not token.startswith("-"):
        return f"{token}: unexpected argument; aijax {name} --help says what it takes"
    head, dot, path = word.lstrip("-").partition(".")
    if takes_config and dot:
        intended = path if "did you mean" in did_you_mean(head, ["config"]) else f"{head}.{path}"
        return f"{token}: unknown flag; did you mean '--config.{intended}{equals}{value}'?"
    near = did_you_mean("--" + word.lstrip("-"), flags)
    return f"{word}: unknown flag{near if 'did you mean' in near else f'; aijax {name} --help says what it takes'}"


def check_options(options: argparse.Namespace) -> None:
    """Raises a ConfigError for flags that do not go together."""
    if options.command == "sweep" and not options.axis:
        raise ConfigError("sweep: no --axis; give at least one, such as --axis seed=0:4")
    if options.command == "sweep":
        _check_search(options)
    if options.command != "run":
        return
    given = {
        "--coordinator": options.coordinator,
        "--num-processes": options.num_processes,
        "--process-id": options.process_id,
    }
    missing = [flag for flag, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise ConfigError(
            f"{' and '.join(missing)}: missing; --coordinator, --num-processes and --process-id go together"
        )
    if not missing and options.processes is not None:
        raise ConfigError("--processes: starts processes on this machine and cannot be given with --coordinator")
    if not missing and options.process_id >= options.num_processes:
        raise ConfigError(
            f"--process-id: expected 0 to {options.num_processes - 1} with --num-processes {options.num_processes}, "
            f"got {options.process_id}"
        )


def _check_search(options: argparse.Namespace) -> None:
    if options.bayesopt is None:
        for flag in ("trials", "direction"):
            if getattr(options, flag) is not None:
                raise ConfigError(f"--{flag}: is of a search; give --bayesopt METRIC too")
    elif options.trials is None:
        raise ConfigError("--trials: missing; --bayesopt needs the number of runs, such as --trials 30")
    elif options.slurm:
        raise ConfigError("--slurm: a search chooses each run from the results before it and cannot be one array")


def _positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, got {text!r}")
    return int(text)


def _natural(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, got {text!r}")
    return int(text)


def _path(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a path, got an empty text")
    return text


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not host or not colon or not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, such as 10.0.0.1:1234, got {text!r}")
    return text
