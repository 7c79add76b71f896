"""The problems that `interp.py` sets: a case gives its sides by name, each a function and its arguments."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

TRANSFORMER = {
    "n_layers": 4, "d_model": 256, "n_heads": 8, "d_head": 32, "d_mlp": 1024, "d_vocab": 1000, "n_ctx": 128,
    "act_fn": "gelu_new", "normalization_type": "LN",
}  # fmt: skip


TRAINED = "eap_trained_a"


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
      what: it is, in a line.
      sides: gives `{name: (function, arguments)}`; the first is what the others are compared with. The function is
        compiled; one with no arguments is called as it is.
      parts: what the time of a call is divided by.
      recorded: figures of peers.
    """

    what: str
    sides: Callable[[], Mapping[str, tuple[Callable, tuple]]]
    parts: int = 1
    recorded: Mapping[str, str] = dataclasses.field(default_factory=dict)


def prepared(function: Callable, arguments: tuple = ()) -> tuple[Callable[[], Any], float | None]:
    """Returns a function that runs a side and waits for it, and what memory it needs in MiB, where that is known."""
    import jax

    if not arguments:
        return lambda: jax.block_until_ready(function()), None
    arguments = jax.device_put(arguments)
    compiled = jax.jit(function).lower(*arguments).compile()
    needs = compiled.memory_analysis()
    mib = (needs.temp_size_in_bytes + needs.output_size_in_bytes) / 2**20
    return lambda: jax.block_until_ready(compiled(*arguments)), mib


def checksum(output: Any) -> float | None:
    """Returns the sum of the first array of an output, of the logits where activations come with them."""
    import jax

    leaves = jax.tree.leaves(output)
    return float(np.asarray(leaves[0], np.float64).sum()) if leaves else None


def capture() -> dict[str, tuple[Callable, tuple]]:
    """Returns the forward pass, the same with values captured, and a transformer in plain JAX that returns them.

    What no library can save is the cost of the memory: a side of its own is the forward pass beside arrays of the
    shapes of all sites, filled with a number.
    """
    import jax
    import jax.numpy as jnp

    from aijax.interp import capture
    from aijax.models.published.transformer_lens import from_hooked_transformer, hook_taps

    model, params = from_hooked_transformer(TRANSFORMER, transformer_tensors())
    tokens, weights = tokens_of(8, 128), plain_weights(transformer_tensors())

    def forward(params, tokens):
        return model.apply({"params": params}, tokens)

    one, streams = "decoder/block_2/residual_mlp", "decoder/block_./residual_mlp"
    every = [tap for hook, tap in hook_taps(model).items() if not hook.endswith("hook_result")]
    arguments = params, tokens
    _, values = jax.eval_shape(capture(forward, every), *arguments)

    def filled(params, tokens):
        number = tokens[0, 0].astype(jnp.float32)
        return forward(params, tokens), jax.tree.map(lambda value: jnp.full(value.shape, number), values)

    return {
        "forward": (forward, arguments),
        "forward, as many bytes filled": (filled, arguments),
        "capture, one site": (capture(forward, one), arguments),
        "capture, every residual_mlp": (capture(forward, streams), arguments),
        f"capture, all {len(every)} sites": (capture(forward, every), arguments),
        "plain JAX, forward": (lambda weights, tokens: plain_forward(weights, tokens)[0], (weights, tokens)),
        "plain JAX, all values returned": (plain_forward, (weights, tokens)),
    }


def patching() -> dict[str, tuple[Callable, tuple]]:
    """Returns a sweep of 96 patches of the residual stream, by aijax and by hand."""
    import jax
    import jax.numpy as jnp

    from aijax.interp import patching
    from aijax.models.published.transformer_lens import from_hooked_transformer

    model, params = from_hooked_transformer(TRANSFORMER, transformer_tensors())
    weights, clean = plain_weights(transformer_tensors()), tokens_of(4, 24)
    corrupted = clean.copy()
    corrupted[:, 5] = (corrupted[:, 5] + 1) % TRANSFORMER["d_vocab"]

    def metric(logits):
        return jnp.mean(logits[:, -1, 1] - logits[:, -1, 2])

    def forward(params, tokens):
        return model.apply({"params": params}, tokens)

    def by_hand(weights, corrupted, clean):
        values = plain_forward(weights, clean)[1]

        def patched(place):
            def change(i, x):
                here = (i == place[0]) & (jnp.arange(x.shape[1]) == place[1])
                return jnp.where(here[:, None], values[i][0], x)

            return metric(plain_forward(weights, corrupted, change)[0])

        places = jnp.stack(jnp.meshgrid(jnp.arange(4), jnp.arange(24), indexing="ij"), -1).reshape(-1, 2)
        return jax.lax.map(patched, places, batch_size=8)

    def swept(params, corrupted, clean):
        sites = {"decoder/block_./residual": (1,)}
        values = patching.sweep(forward, metric, sites)(params, corrupted, clean).values
        return jnp.concatenate(list(values.values()))

    return {
        "aijax sweep": (swept, (params, corrupted, clean)),
        "plain JAX, the sweep by hand": (by_hand, (weights, corrupted, clean)),
        "aijax, one forward pass": (lambda *a: jnp.full(96, 1 / 96) * forward(*a).sum(), (params, corrupted)),
    }


def sae() -> dict[str, tuple[Callable, tuple]]:
    """Returns a step of a TopK autoencoder with dense products in plain JAX, and the library's."""
    import jax
    import jax.numpy as jnp
    import optax

    from aijax.interp import TopK, init_sae, init_sae_state, make_sae_step

    kind, optimizer = TopK(k=32), optax.adam(1e-3)
    state = init_sae_state(init_sae(jax.random.key(0), kind, 256, 4096), optimizer)
    x = jax.random.normal(jax.random.key(1), (512, 256))

    def loss(params):
        centred, rows = x - params["decoder_bias"], jnp.arange(len(x))[:, None]
        norms = jnp.linalg.norm(params["decoder"], axis=1)
        values, chosen = jax.lax.top_k((centred @ params["encoder"].T + params["encoder_bias"]) * norms, kind.k)
        latents = jnp.zeros((len(x), len(norms))).at[rows, chosen].set(jax.nn.relu(values)) / norms
        return jnp.mean(jnp.sum((latents @ params["decoder"] - centred) ** 2, axis=1))

    def by_hand(params, opt_state):
        value, slopes = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(slopes, opt_state, params)
        return value, optax.apply_updates(params, updates), opt_state

    def step(state, x):
        state, metrics = make_sae_step(kind, optimizer)(state, {"x": x}, None)
        return metrics["loss"], state

    return {
        "plain JAX, dense products": (by_hand, (state.params, state.opt_state)),
        "make_sae_step, TopK": (step, (state, x)),
    }


def circuits() -> dict[str, tuple[Callable, tuple]]:
    """Returns the scores of all edges of a trained transformer, by how well they tell the edges that matter."""
    import jax
    import jax.numpy as jnp

    from aijax import interp
    from aijax.models.published.transformer_lens import from_hooked_transformer

    golden = Path(__file__).parents[1] / "tests" / "golden" / "science" / "interp"
    config, edges = (json.loads((golden / f"{name}.json").read_text())[TRAINED] for name in ("transformers", "edges"))
    stored = dict(np.load(golden / f"{TRAINED}.npz"))
    tensors = {name[2:]: value for name, value in stored.items() if name.startswith("w.")}
    model, params = from_hooked_transformer(config, tensors)
    rows, labels = np.arange(len(stored["labels"])), stored["labels"].T

    def gap(logits):
        return logits[rows, -1, labels[0]] - logits[rows, -1, labels[1]]

    def forward(params, tokens):
        return model.apply({"params": params}, tokens)

    run = interp.contrast(forward, params, stored["clean"], gap, corrupted=stored["corrupted"])
    places = np.asarray([edges.index(edge.replace("output", "logits")) for edge in run.graph.edges])

    def scored(method, **options):
        def auc(run):  # edges of MLPs that are not there are among those of the reference, with a score of 0
            scores = jnp.zeros(len(edges)).at[places].set(method(run, **options))
            return interp.recovery_auc(scores, stored["true_edges"])

        return auc, (run,)

    return {
        "exact, one edge at a time": scored(interp.edge_effects),
        "exact, 8 edges at a time": scored(interp.edge_effects, batch_size=8),
        "EAP": scored(interp.edge_attribution),
        "EAP-IG, 10 steps": scored(interp.integrated_inputs),
        "EAP-IG of activations, 10 steps": scored(interp.integrated_activations),
        "AtP*": scored(interp.attention_rescored),
        "one forward pass for each edge": (
            lambda params, x, shifts: jax.lax.map(lambda shift: gap(forward(params, x + shift)).mean(), shifts),
            (params, stored["clean"], np.zeros(len(places), int)),
        ),
    }


def sae_sites() -> dict[str, tuple[Callable, tuple]]:
    """Returns the training of an autoencoder of one residual stream, and of four at once, their capture included."""
    import jax
    import optax

    from aijax.interp import TopK, init_sae, init_sae_state, make_sae_step, site_activations
    from aijax.models.published.transformer_lens import from_hooked_transformer

    model, weights = from_hooked_transformer(TRANSFORMER, transformer_tensors())
    kind, optimizer = TopK(k=32), optax.adam(1e-3)
    step = make_sae_step(kind, optimizer, sites=True)

    def init(key):
        return init_sae_state(init_sae(key, kind, 256, 2048), optimizer)

    def side(blocks):
        names = [f"decoder/block_{i}/residual_mlp" for i in blocks]
        activations = site_activations(lambda weights, tokens: model.apply({"params": weights}, tokens), names)

        def run(states, weights, tokens):
            states, metrics = step(states, {"x": activations(weights, tokens)}, None)
            return metrics["loss"], states

        states = jax.vmap(init)(jax.random.split(jax.random.key(0), len(names)))
        return run, (states, weights, tokens_of(8, 128))

    return {"one site": side([3]), "four sites": side(range(4))}


CASES = {
    "capture": Case(
        "values within a transformer of 4 blocks, width 256, 8 x 128 tokens, float32",
        capture,
        recorded={"TransformerLens 3.9.0, all": "ratio .95 to its forward pass of 298 ms, +277 MiB (recorded)"},
    ),
    "patching": Case(
        "one patch of the residual stream of the same transformer, 4 x 24 tokens, in a sweep of 96",
        patching,
        parts=96,
        recorded={"TransformerLens 3.9.0": "29.6 ms (recorded), with the value 5.73520"},
    ),
    "sae": Case(
        "one step of Adam of a TopK autoencoder, 256 to 4,096 latents, k 32, 512 rows, float32",
        sae,
        recorded={"sae-lens 6.54": "99 ms (recorded)"},
    ),
    "sae_sites": Case(
        "the same of 1,024 rows and 2,048 latents with the capture of its rows from that transformer, by sites",
        sae_sites,
    ),
    "circuits": Case(
        "one of 81 edges of a trained attention-only transformer, 16 x 24 tokens, float32; the value is the AUC",
        circuits,
        parts=81,
        recorded={"EAP-IG's repository": "AUC .971 by EAP, .984 by EAP-IG (recorded); the bar of AtP* is .984"},
    ),
}


def tokens_of(batch: int, length: int) -> np.ndarray:
    """Returns the tokens of the recorded figures."""
    return np.random.default_rng(1).integers(0, TRANSFORMER["d_vocab"], (batch, length)).astype(np.int32)


def plain_weights(tensors: Mapping[str, np.ndarray]) -> dict:
    """Returns the matrices of a state dict for `plain_forward`; its norms and biases are ones and zeros."""
    blocks = [
        {
            name.split(".")[-1]: tensor
            for name, tensor in tensors.items()
            if name.startswith(f"blocks.{i}.") and ".W_" in name
        }
        for i in range(TRANSFORMER["n_layers"])
    ]
    return {"blocks": blocks, **{name: tensors[f"{part}.{name}"] for part, name in OUTSIDE.items()}}


OUTSIDE = {"embed": "W_E", "pos_embed": "W_pos", "unembed": "W_U"}


def plain_forward(weights: Mapping[str, Any], tokens: Any, change: Callable = lambda i, x: x) -> tuple[Any, list]:
    """Returns logits and the values within, as one writes it by hand; `change(block, stream)` goes before a block."""
    import jax
    import jax.numpy as jnp

    def normalized(x):
        x = x - x.mean(-1, keepdims=True)
        return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-5)

    length, values = tokens.shape[1], []
    x = weights["W_E"][tokens] + weights["W_pos"][:length]
    for i, block in enumerate(weights["blocks"]):
        x = change(i, x)
        read = normalized(x)
        q, k, v = (jnp.einsum("btd,hdk->bthk", read, block[f"W_{name}"]) for name in "QKV")
        scores = jnp.einsum("bthk,bshk->bhts", q, k) / q.shape[-1] ** 0.5
        scores = jnp.where(jnp.tri(length, dtype=bool), scores, -jnp.inf)
        pattern = jax.nn.softmax(scores)
        z = jnp.einsum("bhts,bshk->bthk", pattern, v)
        attention = jnp.einsum("bthk,hkd->btd", z, block["W_O"])
        middle = x + attention
        pre = normalized(middle) @ block["W_in"]
        post = jax.nn.gelu(pre)
        mlp = post @ block["W_out"]
        values.append([x, read, q, k, v, scores, pattern, z, attention, middle, pre, post, mlp])
        x = middle + mlp
    return normalized(x) @ weights["W_U"], [*values, x]


def transformer_tensors() -> dict[str, np.ndarray]:
    """Returns a state dict whose weights are drawn as those of the recorded figures."""
    c, rng = TRANSFORMER, np.random.default_rng(0)

    def draw(*shape):
        return (rng.standard_normal(shape) * 0.05).astype(np.float32)

    def zeros(*shape):
        return np.zeros(shape, np.float32)

    heads, width, head, hidden = c["n_heads"], c["d_model"], c["d_head"], c["d_mlp"]
    tensors = {}
    for i in range(c["n_layers"]):
        attention, mlp = f"blocks.{i}.attn.", f"blocks.{i}.mlp."
        tensors |= {f"{attention}W_{name}": draw(heads, width, head) for name in "QKV"}
        tensors |= {f"{attention}b_{name}": zeros(heads, head) for name in "QKV"}
        tensors |= {f"{attention}W_O": draw(heads, head, width), f"{attention}b_O": zeros(width)}
        tensors |= {f"{mlp}W_in": draw(width, hidden), f"{mlp}W_out": draw(hidden, width)}
        tensors |= {f"{mlp}b_in": zeros(hidden), f"{mlp}b_out": zeros(width)}
    norms = [f"blocks.{i}.{name}" for i in range(c["n_layers"]) for name in ("ln1", "ln2")] + ["ln_final"]
    tensors |= {f"{name}.w": np.ones(width, np.float32) for name in norms}
    tensors |= {f"{name}.b": zeros(width) for name in norms}
    outside = {"embed.W_E": draw(c["d_vocab"], width), "pos_embed.W_pos": draw(c["n_ctx"], width)}
    return tensors | outside | {"unembed.W_U": draw(width, c["d_vocab"]), "unembed.b_U": zeros(c["d_vocab"])}
