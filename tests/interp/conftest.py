"""Small transformers of the reference: their weights, tokens and what was found in them."""

import functools
import json
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest

from aijax.interp import Contrast, contrast, tap
from aijax.models.published.transformer_lens import from_hooked_transformer


@pytest.fixture(scope="session")
def hooked(golden):
    """Returns `read(name) -> (model, params, values of the case)`, in float64."""
    folder = golden / "science" / "interp"
    configs = json.loads((folder / "transformers.json").read_text())

    def read(name):
        with np.load(folder / f"{name}.npz") as stored:
            case = dict(stored)
        tensors = {key[2:]: value.astype(np.float64) for key, value in case.items() if key.startswith("w.")}
        return *from_hooked_transformer(configs[name], tensors), case

    return read


@dataclass(frozen=True)
class EdgeCase:
    """Edges of a reference, in our order; those of MLPs that are not there are left out."""

    run: Contrast
    arrays: dict
    names: list
    tolerance: dict

    def __getitem__(self, key):
        """Values of edges, or an array."""
        values = self.arrays[key]
        return values[self.order] if np.ndim(values) == 1 and len(values) == len(self.names) else values

    @property
    def order(self):
        return [self.names.index(edge.replace("output", "logits")) for edge in self.run.graph.edges]


@pytest.fixture(scope="session")
def edge_case(hooked, golden):
    """Returns `read(name) -> EdgeCase`: a reference of kind `eap` or `eap_trained`, in float64."""
    names = json.loads((golden / "science" / "interp" / "edges.json").read_text())

    @functools.cache
    def read(name):
        model, params, case = hooked(name)
        rows, labels = np.arange(len(case["labels"])), case["labels"].T

        def gap(logits):
            return logits[rows, -1, labels[0]] - logits[rows, -1, labels[1]]

        def apply_fn(params, tokens):
            return model.apply({"params": params}, tokens)

        run = contrast(apply_fn, params, case["clean"], gap, corrupted=case["corrupted"])
        tolerance = {"rtol": 1e-4, "atol": 2e-6} if "true_edges" in case else {"rtol": 1e-5, "atol": 2e-7}
        return EdgeCase(run, case, names[name], tolerance)

    return read


@pytest.fixture(scope="session")
def small_net():
    """Returns a net of two heads and an MLP on a residual stream of 3, written with taps, and how it runs by hand."""
    return SmallNet()


class SmallNet:
    """`apply_fn(params, x)`: [b, t, 3] -> [b, t]; `by_hand` computes what each reader gets on its own, in numpy."""

    EDGES = (
        "input->a.h0<q>", "input->a.h1<q>", "input->a.h0<v>", "input->a.h1<v>", "input->m", "a.h0->m", "a.h1->m",
        "input->output", "a.h0->output", "a.h1->output", "m->output",
    )  # fmt: skip

    def __init__(self):
        rng = np.random.default_rng(0)
        shapes = {"query": (2, 3, 3), "value": (2, 3, 3), "mlp": (3, 3), "out": (3,)}
        self.params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        self.clean, self.corrupted = rng.normal(size=(2, 8, 4, 3))

    @staticmethod
    def apply_fn(params, x):
        x = tap("writes_input", x)
        each = jnp.stack([x, x], axis=2)
        gate = jnp.tanh(jnp.einsum("bthd,hde->bthe", tap("reads_a_query", each), params["query"]))
        value = jnp.cumsum(jnp.einsum("bthd,hde->bthe", tap("reads_a_value", each), params["value"]), axis=1)
        x = x + tap("writes_a", gate * value).sum(2)
        x = x + tap("writes_m", jnp.tanh(tap("reads_m", x) @ params["mlp"]))
        return tap("reads_output", x) @ params["out"]

    def by_hand(self, x, others=None, patched=()):
        """The output, and what is written, with some edges patched."""
        p, written = self.params, {"input": x}

        def read(reader):
            own = {edge.split("->")[0] for edge in self.EDGES if edge.split("->")[1] == reader}
            return sum((others if f"{w}->{reader}" in patched else written)[w] for w in written if w in own)

        for head in (0, 1):
            gate = np.tanh(read(f"a.h{head}<q>") @ p["query"][head])
            written[f"a.h{head}"] = gate * np.cumsum(read(f"a.h{head}<v>") @ p["value"][head], axis=1)
        written["m"] = np.tanh(read("m") @ p["mlp"])
        return read("output") @ p["out"], written
