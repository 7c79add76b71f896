"""The convolutional tangent kernel against reference values and against the paper's recursion written out."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.ntk.cntk import compute_cntk


@pytest.mark.parametrize(
    "name, depth, pooling", [("d2_flatten", 2, "none"), ("d4_flatten", 4, "none"), ("d7_gap", 7, "gap")]
)
def test_the_golden_kernels(golden, quick, name, depth, pooling):
    folder = golden / "ntk"
    (case,) = [c for c in json.loads((folder / "index.json").read_text())["cases"] if c["id"] == f"cntk_vanilla_{name}"]
    arrays = np.load(folder / case["file"])

    def both(x1, x2):
        options = {"depth": depth, "pooling": pooling, "get": ("nngp", "ntk")}
        return {"12": compute_cntk(x1, x2, **options), "11": compute_cntk(x1, **options)}

    with jax.enable_x64(True):
        found = jax.device_get(quick(both, arrays["x1"], arrays["x2"]))
    for pair, kernels in found.items():
        for get in ("nngp", "ntk"):
            expected = arrays[f"{get}_{pair}"]
            error = np.abs(getattr(kernels, get) - expected).max()
            assert error <= case["tol"][f"{get}_{pair}"] * np.abs(expected).max()


def arora(x, y, depth, gap):
    """The recursion of the paper for two images [P, P, c], position by position."""
    size = x.shape[0]
    pixels = list(itertools.product(range(size), range(size)))

    def patches(k):
        """sum over D of [pixels, pixels]."""
        total = np.zeros_like(k)
        index = {pixel: i for i, pixel in enumerate(pixels)}
        for a, b in itertools.product((-1, 0, 1), (-1, 0, 1)):
            moved = [index.get((i + a, j + b)) for i, j in pixels]
            for i, m in enumerate(moved):
                for j, n in enumerate(moved):
                    if m is not None and n is not None:
                        total[i, j] += k[m, n]
        return total

    def gram(a, b):
        return a.reshape(-1, a.shape[-1]) @ b.reshape(-1, b.shape[-1]).T

    sigma = {pair: patches(gram(*pair_of)) for pair, pair_of in (("xx", (x, x)), ("xy", (x, y)), ("yy", (y, y)))}
    theta = sigma["xy"]
    for h in range(1, depth + 1):
        variances = {"xx": (sigma["xx"],) * 2, "xy": (sigma["xx"], sigma["yy"]), "yy": (sigma["yy"],) * 2}
        k = {}
        for pair, (one, two) in variances.items():
            root = np.sqrt(np.outer(np.diag(one), np.diag(two)))
            cosine = np.clip(sigma[pair] / root, -1, 1)
            angle = np.arccos(cosine)
            k[pair] = 2 / 9 * root * (np.sqrt(1 - cosine**2) + cosine * (np.pi - angle)) / (2 * np.pi)
            if pair == "xy":
                derivative = 2 / 9 * (np.pi - angle) / (2 * np.pi)
        theta = derivative * theta + k["xy"]
        if h < depth:
            theta = patches(theta)
            sigma = {pair: patches(value) for pair, value in k.items()}
    return theta.mean() if gap else np.trace(theta)


@pytest.mark.parametrize("pooling", ["gap", "none"])
def test_the_recursion_of_the_paper_with_its_scale(pooling):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 4, 3))
    expected = arora(x, y, 3, pooling == "gap")
    run = jax.jit(lambda x, y: compute_cntk(x, y, depth=3, pooling=pooling, paper_scale=True))
    found = run(x[None], y[None])
    np.testing.assert_allclose(found, [[expected]], rtol=1e-5)


def test_blocks_give_the_same_and_it_is_differentiable():
    x = jax.random.normal(jax.random.key(0), (5, 3, 3, 2))
    whole, slope = jax.jit(jax.value_and_grad(lambda x: compute_cntk(x, depth=1).sum()))(x)
    blocks = compute_cntk(np.asarray(x), depth=1, block_size=2)
    np.testing.assert_allclose(blocks.sum(), whole, rtol=1e-5)
    assert np.isfinite(slope).all()


def test_refusals():
    x = jnp.ones((2, 4, 4, 3))
    with pytest.raises(ConfigError, match="images"):
        compute_cntk(jnp.ones((2, 48)))
    for depth in (0, 1.5, True):
        with pytest.raises(ConfigError, match="depth"):
            compute_cntk(x, depth=depth)
    with pytest.raises(ConfigError, match="pooling"):
        compute_cntk(x, pooling="max")
