"""Vision transformers and a small CLIP: forward and train step beside PyTorch, on one core.

    python benchmarks/vit.py [--peer PYTHON] [--compile] [--cases ...]
    python benchmarks/vit.py --contrastive          bytes of the losses of 8192 pairs on 8 simulated devices

`vit_ti16_224` is ViT-Ti/16 on 8 images of 224 x 224 (197 tokens, 5.7 M parameters), `vit_ti4_32` the same blocks on 64
images of 32 x 32 with patches of 4 (65 tokens), `clip_small` two towers of 6 blocks of width 192 on 64 images of
64 x 64 with patches of 8 and 64 texts of 32 tokens. "train" is loss, gradient and AdamW. Each case runs in a process of
its own: what is told is the process's CPU time of the cheapest step, that of all until the first step is done, the
most memory it held and, of that, what the compiled program asked for (arguments and temporary arrays). "products" is
what XLA takes for the products of matrices of the forward pass alone, those of each block of the same random input.

All processes keep the memory that a step frees, as `aijax run` does (`aijax.allocator`), in large pages, and no lists
of small pieces for each thread: with these, where a piece of a few bytes falls decides whether a step's temporary
memory fits in where it was before, or the process grows by all of it once more. `--peer` names a Python that has torch,
`--compile` adds torch.compile.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

CASES = ("vit_ti16_224", "vit_ti4_32", "clip_small")
WHAT = ("forward", "train")
WIDTH, HEADS, MLP = 192, 3, 768
VITS = {"vit_ti16_224": (8, 224, 16, 12, 1000), "vit_ti4_32": (64, 32, 4, 12, 10), "clip_small": (64, 64, 8, 6, 128)}
"""Images, pixels on a side, patch, depth, classes."""
TEXTS = (4096, 32, 6, 128)
"""Vocabulary, length, depth, width of the common space."""
REPEATS, SECONDS = 30, 10.0
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.hugetlb=1",
}
PAIRS, FEATURES, DEVICES = 8192, 128, 8


def aijax_step(case, what):
    import jax
    import optax

    from aijax import models

    batch, size, patch, depth, classes = VITS[case]
    style = {"activation": "gelu_tanh"}
    clip = case == "clip_small"
    model = models.ViT(
        patch, WIDTH, depth, HEADS, None if clip else classes, MLP / WIDTH, img_size=size, token_positions="class",
        **style,
    )  # fmt: skip
    inputs = (jax.random.normal(jax.random.key(0), (batch, size, size, 3)),)
    labels = jax.random.randint(jax.random.key(1), (batch,), 0, classes)
    if clip:
        vocabulary, length, depth, width = TEXTS
        text = models.TextEncoder(
            vocabulary, length, WIDTH, depth, HEADS, MLP / WIDTH, causal=True, pool="last", **style
        )  # fmt: skip
        model = models.CLIP(model, text, width)
        inputs = (*inputs, jax.random.randint(jax.random.key(2), (batch, length), 0, vocabulary))
    params = jax.jit(lambda key: models.init(key, model, *inputs))(jax.random.key(3))

    def loss(params, *inputs):
        out = model.apply({"params": params}, *inputs)
        return out["loss"] if clip else optax.softmax_cross_entropy_with_integer_labels(out, labels).mean()

    if what == "forward":
        run = jax.jit(loss if clip else lambda params, *inputs: model.apply({"params": params}, *inputs))
        run = run.lower(params, *inputs).compile()
        return lambda: run(params, *inputs).block_until_ready(), program_megabytes(run)
    optimizer = optax.adamw(1e-3, weight_decay=1e-4)

    def train(carry, *inputs):
        value, grads = jax.value_and_grad(loss)(carry[0], *inputs)
        updates, state = optimizer.update(grads, carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), state), value

    carry = [(params, jax.jit(optimizer.init)(params))]
    run = jax.jit(train, donate_argnums=0).lower(carry[0], *inputs).compile()

    def step():
        carry[0], value = run(carry[0], *inputs)
        value.block_until_ready()

    return step, program_megabytes(run)


def program_megabytes(compiled):
    """Returns what a program's arguments, results and temporary arrays take; what is donated counts once."""
    found = compiled.memory_analysis()
    parts = found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes
    return (sum(parts) - found.alias_size_in_bytes) / 2**20


def products_step(case, what):
    """The products of the forward pass of each block, those of its last one for the token that is read alone."""
    import jax

    batch, size, patch, depth, _ = VITS[case]
    towers = [((size // patch) ** 2 + 1, depth)] + ([TEXTS[1:3]] if case == "clip_small" else [])
    keys = iter(jax.random.split(jax.random.key(0), 200))

    def normal(*shape):
        return jax.random.normal(next(keys), shape) / shape[-2] ** 0.5

    sizes = [(WIDTH, WIDTH)] * 4 + [(WIDTH, MLP), (MLP, WIDTH)]
    tokens = [normal(batch * length, WIDTH) for length, _ in towers]  # one array, which stays near for all blocks
    blocks = [
        [[x, *(normal(*s) for s in sizes)] for _ in range(depth)] for x, (_, depth) in zip(tokens, towers, strict=True)
    ]
    patches = normal(batch * (size // patch) ** 2, 3 * patch**2), normal(3 * patch**2, WIDTH)

    def heads(x):
        return x.reshape(batch, -1, HEADS, WIDTH // HEADS).swapaxes(1, 2)

    def block(x, query, key, value, out, up, down, *, last):
        read = x.reshape(batch, -1, WIDTH)[:, 0] if last else x
        scores = heads(read @ query) @ heads(x @ key).swapaxes(2, 3)
        return (scores @ heads(x @ value)).swapaxes(1, 2).reshape(-1, WIDTH) @ out @ up @ down

    @jax.jit
    def run(patches, blocks):
        return patches[0] @ patches[1], [[block(*b, last=b is tower[-1]) for b in tower] for tower in blocks]

    return lambda: jax.block_until_ready(run(patches, blocks)), None


def torch_step(case, what, *, compiled=False):
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)

    class Block(nn.Module):
        def __init__(self, causal):
            super().__init__()
            self.causal = causal
            self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, eps=1e-6) for _ in range(2))
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, MLP), nn.Linear(MLP, WIDTH)

        def forward(self, x):
            heads = self.qkv(self.norms[0](x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(*heads, is_causal=self.causal)
            x = x + self.out(y.transpose(1, 2).flatten(2))
            return x + self.down(functional.gelu(self.up(self.norms[1](x)), approximate="tanh"))

    class Tower(nn.Module):
        def __init__(self, embed, tokens, depth, outputs, causal):
            super().__init__()
            self.embed, self.causal = embed, causal
            self.token = None if causal else nn.Parameter(torch.zeros(1, 1, WIDTH))
            self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, WIDTH))
            self.blocks = nn.Sequential(*(Block(causal) for _ in range(depth)))
            self.norm, self.head = nn.LayerNorm(WIDTH, eps=1e-6), nn.Linear(WIDTH, outputs)

        def forward(self, x):
            x = self.embed(x)
            if not self.causal:
                x = torch.cat([self.token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
            return self.head(self.norm(self.blocks(x + self.positions))[:, -1 if self.causal else 0])

    class Pair(nn.Module):
        def __init__(self, image, text):
            super().__init__()
            self.image, self.text, self.scale = image, text, nn.Parameter(torch.tensor(2.6592))

        def forward(self, x, tokens):
            image, text = functional.normalize(self.image(x)), functional.normalize(self.text(tokens))
            logits, own = self.scale.exp() * image @ text.T, torch.arange(len(x))
            return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2

    batch, size, patch, depth, classes = VITS[case]
    clip = case == "clip_small"
    model = Tower(nn.Conv2d(3, WIDTH, patch, patch), (size // patch) ** 2 + 1, depth, classes, False)
    inputs, labels = (torch.randn(batch, 3, size, size),), torch.randint(classes, (batch,))
    if clip:
        vocabulary, length, depth, width = TEXTS
        model = Pair(model, Tower(nn.Embedding(vocabulary, WIDTH), length, depth, width, True))
        inputs = (*inputs, torch.randint(vocabulary, (batch, length)))
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, foreach=True)

    def forward():
        with torch.inference_mode():
            run(*inputs)

    def train():
        optimizer.zero_grad(set_to_none=True)
        out = run(*inputs)
        (out if clip else functional.cross_entropy(out, labels)).backward()
        optimizer.step()

    return forward if what == "forward" else train, None


LIBRARIES = {
    "aijax": aijax_step, "products": products_step, "torch": torch_step,
    "compiled": lambda *a: torch_step(*a, compiled=True),
}  # fmt: skip


def measure(library, case, what):
    """Returns what one case takes, in this process."""
    step, program = LIBRARIES[library](case, what)
    step()
    first, spent, start = time.process_time(), [], time.perf_counter()
    while len(spent) < REPEATS and (len(spent) < 3 or time.perf_counter() - start < SECONDS):
        before = time.process_time()
        step()
        spent.append(time.process_time() - before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    program = "" if program is None else round(program)
    return {"ms": round(1e3 * min(spent), 1), "first_s": round(first, 1), "peak_mb": round(peak), "program_mb": program}


def measured(python, library, case, what):
    """Returns what one case takes, in a process of its own on one core."""
    core = str(sorted(os.sched_getaffinity(0))[0])
    command = ["taskset", "-c", core, python, __file__, "--one", library, case, what]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRONMENT)
    if done.returncode:
        raise SystemExit(f"{library} {case} {what}: {done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def contrastive():
    """Tells, for each loss of pairs, the temporary bytes of a device and how far the ring's are from the dense ones."""
    import jax
    import numpy as np

    jax.config.update("jax_num_cpu_devices", DEVICES)
    from aijax import losses, parallel

    image, text = losses.normalize(jax.random.normal(jax.random.key(0), (2, PAIRS, FEATURES)))
    mesh = parallel.make_mesh(data=DEVICES, fsdp=1, tensor=1)
    placed = jax.device_put((image, text), parallel.batch_sharding(mesh))
    kinds = {
        "softmax": (losses.softmax_contrastive_loss, losses.ring_softmax_contrastive_loss, (14.3,)),
        "sigmoid": (losses.sigmoid_contrastive_loss, losses.ring_sigmoid_contrastive_loss, (10.0, -10.0)),
    }
    print(f"{'loss':10}{'whole MB':>10}{'ring MB':>9}{'value':>10}{'gradient':>10}")
    for kind, (whole, ring, scalars) in kinds.items():
        dense, cut = (
            jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*placed, *scalars).compile()
            for loss in (whole, lambda *given, ring=ring: ring(*given, mesh=mesh))
        )
        (want, wants), (got, gots) = (program(*placed, *scalars) for program in (dense, cut))
        apart = max(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in zip(wants, gots, strict=True))
        sizes = "".join(
            f"{one.memory_analysis().temp_size_in_bytes / 1e6:{w}.1f}" for one, w in ((dense, 10), (cut, 9))
        )
        print(f"{kind:10}{sizes}{abs(got / want - 1):10.1e}{apart:10.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--what", nargs="+", default=WHAT, choices=WHAT)
    parser.add_argument("--peer", help="a Python that has torch")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--contrastive", action="store_true", help="the losses of pairs alone")
    parser.add_argument("--one", nargs=3, metavar=("LIBRARY", "CASE", "WHAT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    if options.contrastive:
        contrastive()
        return
    peers = ["torch", *(["compiled"] if options.compile else [])] if options.peer else []
    heads = f"{'CPU ms':>9}{'ratio':>7}{'first CPU s':>13}{'peak MB':>9}{'program MB':>12}"
    print(f"{'case':14}{'what':9}{'library':10}{heads}")
    for case in options.cases:
        for what in options.what:
            ours = None
            for library in ("aijax", *(["products"] if what == "forward" else []), *peers):
                found = measured(options.peer if library in peers else sys.executable, library, case, what)
                ours = ours or found["ms"]
                line = f"{case:14}{what:9}{library:10}{found['ms']:9.1f}{ours / found['ms']:7.2f}"
                rest = f"{found['first_s']:13.1f}{found['peak_mb']:9}{found['program_mb']:>12}"
                print(f"{line}{rest}", flush=True)


if __name__ == "__main__":
    main()
