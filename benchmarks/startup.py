"""Time from `aijax run` to the end of the first step, against importing jax and compiling that step alone.

    python benchmarks/startup.py                             configs/vit/digits.py
    python benchmarks/startup.py configs/mlp/digits.py --repeats 9

Each measurement is a new process, by turns. "alone" is the time of `import jax` in one process plus that of tracing and
compiling the step in another: no other import, no data, no initialisation, no run. "bare" is a script that imports
what the step is made of, compiles it and runs it once on zeros. Asked of the launcher: at most 2 s above "alone".
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

BARE = """
import sys, time
import jax, jax.numpy as jnp
from aijax.launch.config import load
from aijax.launch.projects import import_experiment
from aijax.train.prepare import prepare
loaded = load(sys.argv[1])
module = import_experiment(loaded.experiment, loaded.project)
sources = module.load(loaded.config)
run = prepare(module.build(loaded.config, sources), loaded.config)
began = time.perf_counter()
step = run.step.lower(run.state, run.batch, run.key).compile()
print(time.perf_counter() - began, flush=True)
zeros = lambda tree: jax.tree.map(lambda x: jax.device_put(jnp.zeros(x.shape, x.dtype), x.sharding), tree)
jax.block_until_ready(step(zeros(run.state), zeros(run.batch), jax.random.key(0)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default=str(ROOT / "configs/vit/digits.py"))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    importing, compiling, bare, launched = [], [], [], []
    for _ in range(options.repeats):
        importing.append(seconds_to_end([sys.executable, "-c", "import jax"])[0])
        seconds, printed = seconds_to_end([sys.executable, "-c", BARE, options.config])
        bare.append(seconds)
        compiling.append(float(printed))
        launched.append(seconds_to_first_step(options.config))
    more = [run - jax - step for run, jax, step in zip(launched, importing, compiling, strict=True)]
    print(f"{options.config}, medians of {options.repeats}")
    print(f"  import jax                       {statistics.median(importing):6.2f} s")
    print(f"  trace and compile the step       {statistics.median(compiling):6.2f} s")
    print(f"  a bare script to its first step  {statistics.median(bare):6.2f} s")
    print(f"  aijax run to its first step      {statistics.median(launched):6.2f} s")
    print(f"  more than the first two          {statistics.median(more):6.2f} s (asked: at most 2)")


def seconds_to_end(command: list[str]) -> tuple[float, str]:
    """Returns how long a command takes and what it prints."""
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return time.perf_counter() - began, done.stdout


def seconds_to_first_step(config: str) -> float:
    """Returns how long `aijax run` takes until its first step is in the log."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "aijax", "run", config, "--workdir", f"{folder}/run"]
        log = Path(folder) / "run" / "metrics.jsonl"
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--config.total_steps=1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT
        )
        while not (log.exists() and log.stat().st_size):
            if process.poll() is not None:
                sys.exit(process.communicate()[1].decode())
            time.sleep(0.005)
        seconds = time.perf_counter() - began
        process.kill()
        process.wait()
    return seconds


if __name__ == "__main__":
    main()
