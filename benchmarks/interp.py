"""Interpretability beside plain JAX and the peers' recorded figures, case by case, each case a process of its own.

    python benchmarks/interp.py
    python benchmarks/interp.py --cases capture,patching --rounds 15

Told are CPU milliseconds of one call on one core, or of one of its parts where a case says so, the median over rounds
in which all sides run by turns; their ratio to the first side; what memory the compiled program needs beyond its
arguments, in MiB; and a number by which one sees that all compute the same thing. Figures of peers were recorded
elsewhere, on one core in float32, and are quoted as such. Memory that a call has freed is kept for the next one, as
accelerators do: the C library would give some of it back and fetch it again page by page, now for one side and now for
another.

A further case is a function in `interp_cases.py` and its line in `CASES` there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import interp_cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(interp_cases.CASES)
    parser.add_argument("--cases", default=",".join(interp_cases.CASES), help="comma-separated, of: " + names)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.rounds)))
        return
    print(f"{'':34} {'CPU ms':>9} {'ratio':>7} {'MiB':>8} {'value':>14}")
    for name in options.cases.split(","):
        case = interp_cases.CASES[name]
        print(f"{name}: {case.what}")
        for side, found in measure(name, options.rounds).items():
            mib = "" if found["mib"] is None else f"{found['mib']:.1f}"
            value = "" if found["value"] is None else f"{found['value']:.6g}"
            print(f"  {side:32} {found['ms']:9.3f} {found['ratio']:7.3f} {mib:>8} {value:>14}", flush=True)
        for peer, told in case.recorded.items():
            print(f"  {peer:32} {told}")


def measure(name: str, rounds: int) -> dict:
    """Returns what a process of its own measured."""
    command = [sys.executable, __file__, "--one", name, "--rounds", str(rounds)]
    keeps_memory = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(1 << 32))
    settings = os.environ | keeps_memory | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=settings)
    done.check_returncode()
    return json.loads(done.stdout.strip().splitlines()[-1])


def one(name: str, rounds: int) -> dict:
    """Returns `{side: measurements}` of one case."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    case = interp_cases.CASES[name]
    sides = {side: interp_cases.prepared(*what) for side, what in case.sides().items()}
    values = {side: interp_cases.checksum(run()) for side, (run, _) in sides.items()}
    spent = {side: [] for side in sides}
    for number in range(rounds):
        for side in list(sides)[:: 1 if number % 2 else -1]:
            before = time.process_time()
            sides[side][0]()
            spent[side].append(time.process_time() - before)
    first = spent[next(iter(sides))]
    return {
        side: {
            "ms": 1e3 * statistics.median(times) / case.parts,
            "ratio": statistics.median(mine / theirs for mine, theirs in zip(times, first, strict=True)),
            "mib": sides[side][1],
            "value": values[side],
        }
        for side, times in spent.items()
    }


if __name__ == "__main__":
    main()
