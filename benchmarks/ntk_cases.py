"""What `benchmarks/ntk.py` measures: networks and layers as plain functions, the same for every library.

This file imports neither aijax nor a peer, so that it runs in an environment of a peer's own (Python 3.10 and later).
"""

import functools
import itertools

import numpy as np

EXAMPLES = {"mlp": 32, "cnn": 16, "vit": 8, "embedding": 2, "remat": 16, "inverse": 16, "slices": 16}
SHAPES = {"mlp": (784,), "cnn": (16, 16, 3), "vit": (16, 16, 3)}
MLP = (784, 512, 512, 512, 512, 10)
CNN = (3, 64, 64, 64, 64, 64)
WIDTH, HEADS, BLOCKS, TOKENS, HIDDEN, CLASSES, VOCABULARY = 64, 4, 2, 16, 128, 10, 1000
DENSE = 128


def make(case):
    """Returns `(forward, params, x1, x2)`: a network, its parameters and two batches, in float32."""
    random = np.random.default_rng(0)

    def normal(*shape, fan=None, scale=None):
        scale = (2 / (fan or np.prod(shape[:-1]))) ** 0.5 if scale is None else scale
        return (scale * random.normal(size=shape)).astype(np.float32)

    n = EXAMPLES[case]
    if case == "embedding":
        params = {"table": normal(VOCABULARY, WIDTH, scale=1.0), "readout": normal(WIDTH, CLASSES)}
        return embedding, params, *random.integers(0, VOCABULARY, size=(2, n, TOKENS)).astype(np.int32)
    if case in ("remat", "inverse", "slices"):
        layers = [normal(DENSE, DENSE) for _ in range(3)]
        params = {"layers": layers, "readout": normal(DENSE, CLASSES)}
        if case == "inverse":
            params["layers"] = [2 * np.eye(DENSE, dtype=np.float32) + 0.3 * layer for layer in layers]
        if case == "slices":
            params["layers"] = np.concatenate([layer.ravel() for layer in layers])
        forward = {"remat": remat, "inverse": inverse, "slices": slices}[case]
        return forward, params, *random.normal(size=(2, n, DENSE)).astype(np.float32)
    if case == "mlp":
        params = [{"w": normal(a, b), "b": normal(b, scale=0.1)} for a, b in itertools.pairwise(MLP)]
        forward = mlp
    elif case == "cnn":
        params = [{"w": normal(3, 3, a, b), "b": normal(b, scale=0.1)} for a, b in itertools.pairwise(CNN)]
        params.append({"w": normal(CNN[-1], CLASSES), "b": normal(CLASSES, scale=0.1)})
        forward = cnn
    else:
        norm = lambda: {"gain": 1 + normal(WIDTH, scale=0.1), "bias": normal(WIDTH, scale=0.1)}  # noqa: E731
        block = lambda: {  # noqa: E731
            "before": norm(),
            "qkv": [normal(WIDTH, HEADS, WIDTH // HEADS, fan=2 * WIDTH) for _ in range(3)],
            "out": normal(HEADS, WIDTH // HEADS, WIDTH),
            "between": norm(),
            "up": {"w": normal(WIDTH, HIDDEN), "b": normal(HIDDEN, scale=0.1)},
            "down": {"w": normal(HIDDEN, WIDTH), "b": normal(WIDTH, scale=0.1)},
        }
        params = {
            "patches": {"w": normal(48, WIDTH), "b": normal(WIDTH, scale=0.1)},
            "positions": normal(TOKENS, WIDTH, scale=0.1),
            "blocks": [block() for _ in range(BLOCKS)],
            "last": norm(),
            "head": {"w": normal(WIDTH, CLASSES), "b": normal(CLASSES, scale=0.1)},
        }
        forward = vit
    return forward, params, *random.normal(size=(2, n, *SHAPES[case])).astype(np.float32)


def mlp(params, x):
    """784-512x4-10, relu, biases."""
    import jax

    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def cnn(params, x):
    """Five 3 x 3 convolutions of 64 channels with biases and relu, the mean over positions, a dense layer."""
    import jax

    for layer in params[:-1]:
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, layer["w"], (1, 1), "SAME", dimension_numbers=numbers)
        x = jax.nn.relu(x + layer["b"])
    return x.mean((1, 2)) @ params[-1]["w"] + params[-1]["b"]


def vit(params, x):
    """4 x 4 patches, width 64, two pre-norm blocks of four heads and a GELU layer of 128, the mean over tokens."""
    import jax
    import jax.numpy as jnp

    def norm(p, h):
        centred = h - h.mean(-1, keepdims=True)
        return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["gain"] + p["bias"]

    h = x.reshape(x.shape[0], 4, 4, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(x.shape[0], TOKENS, 48)
    h = h @ params["patches"]["w"] + params["patches"]["b"] + params["positions"]
    for block in params["blocks"]:
        a = norm(block["before"], h)
        q, k, v = (jnp.einsum("ntd,dhk->nhtk", a, w) for w in block["qkv"])
        weights = jax.nn.softmax(jnp.einsum("nhtk,nhsk->nhts", q, k) * (WIDTH // HEADS) ** -0.5)
        h = h + jnp.einsum("nthk,hkd->ntd", jnp.einsum("nhts,nhsk->nthk", weights, v), block["out"])
        a = norm(block["between"], h)
        a = jax.nn.gelu(a @ block["up"]["w"] + block["up"]["b"], approximate=False)
        h = h + a @ block["down"]["w"] + block["down"]["b"]
    return norm(params["last"], h).mean(1) @ params["head"]["w"] + params["head"]["b"]


def embedding(params, tokens):
    """The mean of 16 rows of a table of 1000, tanh, a readout."""
    import jax.numpy as jnp

    return jnp.tanh(params["table"][tokens]).mean(1) @ params["readout"]


def remat(params, x):
    """Three blocks of a product and tanh whose insides are computed again in the reverse pass, a readout."""
    import jax
    import jax.numpy as jnp

    for layer in params["layers"]:
        x = jax.checkpoint(lambda w, h: h + jnp.tanh(h @ w))(layer, x)
    return x @ params["readout"]


def inverse(params, x):
    """A product with the inverse of a matrix, two solutions of linear systems, each with tanh, a readout."""
    import jax.numpy as jnp

    first, *rest = params["layers"]
    x = jnp.tanh(x @ jnp.linalg.inv(first))
    for layer in rest:
        x = jnp.tanh(jnp.linalg.solve(layer, x.T).T)
    return x @ params["readout"]


def slices(params, x):
    """Three products with matrices cut out of one vector, the columns of the last in another order, a readout."""
    import jax.numpy as jnp

    size = DENSE * DENSE
    for i in range(3):
        layer = params["layers"][i * size : (i + 1) * size].reshape(DENSE, DENSE)
        x = jnp.tanh(x @ (layer[:, jnp.arange(DENSE)[::-1]] if i == 2 else layer))
    return x @ params["readout"]


def infinite(stax, readout):
    """Returns the kernel function of five 3 x 3 convolutions with relu, then "gap" or "flatten", then a dense layer."""
    layer = functools.partial(stax.Conv, 1, (3, 3), padding="SAME", W_std=2**0.5, b_std=0.1)
    layers = [part for _ in range(5) for part in (layer(), stax.Relu())]
    pool = {"gap": stax.GlobalAvgPool, "flatten": stax.Flatten}[readout]
    return stax.serial(*layers, pool(), stax.Dense(1, 2**0.5, 0.1))[2]
