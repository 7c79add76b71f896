"""Curvature and surfaces beside plain JAX, PyTorch and what is recorded of the peers, case by case.

    python benchmarks/landscape.py                           aijax and plain JAX
    python benchmarks/landscape.py --torch PYTHON            with PyTorch of another environment
    python benchmarks/landscape.py --cases eigenvalues:mlp,surface --repeats 15

Each measurement is a process of its own, on one thread. Told are the CPU seconds of a call after the first, which a
busy machine disturbs least, those of the first call, with compiling, products with the Hessian, and the error: of the
worst of the ten eigenvalues of largest magnitude, relative to it, or of a density, in L1, against float64. Peers with a
star have recorded figures, of versions of 2026 on one core of another machine: their ratios are for orientation.
"plain" is Lanczos, or a map over the grid, written down in JAX; "torch" the same loops with PyTorch.

The floor of an eigenvalue computation is its products. One with the Hessian of the MLP, linearised once, is 32 MFLOP:
for each of 4,736 weights six multiplications and additions an example, for the 1,280 of the first layer two.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CASES = {
    "eigenvalues:mlp": "10 eigenvalues, MLP of 6,154 parameters",
    "eigenvalues:cnn": "10 eigenvalues, CNN of 4,965 parameters",
    "density:small": "spectral density, 10 probes of 80 products, MLP of 917 parameters",
    "trace:small": "trace from 98 products, the same; the error is the median of 10 keys",
    "surface:mlp": "surface of 21 x 21, MLP of 6,154 parameters",
}
RECORDED = {
    "eigenvalues:mlp": {
        "PyHessian 0.1": (0.671, 222, 7.6e-3),
        "curvlinops 3.0.1": (0.555, 52, 1.3e-6),
        "hessian-eigenthings": (0.054, 20, 0.27),
        "matfree 0.6.3": (0.032, 60, 2.8e-7),
    },
    "eigenvalues:cnn": {
        "PyHessian 0.1": (7.78, 429, 2.0),
        "curvlinops 3.0.1": (1.36, 55, 1.3e-6),
        "hessian-eigenthings": (0.369, 20, 0.13),
        "matfree 0.6.3": (5.48, 60, 3.0e-7),
    },
    "density:small": {"hessian-eigenthings": (1.03, 800, 0.014), "curvlinops 3.0.1": (5.93, 800, None)},
    "trace:small": {
        "PyHessian 0.1": (0.017, 25, 2.2e-2),
        "curvlinops Hutchinson": (0.025, 99, 1.0e-2),
        "curvlinops Hutch++": (0.030, 99, 4.6e-3),
        "curvlinops XTrace": (0.029, 98, 6.9e-3),
    },
    "surface:mlp": {"loss-landscapes 3.0.6": (0.190, None, None)},
}
PLAIN = ("eigenvalues:mlp", "eigenvalues:cnn", "density:small", "surface:mlp")
TORCH = ("eigenvalues:mlp", "eigenvalues:cnn", "surface:mlp")
WIDTHS = {"mlp": (20, 64, 64, 10), "small": (12, 24, 20, 5)}
SEEDS = {"mlp": 0, "small": 3, "cnn": 1}
DESCENT = {"mlp": 150, "small": 300}
EXAMPLES = {"mlp": 512, "small": 256, "cnn": 128}
STEPS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated, of: " + ", ".join(CASES))
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter that imports torch")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        side, case, folder = options.one
        print(json.dumps(measure(side, case, Path(folder), options.repeats)))
        return
    print(f"{'':24} {'seconds':>9} {'first':>7} {'products':>8} {'error':>9}  ratio to aijax")
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases.split(","):
            print(CASES[case])
            child(sys.executable, "reference", case, folder, 1)
            sides = {"aijax": sys.executable} | ({"plain": sys.executable} if case in PLAIN else {})
            sides |= {"torch": options.torch} if options.torch and case in TORCH else {}
            found = {side: child(python, side, case, folder, options.repeats) for side, python in sides.items()}
            for side, result in found.items():
                tell(side, result, found["aijax"]["seconds"])
            for peer, (seconds, products, error) in RECORDED[case].items():
                recorded = {"seconds": seconds, "products": products, "error": error}
                tell(f"{peer} *", recorded, found["aijax"]["seconds"])


def tell(side, result, ours):
    def number(name, form):
        return "" if result.get(name) is None else format(result[name], form)

    print(
        f"  {side:22} {result['seconds']:9.4f} {number('first', '.2f'):>7} {number('products', 'd'):>8} "
        f"{number('error', '.1e'):>9}  {result['seconds'] / ours:.2f}",
        flush=True,
    )


def child(python, side, case, folder, repeats):
    """Returns what a process of one thread measured."""
    command = [python, __file__, "--one", side, case, folder, "--repeats", str(repeats)]
    threads = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(side, case, folder, repeats):
    """Returns CPU seconds, products and the error of one case by one side."""
    task, name = case.split(":")
    if side == "reference":
        return write_reference(task, name, folder)
    stored = dict(np.load(folder / f"{task}_{name}.npz"))
    run, score = (of_torch if side == "torch" else of_jax)(side, task, name, stored)
    began = time.process_time()
    result = run()
    first = time.process_time() - began
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return {"seconds": float(np.median(seconds)), "first": first} | score(result)


def arrays(name):
    """Returns weights and biases by layer, inputs and labels, in float64; an MLP is trained by gradient descent."""
    rng, n = np.random.default_rng(SEEDS[name]), EXAMPLES[name]
    if name == "cnn":
        x, y = rng.normal(size=(n, 1, 12, 12)), rng.integers(0, 5, n)
        shapes = {"conv1": (16, 1, 3, 3), "conv2": (32, 16, 3, 3), "head": (5, 32)}
        weights = [rng.normal(size=shape) / np.prod(shape[1:]) ** 0.5 for shape in shapes.values()]
        biases = [0.1 * rng.normal(size=shape[0]) for shape in shapes.values()]
        return dict(zip(shapes, zip(weights, biases, strict=True), strict=True)), x, y
    widths = WIDTHS[name]
    teacher, x = rng.normal(size=(widths[0], widths[-1])), rng.normal(size=(n, widths[0]))
    y = (x @ teacher + rng.normal(size=(n, widths[-1]))).argmax(1)
    layers = itertools.pairwise(widths)
    params = {f"layer{i}": (rng.normal(size=pair) / pair[0] ** 0.5, np.zeros(pair[1])) for i, pair in enumerate(layers)}
    import jax

    step = jax.jit(lambda p: jax.tree.map(lambda a, g: a - 0.5 * g, p, jax.grad(jax_loss(name))(p, (x, y))))
    for _ in range(DESCENT[name]):
        params = step(params)
    return params, x, y


def jax_loss(name):
    import jax
    import jax.numpy as jnp

    def convolve(x, w, b):
        return jnp.tanh(jax.lax.conv(x, w, (1, 1), "SAME") + b[:, None, None])

    def logits(params, x):
        if name == "cnn":
            x = convolve(x, *params["conv1"])
            b, c, h, w = x.shape
            x = convolve(x.reshape(b, c, h // 2, 2, w // 2, 2).mean((3, 5)), *params["conv2"]).mean((2, 3))
            return x @ params["head"][0].T + params["head"][1]
        *hidden, last = params
        for layer in hidden:
            x = jnp.tanh(x @ params[layer][0] + params[layer][1])
        return x @ params[last][0] + params[last][1]

    def loss_fn(params, batch):
        told = jax.nn.log_softmax(logits(params, batch[0]))
        return -jnp.mean(jnp.take_along_axis(told, batch[1][:, None], 1))

    return loss_fn


def write_reference(task, name, folder):
    """Writes the problem and what is right, worked out in float64."""
    import jax
    from jax.flatten_util import ravel_pytree
    from scipy.sparse.linalg import LinearOperator, eigsh

    jax.config.update("jax_enable_x64", True)
    params, x, y = arrays(name)
    stored = {f"{kind}.{layer}": leaf for layer, pair in params.items() for kind, leaf in zip("wb", pair, strict=True)}
    stored |= {"x": x, "y": y}
    flat, whole = ravel_pytree(params)
    slope = jax.grad(lambda flat: jax_loss(name)(whole(flat), (x, y)))
    product = jax.jit(lambda v: jax.jvp(slope, (flat,), (v,))[1])
    if name == "small":
        stored["values"] = np.linalg.eigvalsh(np.stack([product(row) for row in np.eye(flat.size)]))
    elif task == "eigenvalues":
        operator = LinearOperator((flat.size, flat.size), matvec=lambda v: np.asarray(product(v.ravel())), dtype=float)
        values = eigsh(operator, 10, which="LM", ncv=80, tol=1e-12)[0]
        stored["values"] = values[np.argsort(-np.abs(values))]
    np.savez(folder / f"{task}_{name}.npz", **stored)
    return {}


def of_jax(side, task, name, stored):
    """Returns `(run, score)`: run works it out, score says how well."""
    import jax
    import jax.numpy as jnp

    from aijax import landscape, linalg

    params = {
        key[2:]: (jnp.asarray(leaf, jnp.float32), jnp.asarray(stored[f"b.{key[2:]}"], jnp.float32))
        for key, leaf in stored.items()
        if key.startswith("w.")
    }
    batch, loss_fn = (jnp.asarray(stored["x"], jnp.float32), jnp.asarray(stored["y"])), jax_loss(name)
    matvec = landscape.hessian(loss_fn, params, batch)
    if task == "eigenvalues":
        if side == "plain":
            return plain_eigenvalues(loss_fn, params, batch, name), lambda values: worst(values, stored, STEPS)

        def run():
            found = landscape.compute_hessian_eigenvalues(loss_fn, params, batch, 10, which="magnitude")
            return jax.block_until_ready(found)

        # where every sweep after the first looks for copies
        return run, lambda pairs: worst(pairs.values, stored, 52 + 8 * (int(pairs.restarts) - 1))
    if task == "surface":
        directions = [landscape.random_direction(jax.random.key(i), params) for i in range(2)]
        if side == "plain":
            return plain_surface(loss_fn, params, batch, directions), lambda values: {}
        run = lambda: jax.block_until_ready(landscape.surface(loss_fn, params, batch, directions))  # noqa: E731
        return run, lambda found: {}
    if task == "trace":
        estimate = jax.jit(lambda matvec, key: linalg.estimate_trace(landscape.linearize(matvec), key, params, 98))
        keys = jax.random.split(jax.random.key(0), 10)
        run = lambda: jax.block_until_ready(estimate(matvec, keys[0]))  # noqa: E731
        trace = stored["values"].sum()
        off = lambda: float(np.median([abs(float(estimate(matvec, key).value) / trace - 1) for key in keys]))  # noqa: E731
        return run, lambda _: {"products": 98, "error": off()}
    return density(side, landscape, matvec, loss_fn, params, batch, stored["values"])


def worst(values, stored, products):
    values, right = np.asarray(values, float), stored["values"]
    values = values[np.argsort(-np.abs(values))][:10]
    return {"products": products, "error": float(np.max(np.abs(values - right) / np.abs(right)))}


def density(side, landscape, matvec, loss_fn, params, batch, values):
    import jax
    import jax.numpy as jnp

    span = values[-1] - values[0]
    grid, width = np.linspace(values[0] - 0.05 * span, values[-1] + 0.05 * span, 512), 0.01 * span

    def smooth(values, weights):
        bumps = np.exp(-(((grid[:, None] - np.ravel(values)) / width) ** 2) / 2) / (width * (2 * np.pi) ** 0.5)
        return bumps @ np.ravel(weights) / np.sum(weights)

    def score(found):
        off = np.abs(np.asarray(found, float) - smooth(values, np.ones(len(values))))
        return {"products": 800, "error": float(off.sum() * (grid[1] - grid[0]))}

    key = jax.random.key(0)
    if side == "plain":
        run = plain_density(loss_fn, params, batch)
        return lambda: jax.block_until_ready(run(key)), lambda found: score(smooth(*map(np.asarray, found)))
    options = {"grid": jnp.asarray(grid, jnp.float32), "width": width, "batch_size": 10}
    run = jax.jit(lambda matvec: landscape.spectral_density(matvec, key, params, **options).density)
    return lambda: jax.block_until_ready(run(matvec)), score


def flat_gradient(loss_fn, params, batch):
    import jax
    from jax.flatten_util import ravel_pytree

    flat, whole = ravel_pytree(params)
    return flat, jax.grad(lambda flat: loss_fn(whole(flat), batch))


def lanczos_step(product, basis, index, v):
    """Returns the basis with v, the vector that follows, and the entries of the tridiagonal matrix."""
    import jax.numpy as jnp

    basis, image = basis.at[index].set(v), product(v)
    rest = image
    for _ in range(2):
        rest = rest - basis.T @ (basis @ rest)
    size = jnp.linalg.norm(rest)
    return basis, rest / size, v @ image, size


def tridiagonal(np, alpha, beta):
    return np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1)


def plain_eigenvalues(loss_fn, params, batch, name):
    import jax
    import jax.numpy as jnp

    flat, slope = flat_gradient(loss_fn, params, batch)
    start, basis = jnp.ones_like(flat) / flat.size**0.5, jnp.zeros((STEPS, flat.size))
    if name == "cnn":  # convolutions are slow within compiled loops
        step = jax.jit(
            lambda flat, basis, index, v: lanczos_step(lambda v: jax.jvp(slope, (flat,), (v,))[1], basis, index, v)
        )

        def run():
            held, v, entries = basis, start, []
            for index in range(STEPS):
                held, v, *entry = step(flat, held, index, v)
                entries.append(entry)
            return np.linalg.eigvalsh(tridiagonal(np, *np.array(entries).T))

        return run

    @jax.jit
    def whole(flat):
        product = jax.linearize(slope, flat)[1]

        def step(carry, index):
            basis, v, *entry = lanczos_step(product, carry[0], index, carry[1])
            return (basis, v), entry

        (held, _), (alpha, beta) = jax.lax.scan(step, (basis, start), jnp.arange(STEPS))
        values, vectors = jnp.linalg.eigh(tridiagonal(jnp, alpha, beta))
        return values, held.T @ vectors[:, -10:]

    return lambda: jax.block_until_ready(whole(flat))[0]


def plain_density(loss_fn, params, batch):
    import jax
    import jax.numpy as jnp

    flat, slope = flat_gradient(loss_fn, params, batch)

    @jax.jit
    def run(key):
        product = jax.linearize(slope, flat)[1]

        def one(v):
            def step(carry, index):
                basis, v, *entry = lanczos_step(product, carry[0], index, carry[1])
                return (basis, v), entry

            start = jnp.zeros((80, flat.size)), v / jnp.linalg.norm(v)
            _, (alpha, beta) = jax.lax.scan(step, start, jnp.arange(80))
            values, vectors = jnp.linalg.eigh(tridiagonal(jnp, alpha, beta))
            return values, vectors[0] ** 2

        return jax.vmap(one)(jax.random.rademacher(key, (10, flat.size), dtype=flat.dtype))

    return run


def plain_surface(loss_fn, params, batch, directions):
    import jax
    import jax.numpy as jnp

    steps = jnp.stack(jnp.meshgrid(*[jnp.linspace(-1, 1, 21)] * 2, indexing="ij"), -1).reshape(-1, 2)

    @jax.jit
    def run(params, directions):
        def at(step):
            there = jax.tree.map(lambda p, a, b: p + step[0] * a + step[1] * b, params, *directions)
            return loss_fn(there, batch)

        return jax.lax.map(at, steps, batch_size=21)

    return lambda: jax.block_until_ready(run(params, directions))


def of_torch(side, task, name, stored):
    import torch

    torch.set_num_threads(1)
    x, y = torch.tensor(stored["x"], dtype=torch.float32), torch.tensor(stored["y"])
    names = [key[2:] for key in stored if key.startswith("w.")]
    leaves = [torch.tensor(stored[f"{kind}.{layer}"], dtype=torch.float32) for layer in names for kind in "wb"]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    functional = torch.nn.functional

    def loss_fn(leaves):
        pairs = list(zip(leaves[::2], leaves[1::2], strict=True))
        if name == "cnn":
            h = functional.avg_pool2d(torch.tanh(functional.conv2d(x, *pairs[0], padding=1)), 2)
            h = torch.tanh(functional.conv2d(h, *pairs[1], padding=1)).mean((2, 3))
            logits = h @ pairs[2][0].T + pairs[2][1]
        else:
            h = x
            for w, b in pairs[:-1]:
                h = torch.tanh(h @ w + b)
            logits = h @ pairs[-1][0] + pairs[-1][1]
        return functional.cross_entropy(logits, y)

    if task == "surface":
        directions = [[torch.randn_like(leaf) for leaf in leaves] for _ in range(2)]
        grid = torch.linspace(-1, 1, 21)

        def surface():
            with torch.no_grad():
                for a in grid:
                    for b in grid:
                        loss_fn([p + a * u + b * v for p, u, v in zip(leaves, *directions, strict=True)])

        return surface, lambda found: {}

    def eigenvalues():
        slope = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss_fn(leaves), leaves, create_graph=True)])
        v = torch.ones(len(slope)) / len(slope) ** 0.5
        basis, alpha, beta = torch.zeros(STEPS, len(slope)), np.zeros(STEPS), np.zeros(STEPS)
        for index in range(STEPS):
            basis[index] = v
            image = torch.cat([h.reshape(-1) for h in torch.autograd.grad(slope, leaves, v, retain_graph=True)])
            alpha[index] = v @ image
            for _ in range(2):
                image = image - basis.T @ (basis @ image)
            beta[index] = image.norm()
            v = image / float(beta[index])
        return np.linalg.eigvalsh(tridiagonal(np, alpha, beta))

    return eigenvalues, lambda values: worst(values, stored, STEPS)


if __name__ == "__main__":
    main()
