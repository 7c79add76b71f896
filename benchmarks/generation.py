"""Tokens a second of generation, beside `transformers`' `generate` with the same weights.

    python benchmarks/generation.py                      aijax alone
    python benchmarks/generation.py --peer PYTHON        and the peer, run by a Python that has torch and transformers

A GPT-2 of width 128, 4 blocks and 4 heads, vocabulary 1000, with random weights, written in its published layout so
that both sides read the same file. 8 prompts of 16 tokens are continued by 112: greedily, and by 4 beams. Each side
runs once to warm up (aijax compiles) and then three times; the least CPU seconds of the process count. One core:

    taskset -c 0 env OMP_NUM_THREADS=1 python benchmarks/generation.py --peer PYTHON
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time

import numpy as np

CONFIG = {"vocab_size": 1000, "context_length": 128, "width": 128, "depth": 4, "num_heads": 4, "norm_epsilon": 1e-5}
PROMPTS, PROMPT, NEW, BEAMS, RUNS = 8, 16, 112, 4, 3
KINDS = ("greedy", "beams")


def prompts():
    return np.random.default_rng(0).integers(0, CONFIG["vocab_size"], (PROMPTS, PROMPT))


def least_seconds(run):
    """Returns the tokens, and the CPU seconds of a run after the first."""
    tokens, best = run(), float("inf")
    for _ in range(RUNS):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return np.asarray(tokens), best


def aijax_side(folder):
    import jax
    import jax.numpy as jnp

    from aijax import models

    model, params = models.load(folder)
    prompt = jnp.asarray(prompts(), jnp.int32)

    def read(params, tokens, cache):
        return model.apply({"params": params}, tokens, cache=cache)

    @jax.jit
    def greedy(params):
        cache = model.empty_cache(PROMPTS, PROMPT + NEW)
        return models.generate(jax.random.key(0), read, params, prompt, NEW, cache=cache, temperature=0)

    @jax.jit
    def beams(params):
        cache = model.empty_cache(PROMPTS, PROMPT + NEW)
        return models.beam_search(read, params, prompt, NEW, num_beams=BEAMS, cache=cache).tokens[:, 0]

    for kind, run in (("greedy", greedy), ("beams", beams)):
        yield kind, *least_seconds(lambda run=run: run(params).block_until_ready())


def peer_side(folder):
    import torch
    import transformers

    torch.set_num_threads(1)
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    prompt = torch.tensor(prompts())
    how = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    for kind, more in (("greedy", {}), ("beams", {"num_beams": BEAMS})):
        with torch.no_grad():
            yield kind, *least_seconds(lambda more=more: model.generate(prompt, **how, **more).numpy())


def write(folder):
    import jax

    from aijax import models

    model = models.LanguageModel(**CONFIG)
    tokens = jax.ShapeDtypeStruct((1, 8), "int32")
    shapes = jax.eval_shape(lambda key: models.init(key, model, tokens), jax.random.key(0))
    rng = np.random.default_rng(1)
    models.save(folder, model, jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype("f"), shapes))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="a Python that has torch and transformers")
    parser.add_argument("--side", choices=["aijax", "peer"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side = aijax_side if options.side == "aijax" else peer_side
        for kind, tokens, seconds in side(options.folder):
            print(json.dumps({"kind": kind, "tokens": tokens.tolist(), "seconds": seconds}))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(folder)
        results = {}
        for side, python in (("aijax", sys.executable), ("peer", options.peer)):
            if python is None:
                continue
            command = [python, __file__, "--side", side, "--folder", folder]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            results[side] = {row["kind"]: row for row in map(json.loads, filter(lambda x: x[:1] == "{", lines))}
    for kind in KINDS:
        for side, rows in results.items():
            print(f"{kind:8} {side:6} {PROMPTS * NEW / rows[kind]['seconds']:9.0f} tokens/s")
        if len(results) == 2:
            one, other = (rows[kind] for rows in results.values())
            same = np.mean(np.array(one["tokens"]) == np.array(other["tokens"]))
            print(f"{kind:8} ratio {other['seconds'] / one['seconds']:6.2f}, tokens that agree {same:.3f}")


if __name__ == "__main__":
    main()
