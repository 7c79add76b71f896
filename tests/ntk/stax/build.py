"""Builds stax networks from the `layers` of a golden case."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf

from aijax.ntk import stax

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "ntk"

FUNCTIONS = {"tanh": jnp.tanh, "softplus": jax.nn.softplus, "silu": jax.nn.silu}


def compiled(layer):
    """The layer with its kernel_fn compiled as one program, which takes less than its operations one by one."""
    init_fn, apply_fn, kernel_fn = layer
    return init_fn, apply_fn, jax.jit(kernel_fn, static_argnames=("get", "diagonal_batch", "diagonal_spatial"))


def cases(kind: str = "infinite") -> list[dict]:
    """The golden cases of one kind."""
    index = json.loads((GOLDEN / "index.json").read_text())["cases"]
    return [case for case in index if case["kind"] == kind]


def arrays(case: dict) -> dict[str, np.ndarray]:
    """The arrays of a case."""
    with np.load(GOLDEN / case["file"]) as file:
        return dict(file)


def network(layers: list[dict]):
    """The network that applies `layers` in order."""
    if not layers:
        return stax.Identity()
    return stax.serial(*map(one, layers))


def one(spec: dict):
    """The layer of one entry of `layers`."""
    args = {key: value for key, value in spec.items() if key != "op"}
    op = spec["op"]
    if op in BUILDERS:
        return BUILDERS[op](args)
    return getattr(stax, op)(**args)


def _affine(args: dict) -> dict:
    return {"W_std": args["W_std"], "b_std": args["b_std"], "parameterization": args["param"]}


def _conv(name: str):
    def build(args: dict):
        shape, strides = tuple(args["filter"]), tuple(args["strides"])
        return getattr(stax, name)(args["out"], shape, strides, args["padding"], **_affine(args))

    return build


def _pool(name: str):
    def build(args: dict):
        more = {"normalize_edges": args["normalize_edges"]} if "normalize_edges" in args else {}
        return getattr(stax, name)(tuple(args["window"]), tuple(args["strides"]), args["padding"], **more)

    return build


def _branches(fan_in: str):
    def build(args: dict):
        branches = [network(branch) for branch in args["branches"]]
        return stax.serial(stax.FanOut(len(branches)), stax.parallel(*branches), getattr(stax, fan_in)())

    return build


def _attention(args: dict):
    names = {
        "out": "n_chan_out",
        "key": "n_chan_key",
        "val": "n_chan_val",
        "heads": "n_heads",
        "mechanism": "attention_mechanism",
        "pos_emb": "pos_emb_type",
        "n_chan_pos_emb": "n_chan_pos_emb",
        "decay": "pos_emb_decay_fn",
    }
    return stax.GlobalSelfAttention(**{names.get(key, key): value for key, value in args.items()})


def _slices(args: dict):
    def entry(value):
        if value is None:
            return slice(None)
        return slice(*value) if isinstance(value, list) else value

    return stax.Index(tuple(entry(value) for value in args["slices"]))


def _elementwise_auto(args: dict):
    def arccos1(k12, q1, q2):
        norm = jnp.sqrt(q1 * q2)
        angle = jnp.arccos(jnp.clip(k12 / norm, -1, 1))
        return norm / (2 * jnp.pi) * (jnp.sin(angle) + (jnp.pi - angle) * jnp.cos(angle))

    def error(k12, q1, q2):
        return 2 / jnp.pi * jnp.arcsin(2 * k12 / jnp.sqrt((1 + 2 * q1) * (1 + 2 * q2)))

    fn, nngp = {"arccos1": (jax.nn.relu, arccos1), "erf": (erf, error)}[args["q"]]
    return stax.Elementwise(fn, nngp)


BUILDERS = {
    "Dense": lambda a: stax.Dense(a["out"], **_affine(a)),
    "Conv": _conv("Conv"),
    "ConvTranspose": _conv("ConvTranspose"),
    "ConvLocal": _conv("ConvLocal"),
    "AvgPool": _pool("AvgPool"),
    "SumPool": _pool("SumPool"),
    "ParallelSum": _branches("FanInSum"),
    "ParallelProd": _branches("FanInProd"),
    "ParallelConcat": _branches("FanInConcat"),
    "Repeat": lambda a: stax.repeat(network(a["layers"]), a["n"]),
    "SigmoidLike": lambda a: stax.Sigmoid_like(),
    "LayerNorm": lambda a: stax.LayerNorm(tuple(np.atleast_1d(a["axis"]).tolist()), a["eps"]),
    "Dropout": lambda a: stax.Dropout(a["keep_prob"]),
    "GlobalSelfAttention": _attention,
    "ImageResize": lambda a: stax.ImageResize((-1, *a["shape"], -1), a["method"], a["antialias"]),
    "Index": _slices,
    "Aggregate": lambda a: stax.Aggregate(a["axis"]),
    "ElementwiseNumerical": lambda a: stax.ElementwiseNumerical(FUNCTIONS[a["fn"]], a["deg"]),
    "ElementwiseAuto": _elementwise_auto,
}
