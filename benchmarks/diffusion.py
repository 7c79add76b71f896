"""Samplers and networks beside the peers', case by case, each measurement a process of its own.

    python benchmarks/diffusion.py                                aijax, and the loop one would write without a library
    python benchmarks/diffusion.py --torch PYTHON                 with diffusers, installed where PYTHON is
    python benchmarks/diffusion.py --cases step --rounds 5

float32. Told are seconds of a call after the first, the least over repeats and then the median over rounds (sides run
by turns); its CPU seconds; the seconds of the first call, with compiling; and microseconds a step. On a machine that
others use too, CPU seconds are what to compare.
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
import diffusion_cases
import diffusion_networks

PROBLEMS = (diffusion_cases, diffusion_networks)
CASES = diffusion_cases.CASES | diffusion_networks.CASES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated, of: " + ", ".join(CASES))
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter that imports diffusers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="cores of a measurement; 0 for all")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one.split("|"), options)))
        return
    sides = {"aijax": sys.executable, "flax": sys.executable}
    if options.torch:
        sides["diffusers"] = options.torch
    print(f"{'':14} {'seconds':>9} {'CPU s':>9} {'first s':>8} {'us/step':>8}  ratio to aijax")
    for case in options.cases.split(","):
        title, (_, steps, _) = CASES[case]
        print(title)
        able = {side: python for side, python in sides.items() if side in programs(case)}
        rounds = [{side: measure(python, side, case, options) for side, python in able.items()}
                  for _ in range(options.rounds)]  # fmt: skip
        for side in able:
            problem = rounds[-1][side].get("problem")
            if problem:
                print(f"  {side:12} {problem}", flush=True)
                continue
            wall, cpu, first = (median(rounds, side, field) for field in ("wall", "cpu", "first"))
            ratio = cpu / median(rounds, "aijax", "cpu")
            print(f"  {side:12} {wall:9.5f} {cpu:9.5f} {first:8.2f} {1e6 * wall / steps:8.2f}  {ratio:.2f}", flush=True)


def programs(case: str) -> dict:
    """Returns what each side does with the case."""
    return next(problem.PROGRAMS for problem in PROBLEMS if case in problem.CASES)


def median(rounds, side, field):
    return statistics.median(result[side].get(field, float("nan")) for result in rounds)


def measure(python: str, side: str, case: str, options) -> dict:
    """Returns what a process of its own measured, or what went wrong."""
    command = [python, __file__, "--one", f"{side}|{case}"]
    command += ["--repeats", str(options.repeats), "--threads", str(options.threads)]
    environment = os.environ | ({"OMP_NUM_THREADS": str(options.threads)} if options.threads else {})
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"problem": (done.stderr.strip().splitlines() or ["failed"])[-1][:100]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def one(side: str, case: str, options) -> dict:
    """Returns the measurement of one case by one side."""
    if options.threads:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    run = programs(case)[side](*CASES[case][1])
    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    # a call of microseconds is too short for a clock: at least a tenth of a second is measured at a time
    began = time.perf_counter()
    run()
    calls = max(1, int(0.1 / (time.perf_counter() - began)))
    seconds = []
    for _ in range(options.repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            run()
        seconds.append(((time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls))
    wall, cpu = map(min, zip(*seconds, strict=True))
    return {"wall": wall, "cpu": cpu, "first": first}


if __name__ == "__main__":
    main()
