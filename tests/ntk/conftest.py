"""The small networks of the reference values: each case's `forward` as a function of parameters and inputs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def _conv(x, w, stride=1, padding="SAME"):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=numbers)


def _cnn_flat_stride(p, x):
    x = jnp.tanh(_conv(x, p["w0"], 2, "VALID") + p["b0"])
    x = jnp.tanh(_conv(x, p["w1"]) + p["b1"])
    return x.reshape(x.shape[0], -1) @ p["w2"] + p["b2"]


def _mlp_ntkparam(p, x):
    for i in range(3):
        x = 1.5 / x.shape[-1] ** 0.5 * x @ p[f"w{i}"] + 0.2 * p[f"b{i}"]
        x = jax.nn.relu(x) if i < 2 else x
    return x


def _mlp_scalar(p, x):
    return (jnp.tanh(x @ p["w0"] + p["b0"]) @ p["w1"] + p["b1"])[:, 0]


def _resnet(p, x):
    h = _conv(x, p["w0"]) + p["b0"]
    for i in (1, 2):
        branch = jax.nn.relu(_conv(jax.nn.relu(h), p[f"w{i}a"]) + p[f"b{i}a"])
        h = h + _conv(branch, p[f"w{i}b"]) + p[f"b{i}b"]
    return jax.nn.relu(h).mean((1, 2)) @ p["w3"] + p["b3"]


def _rnn(p, x):
    h = jnp.zeros((x.shape[0], p["u"].shape[0]), x.dtype)
    for t in range(4):
        h = jnp.tanh(x[:, t] @ p["w"] + h @ p["u"] + p["b"])
    return h @ p["r"]


def _spatial_output(p, x):
    return _conv(jax.nn.relu(_conv(x, p["w0"]) + p["b0"]), p["w1"]) + p["b1"]


def _layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def _vit(p, x):
    h = x @ p["we"] + p["pos"]
    for i in range(2):
        a = _layer_norm(h) * p[f"g{i}a"] + p[f"c{i}a"]
        q, k, v = (jnp.einsum("btd,dhk->bhtk", a, p[f"{name}{i}"]) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bhtk,bhsk->bhts", q, k) / q.shape[-1] ** 0.5)
        h = h + jnp.einsum("bhts,bhsk,hkd->btd", weights, v, p[f"o{i}"])
        a = _layer_norm(h) * p[f"g{i}b"] + p[f"c{i}b"]
        h = h + jax.nn.gelu(a @ p[f"m{i}"] + p[f"mb{i}"], approximate=False) @ p[f"r{i}"] + p[f"rb{i}"]
    return (_layer_norm(h) * p["gf"] + p["cf"]).mean(1) @ p["wh"] + p["bh"]


NETWORKS = {
    "empirical_cnn_flat_stride": _cnn_flat_stride,
    "empirical_mlp_ntkparam": _mlp_ntkparam,
    "empirical_mlp_scalar": _mlp_scalar,
    "empirical_resnet": _resnet,
    "empirical_rnn": _rnn,
    "empirical_spatial_output": _spatial_output,
    "empirical_vit": _vit,
}


@pytest.fixture(params=NETWORKS)
def empirical_case(request, golden):
    """`(apply_fn, params, new_params, arrays, tolerance)` of a reference case, for use with 64-bit numbers enabled."""
    folder = golden / "ntk"
    (case,) = [c for c in json.loads((folder / "index.json").read_text())["cases"] if c["id"] == request.param]
    arrays = dict(np.load(folder / case["file"]))
    params = {name.removeprefix("param_"): value for name, value in arrays.items() if name.startswith("param_")}
    new_params = {name: value + arrays[f"dparam_{name}"] for name, value in params.items()}
    return NETWORKS[request.param], params, new_params, arrays, case["tol"]


@pytest.fixture(scope="session")
def quick():
    """`quick(function, *args)`: its value, compiled without the optimisations that would take longer than they save."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return lambda function, *args: jax.jit(function, compiler_options=options)(*args)
