"""Gaussian processes beside the peers', case by case, each measurement a process of its own.

    python benchmarks/gp.py                                       aijax alone
    python benchmarks/gp.py --peers PYTHON --torch PYTHON         with the peers of other environments
    python benchmarks/gp.py --cases dense:1000,markov --rounds 5

PYTHON is the interpreter of an environment where the peers are installed: tinygp, GPJax, celerite2, scikit-learn; and
GPyTorch, BoTorch. All in float64. Told are CPU seconds of a call after the first, the median over rounds (sides run by
turns); the seconds of the first call, with compiling; what memory the calls took beyond the data; the value, by which
one sees that all compute the same thing; and the largest error of the gradient in logarithms of the parameters, over
its largest component, where a dense reference is at hand. A fit is timed as a whole, with compiling.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import gp_cases
import gp_peers

CASES = {
    "dense:1000": "log marginal likelihood and gradient, RBF-ARD, d=8, n=1000",
    "dense:2000": "the same, n=2000",
    "dense:4000": "the same, n=4000",
    "markov": "Matern 3/2 in time, n=10^5, value and gradient",
    "markov:fast": "the same, loops of small matrices compiled whole",
    "sgpr": "bound of 512 inducing points and its gradient, theirs too, n=20000",
    "fit": "diabetes, RBF-ARD, the whole fit",
    "bayesopt": "one step, n=100, d=6, 20 restarts",
    "iterative": "gradient without the matrix, n=4000",
}
TORCH = ("gpytorch", "botorch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated, of: " + ", ".join(CASES))
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that imports tinygp and the others")
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter that imports gpytorch and botorch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="cores of a measurement; 0 for all")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one.split("|"), options)))
        return
    print(f"{'':14} {'CPU s':>9} {'first s':>8} {'MiB':>6} {'value':>14} {'error':>8}  ratio to aijax")
    for case in options.cases.split(","):
        print(CASES[case])
        sides = [("aijax", sys.executable)]
        name = case.split(":")[0]
        for side, programs in gp_peers.PROGRAMS.items():
            python = options.torch if side in TORCH else options.peers
            if python and name in programs:
                sides.append((side, python))
        rounds = [{side: measure(python, side, case, options) for side, python in sides} for _ in range(options.rounds)]
        ours = median(rounds, "aijax", "cpu")
        for side, _ in sides:
            last = rounds[-1][side]
            if "problem" in last:
                print(f"  {side:12} {last['problem']}", flush=True)
                continue
            cpu, error = median(rounds, side, "cpu"), last["error"]
            shown = "" if error is None else f"{error:.1e}"
            print(
                f"  {side:12} {cpu:9.4f} {median(rounds, side, 'first'):8.2f} {last['mib']:6.0f} "
                f"{last['value']:14.6f} {shown:>8}  {cpu / ours:.2f}",
                flush=True,
            )


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
    """Returns the measurement of one case by one library."""
    if options.threads:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    name, _, size = case.partition(":")
    programs = gp_cases.PROGRAMS if side == "aijax" else gp_peers.PROGRAMS[side]
    run = programs[name](*([size] if size else []))
    base, began, before = peak(), time.perf_counter(), time.process_time()
    value, gradient = run()
    first, cpu = time.perf_counter() - began, [time.process_time() - before]
    for _ in range(0 if name == "fit" else options.repeats):
        before = time.process_time()
        run()
        cpu.append(time.process_time() - before)
    result = {"cpu": statistics.median(cpu[1:] or cpu), "first": first, "mib": peak() - base}
    return result | {"value": float(value), "error": error_of(name, size, gradient)}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def error_of(name, size, gradient):
    if gradient is None or name not in ("dense", "iterative"):
        return None
    expected = gp_cases.dense_gradient(*gp_cases.dense_problem(int(size or 4000)))
    return float(np.abs(np.asarray(gradient) - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
