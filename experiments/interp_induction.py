"""Trains a small transformer on sequences in which a segment comes twice, until induction heads form, and names them.

The loss is that of the tokens that the context tells, and a part of that of the others, which are random. The former
are told all at once, in a phase change, when heads of a later layer attend to what came after the earlier copy; they
find it by what heads of an earlier layer wrote there, which attend to the position before (Olsson et al. 2022). One
layer can do no such thing. The figure has the losses and heads' scores over the run, what ablating each head costs, and
the patterns of the heads that are named.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from aijax import models
from aijax.data import load_source
from aijax.errors import ConfigError
from aijax.interp import capture, head_circuits
from aijax.interp.attention_patterns import attention_pattern_analysis, induction_positions, named_heads
from aijax.interp.patching import sweep
from aijax.train import Evaluation, Experiment
from aijax.train.sinks import read_lines

FIELDS = ("model", "other_weight")
ATTENTION = "decoder/block_{layer}/attention/{value}"
KINDS = {"induction": "#d1605e", "previous_token": "#4878a8"}


def load(config):
    """Returns the sources of the run."""
    return {split: load_source(config.data, split) for split in ("train", "validation")}


def build(config, sources):
    """Returns the experiment: the model of `config.model`, trained on "train" and measured on "validation"."""
    train, held_out = sources["train"], sources["validation"]
    if "tokens" not in train.spec or train.classes is None:
        raise ConfigError(f"config.data.source: expected repeated_segments, got {config.data.source!r}")
    if config.other_weight < 0:
        raise ConfigError(f"config.other_weight: expected zero or more, got {config.other_weight}")
    length = train.spec["tokens"].shape[0]
    model = models.build(config.model, vocab_size=len(train.classes), context_length=length)

    def apply_fn(params, tokens):
        return model.apply({"params": params}, tokens)

    def loss_fn(params, batch, key):
        tokens = batch["tokens"]
        losses, told = token_losses(apply_fn(params, tokens), tokens), told_by_context(tokens)
        return jnp.mean(losses, where=told) + config.other_weight * jnp.mean(losses, where=~told), {}

    def measure(params, batch):
        tokens = batch["tokens"]
        logits, weights = patterns(apply_fn, params, tokens, model.depth)
        told = told_by_context(tokens)
        losses, right = token_losses(logits, tokens), logits[:, :-1].argmax(-1) == tokens[:, 1:]
        found = {
            "repeat_loss": jnp.mean(losses, axis=-1, where=told),
            "other_loss": jnp.mean(losses, axis=-1, where=~told),
            "repeat_accuracy": jnp.mean(right, axis=-1, where=told),
        }
        scores = jax.vmap(head_scores, (1, 0))(weights, tokens)
        for kind in KINDS:
            for layer, head in np.ndindex(weights.shape[0], weights.shape[2]):
                found[f"{kind}_{layer}_{head}"] = getattr(scores, kind)[:, layer, head]
        return found

    def draw(params, folder):
        tokens = jnp.asarray(held_out[np.arange(min(128, len(held_out)))]["tokens"])
        found = jax.device_get(jax.jit(lambda params: circuit(model, apply_fn, params, tokens))(params))
        steps, losses = points(read_lines(folder.parent / "metrics.jsonl"), "validation/repeat_loss")
        named = named_heads(found["scores"])
        draw_induction(folder / "induction.png", folder.parent / "metrics.jsonl", found, named, np.asarray(tokens[0]))
        drops = -np.diff(losses) if len(losses) > 1 else np.zeros(1)
        return {
            "induction_heads": len(named["induction"]),
            "previous_token_heads": len(named["previous_token"]),
            "highest_induction_score": float(found["scores"].induction.max()),
            "highest_previous_token_score": float(found["scores"].previous_token.max()),
            "steepest_drop": float(drops.max()),
            "steepest_drop_until_step": int(steps[int(drops.argmax()) + 1]) if len(losses) > 1 else 0,
            "highest_repeat_loss_without_a_head": float(found["ablated"].max()),
        }

    return Experiment(
        init=lambda key: models.init(key, model, jnp.zeros((1, length), jnp.int32)),
        loss_fn=loss_fn,
        source=train,
        apply_fn=apply_fn,
        evaluations={"validation": Evaluation(held_out, measure)},
        fields=FIELDS,
        model=model,
        preprocess=lambda tokens: jnp.asarray(tokens, jnp.int32),
        classes=train.classes,
        draw=draw,
    )


def token_losses(logits, tokens):
    """Returns the cross-entropy of each next token [b, t - 1], in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1].astype(jnp.float32), tokens[:, 1:])


def told_by_context(tokens):
    """Returns whether the token after each [b, t - 1] is one that the context tells."""
    return induction_positions(tokens).any(-1)[:, :-1]


def patterns(apply_fn, params, tokens, depth):
    """Returns the logits, and the attention weights of all layers [l, b, h, t, t]."""
    names = [ATTENTION.format(layer=layer, value="weights") for layer in range(depth)]
    logits, values = capture(apply_fn, names)(params, tokens)
    return logits, jnp.stack([values[name] for name in names])


def head_scores(weights, tokens):
    """Returns the scores of the heads [l, h] in one sequence, from [l, h, t, t]; it begins with a token of its own."""
    return attention_pattern_analysis(weights[:, None], tokens[None], first=2)


def circuit(model, apply_fn, params, tokens):
    """Returns what is drawn of the trained network."""
    weights, told = patterns(apply_fn, params, tokens, model.depth)[1], told_by_context(tokens)
    sites = {ATTENTION.format(layer=layer, value="heads"): (2,) for layer in range(model.depth)}

    def repeat_loss(logits):
        return jnp.mean(token_losses(logits, tokens), where=told)

    ablated = sweep(apply_fn, repeat_loss, sites, ablation="zero")(params, tokens)
    heads = head_circuits.head_weights(params["decoder"], model.num_heads)
    return {
        "scores": attention_pattern_analysis(weights, tokens, first=2),
        "weights": weights[:, 0],
        "ablated": jnp.stack([ablated.values[name] for name in sites]),
        "repeat_loss": ablated.unpatched,
        "key_composition": head_circuits.composition_scores(heads).key,
    }


def draw_induction(path, log, found, named, tokens):
    """Writes the figure of six panels."""
    records = read_lines(log)
    figure = Figure(figsize=(12, 6.8), layout="constrained")
    (losses, scores, ablated), (previous, induction, composed) = figure.subplots(2, 3)
    for label, name, colour in (
        ("told by the context", "validation/repeat_loss", "#d1605e"),
        ("the others", "validation/other_loss", "#888888"),
    ):
        losses.plot(*points(records, name), label=label, color=colour, linewidth=1.5)
    losses.set(xlabel="step", title="loss of the next token, nats", ylim=(0, None))
    losses.legend(fontsize=8, frameon=False)
    layers, heads = found["ablated"].shape
    for kind, colour in KINDS.items():
        scores.plot([], [], color=colour, linewidth=1.2, label=kind.replace("_", "-"))
        for layer, head in np.ndindex(layers, heads):
            steps, values = points(records, f"validation/{kind}_{layer}_{head}")
            is_named = (layer, head) in named[kind]
            scores.plot(steps, values, color=colour, alpha=1 if is_named else 0.25, linewidth=1.2)
    scores.set(xlabel="step", title="scores of heads (strong: named)", ylim=(0, 1))
    scores.legend(fontsize=8, frameon=False)
    names = [f"{layer}.{head}" for layer, head in np.ndindex(layers, heads)]
    colours = [
        next((KINDS[kind] for kind in KINDS if place in named[kind]), "#bbbbbb") for place in np.ndindex(layers, heads)
    ]
    ablated.bar(names, found["ablated"].ravel(), color=colours)
    ablated.axhline(found["repeat_loss"], color="black", linewidth=0.8, linestyle="--")
    ablated.set(title="loss told by the context, without a head", xlabel="layer.head")
    for axes, kind in ((previous, "previous_token"), (induction, "induction")):
        best = np.unravel_index(getattr(found["scores"], kind).argmax(), (layers, heads))
        score = getattr(found["scores"], kind)[best]
        axes.imshow(found["weights"][best], cmap="Blues", vmin=0, vmax=1)
        told = kind.replace("_", "-")
        what = f"{told} head" if best in named[kind] else f"no {told} head; nearest"
        axes.set(title=f"{what} {best[0]}.{best[1]}: {score:.2f}", xlabel="is read", ylabel="reads")
    if layers > 1:
        table = found["key_composition"][0, :, 1]
        composed.imshow(table, cmap="Greens", vmin=0)
        for place in np.ndindex(table.shape):
            colour = "white" if table[place] > 0.6 * table.max() else "black"
            composed.text(place[1], place[0], f"{table[place]:.2f}", ha="center", va="center", fontsize=8, color=colour)
        composed.set(title="composition of keys", ylabel="head of layer 0", xlabel="head of layer 1")
        composed.set(xticks=range(heads), yticks=range(heads))
    else:
        composed.set_axis_off()
    for axes in figure.axes:
        axes.tick_params(labelsize=8)
        axes.title.set_size(10)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


def points(records, name):
    """Returns steps and values of a metric."""
    return list(zip(*((record["step"], record[name]) for record in records if name in record), strict=True)) or ([], [])
