"""Tangent kernels beside the peers', case by case, each measurement a process of its own.

    python benchmarks/ntk.py                                               aijax alone
    python benchmarks/ntk.py --neural-tangents PYTHON --torch PYTHON       with the peers of other environments
    python benchmarks/ntk.py --cases mlp,vit --repeats 15

PYTHON is the interpreter of an environment where the peer is installed (neural-tangents 0.6.5 needs JAX 0.4.25). Told
are the CPU seconds of a call after the first, over all threads, which a busy machine disturbs least; the seconds of the
first call, with compiling; the process's largest memory, and how much of it came after the libraries were imported and
the inputs made; and the kernel's norm, by which one sees that all compute the same thing. Columns of ours: "auto", and
the ways that it chooses from. Sides run by turns.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import ntk_cases

OURS = ("auto", "structured", "jacobian", "vector_products")
THEIRS = {"structured": 3, "jacobian": 1, "vector_products": 2}
CASES = {
    "mlp": "MLP 784-512x4-10, 32 x 32, full",
    "mlp:trace": "the same, mean over outputs",
    "cnn": "CNN of 5 convolutions, 16 x 16, full",
    "cnn:trace": "the same, mean over outputs",
    "vit": "ViT of 2 blocks, 8 x 8, full",
    "vit:trace": "the same, mean over outputs",
    "embedding": "table of 1000 x 64, 16 tokens, 2 x 2, full",
    "remat": "three blocks computed again in reverse, width 128, 16 x 16, full",
    "inverse": "three inverses and solutions of 128 x 128, 16 x 16, full",
    "slices": "three matrices of 128 x 128 cut out of one vector, 16 x 16, full",
    "infinite:gap:32": "infinite CNN, GAP, 4 x 4, float32",
    "infinite:gap:64": "the same, float64",
    "infinite:flatten:32": "infinite CNN, flattened, 32 x 32, float32",
    "blocks": "96 images of the CNN in blocks of 32, symmetric, mean over outputs",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated, of: " + ", ".join(CASES))
    parser.add_argument("--neural-tangents", metavar="PYTHON", help="an interpreter that imports neural_tangents")
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter that imports torch")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one.split("|"), options.repeats)))
        return
    print(f"{'':22} {'CPU s':>9} {'first s':>8} {'MB':>6} {'added':>6} {'norm':>12}  ratio to auto")
    for case in options.cases.split(","):
        print(CASES[case])
        results = {}
        for side, way, python in sides(case, options):
            results[f"{side} {way}"] = result = measure(python, side, case, way, options.repeats)
            if "error" in result:
                print(f"  {side + ' ' + way:20} {result['error']}", flush=True)
                continue
            ratio = result["cpu"] / results["aijax auto"]["cpu"]
            print(
                f"  {side + ' ' + way:20} {result['cpu']:9.4f} {result['first']:8.2f} {result['mb']:6.0f} "
                f"{result['added']:6.0f} {result['norm']:12.6g}  {ratio:.2f}",
                flush=True,
            )


def sides(case: str, options) -> list[tuple[str, str, str]]:
    """Returns `(library, way, interpreter)` of the measurements of a case."""
    single = case.startswith(("infinite", "blocks"))
    found = [("aijax", way, sys.executable) for way in (OURS[:1] if single else OURS)]
    if options.neural_tangents:
        found += [("nt", way, options.neural_tangents) for way in (["auto"] if single else THEIRS)]
    if options.torch and case.split(":")[0] in ("mlp", "cnn", "vit"):
        found.append(("torch", "jacobian", options.torch))
    return found


def measure(python: str, side: str, case: str, way: str, repeats: int) -> dict:
    """Returns what a process of its own measured, or its error."""
    command = [python, __file__, "--one", f"{side}|{case}|{way}", "--repeats", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1][:100]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def one(side: str, case: str, way: str, repeats: int) -> dict:
    """Returns the measurements of one case by one library in one way."""
    run = {"aijax": of_jax, "nt": of_jax, "torch": of_torch}[side](side, case, way)
    imported = peak_mb()
    began = time.perf_counter()
    kernel = run()
    first = time.perf_counter() - began
    seconds = []
    for _ in range(repeats):
        before = time.process_time()
        run()
        seconds.append(time.process_time() - before)
    return {
        "cpu": statistics.median(seconds),
        "first": first,
        "mb": peak_mb(),
        "added": peak_mb() - imported,
        "norm": float(np.linalg.norm(np.asarray(kernel, np.float64))),
    }


def peak_mb() -> float:
    """Returns the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def of_jax(side: str, case: str, way: str):
    """Returns a function that computes the kernel by aijax or by neural-tangents."""
    import jax

    name, *words = case.split(":")
    if name == "infinite":
        readout, bits = words
        jax.config.update("jax_enable_x64", bits == "64")
        if side == "nt":
            from neural_tangents import stax
        else:
            from aijax.ntk import stax
        n = 4 if readout == "gap" else 32
        x = np.random.default_rng(1).normal(size=(2, n, 16, 16, 3)).astype(f"float{bits}")
        kernel_fn = jax.jit(ntk_cases.infinite(stax, readout), static_argnames="get")
        return lambda: jax.block_until_ready(kernel_fn(x[0], x[1], get=("nngp", "ntk"))).ntk
    if name == "blocks":
        return of_blocks(side)
    forward, params, x1, x2 = ntk_cases.make(name)
    params, x1, x2 = jax.device_put((params, x1, x2))
    if side == "nt":
        import neural_tangents as nt

        axes = (-1,) if words else ()
        empirical = nt.empirical_ntk_fn(forward, trace_axes=axes, vmap_axes=0, implementation=THEIRS[way])
        kernel = jax.jit(lambda params, x1, x2: empirical(x1, x2, params))
    else:
        from aijax.ntk import empirical_ntk

        kernel = jax.jit(
            lambda params, x1, x2: empirical_ntk(forward, params, x1, x2, trace_outputs=bool(words), contraction=way)
        )
    return lambda: jax.block_until_ready(kernel(params, x1, x2))


def of_blocks(side: str):
    """Returns a function that computes the kernel of 96 images with themselves in blocks of 32."""
    forward, params, _, _ = ntk_cases.make("cnn")
    x = np.random.default_rng(1).normal(size=(96, *ntk_cases.SHAPES["cnn"])).astype(np.float32)
    if side == "nt":
        import neural_tangents as nt

        empirical = nt.empirical_ntk_fn(forward, vmap_axes=0, implementation=3)
        batched = nt.batch(empirical, batch_size=32, device_count=0)
        return lambda: np.asarray(batched(x, None, params))
    from aijax.ntk import factored_ntk, kernel_blocks

    kernel = factored_ntk(forward, trace_outputs=True)
    return lambda: kernel_blocks(kernel, x, kernel_args=(params,), block_size=32)


def of_torch(side: str, case: str, way: str):
    """Returns a function that contracts Jacobians by `torch.func`, as PyTorch's tutorial on tangent kernels does."""
    import torch
    from torch.func import jacrev, vmap

    name, *words = case.split(":")
    _, params, x1, x2 = ntk_cases.make(name)
    forward = {"mlp": torch_mlp, "cnn": torch_cnn, "vit": torch_vit}[name]
    leaves, rebuild = torch.utils._pytree.tree_flatten(params)
    leaves = tuple(torch.tensor(np.asarray(leaf)) for leaf in leaves)
    x1, x2 = torch.tensor(x1), torch.tensor(x2)

    def of_example(leaves, x):
        return forward(torch.utils._pytree.tree_unflatten(list(leaves), rebuild), x[None])[0]

    spec = "iop,jop->ij" if words else "iop,jqp->ijoq"

    def run():
        rows = [vmap(jacrev(of_example), (None, 0))(leaves, x) for x in (x1, x2)]
        pairs = zip(*rows, strict=True)
        parts = [torch.einsum(spec, a.flatten(2), b.flatten(2)) for a, b in pairs]
        total = sum(parts)
        return (total / ntk_cases.CLASSES if words else total).detach().numpy()

    return run


def torch_mlp(params, x):
    import torch

    for layer in params[:-1]:
        x = torch.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def torch_cnn(params, x):
    import torch

    x = x.permute(0, 3, 1, 2)
    for layer in params[:-1]:
        x = torch.relu(torch.nn.functional.conv2d(x, layer["w"].permute(3, 2, 0, 1), layer["b"], padding=1))
    return x.mean((2, 3)) @ params[-1]["w"] + params[-1]["b"]


def torch_vit(params, x):
    import torch

    cases = ntk_cases

    def norm(p, h):
        centred = h - h.mean(-1, keepdim=True)
        return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5) * p["gain"] + p["bias"]

    h = x.reshape(-1, 4, 4, 4, 4, 3).permute(0, 1, 3, 2, 4, 5).reshape(-1, cases.TOKENS, 48)
    h = h @ params["patches"]["w"] + params["patches"]["b"] + params["positions"]
    for block in params["blocks"]:
        a = norm(block["before"], h)
        q, k, v = (torch.einsum("ntd,dhk->nhtk", a, w) for w in block["qkv"])
        scores = torch.einsum("nhtk,nhsk->nhts", q, k) * (cases.WIDTH // cases.HEADS) ** -0.5
        mixed = torch.einsum("nhts,nhsk->nthk", torch.softmax(scores, -1), v)
        h = h + torch.einsum("nthk,hkd->ntd", mixed, block["out"])
        a = torch.nn.functional.gelu(norm(block["between"], h) @ block["up"]["w"] + block["up"]["b"])
        h = h + a @ block["down"]["w"] + block["down"]["b"]
    return norm(params["last"], h).mean(1) @ params["head"]["w"] + params["head"]["b"]


if __name__ == "__main__":
    main()
