"""What makes each neuron of a layer fire, over a whole data set, in one pass.

A neuron is one entry of the last axis of a layer's output [b, ..., d]; the axes between (tokens, pixels) are positions,
each a value of its own. Batches come one after another and are forgotten, so that what is held at once is of one batch,
whatever the size of the set. Of a neuron's values a, over examples and positions:

    mean, variance       merged batch by batch                                          (Chan et al. 1983)
    active fraction      share of a > threshold
    sparseness           (1 - E[|a|]^2 / E[a^2]) / (1 - 1/n), 0 if always the same, 1 if it fires once
                                                                    (Rolls and Tovee 1995, Vinje and Gallant 2000)

and with classes, mu_c the mean over the values of class c:

    selectivity          (mu_max - mu_-max) / (mu_max + mu_-max), mu_-max the mean of the others (Morcos et al. 2018)
    explained variance   sum_c n_c (mu_c - mu)^2 / sum (a - mu)^2, the correlation ratio of class and value
    effective classes    exp(-sum_c p_c ln p_c), p_c = max(mu_c, 0) / sum: 1 for a neuron of one class, more for a
                         polysemantic one                                                     (Hill 1973, of order 1)
    top purity           share of the commonest class among the examples that excite it most
    dimensionality       of class c, |w_c|^2 / sum_e (w_c . w_e / |w_c|)^2 with w_c = mu_c less the mean of all classes:
                         the share of a direction that the class has for itself
                                                        (Elhage et al. 2022, Toy Models of Superposition, section 3)
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, DataError
from aijax.indices import check_indices
from aijax.interp.capture import capture
from aijax.typing import Array, Callable, Float, Int, Params, PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ClassPatterns:
    """How the neurons of a layer tell classes apart; see the module for the measures.

    Attributes:
      means: `[d, c]`; NaN for a class without examples, which plays no part in the measures.
      preferred: the class with the largest mean.
      selectivity: from 0 to 1 for activations of at least 0; 0 for a neuron that never fires.
      explained_variance: from 0 to 1; 0 for a neuron that is constant.
      effective_classes: from 1 to the number of classes; 0 where no class has a positive mean.
      top_purity: from 1 / c to 1.
      dimensionality: of each class, `[c]`, from 0 to 1.
    """

    means: Float[Array, "d c"]
    preferred: Int[Array, " d"]
    selectivity: Float[Array, " d"]
    explained_variance: Float[Array, " d"]
    effective_classes: Float[Array, " d"]
    top_purity: Float[Array, " d"]
    dimensionality: Float[Array, " c"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NeuronPatterns:
    """When the neurons of a layer fire; see the module for the measures.

    Attributes:
      mean, variance: `[d]`, over all examples and positions.
      active_fraction: `[d]`; a neuron with 0 is dead on this data.
      sparseness: `[d]`; 0 for a neuron that is always 0.
      top_values: `[d, k]`, the largest value of each of the examples that excite it most, largest first.
      top_examples: `[d, k]`, their numbers in the order of the batches.
      top_positions: `[d, k]`, where in the example: a flat index of the axes between.
      classes: with labels, how classes are told apart.
    """

    mean: Float[Array, " d"]
    variance: Float[Array, " d"]
    active_fraction: Float[Array, " d"]
    sparseness: Float[Array, " d"]
    top_values: Float[Array, "d k"]
    top_examples: Int[Array, "d k"]
    top_positions: Int[Array, "d k"]
    classes: ClassPatterns | None = None


def compute_neuron_activation_patterns(
    apply_fn: Callable[[Params, PyTree], PyTree],
    params: Params,
    batches: Iterable[PyTree],
    layer_name: str,
    *,
    labels: Int[Array, " n"] | None = None,
    num_classes: int | None = None,
    top_k: int = 10,
    threshold: float = 0.0,
    layer: int | None = None,
) -> NeuronPatterns:
    """Returns when each neuron of a layer fires, and on what.

    Args:
      apply_fn: `apply_fn(params, batch)`, whose values have names (see `aijax.interp.capture`).
      params: of it; they and the batches may be sharded.
      batches: a list or an iterator of batches, or one batch; their arrays count examples first.
      layer_name: of a tap or the path of a module, or a pattern that matches one.
      labels: classes of all examples, in the order of the batches; one that is none of the classes and known only
        inside `jit` makes all means of classes NaN.
      num_classes: None for the largest label and one.
      top_k: examples that are kept of each neuron.
      threshold: above it a neuron is active.
      layer: which turn, where the name lies within a scan over layers.

    Raises:
      ConfigError: a name that is not there (the nearest are told) or matches several, a layer that is not there, a
        value of `top_k` that is not positive, fewer than two classes, a label that is none of them.
      DataError: no batch, fewer examples than `top_k`, another number of labels, a value that does not count examples
        first.

    >>> from aijax.taps import tap
    >>> apply_fn = lambda w, x: tap("hidden", jax.nn.relu(x @ w))
    >>> batches = [jnp.array([[1.0, -1.0], [3.0, -2.0]]), jnp.array([[2.0, -3.0]])]
    >>> found = compute_neuron_activation_patterns(apply_fn, jnp.eye(2), batches, "hidden", top_k=1)
    >>> found.top_examples.tolist(), found.active_fraction.tolist()
    ([[1], [0]], [1.0, 0.0])
    """
    if top_k < 1:
        raise ConfigError(f"top_k: expected 1 example or more, got {top_k}")
    classes = None
    if labels is not None:
        classes = _number_of_classes(labels, num_classes)
    seen, state = 0, None
    for batch in batches if isinstance(batches, list | Iterator) else [batches]:
        count = jax.tree.leaves(batch)[0].shape[0]
        own = None if labels is None else jnp.asarray(labels[seen : seen + count])
        if own is not None and own.shape != (count,):
            raise DataError(
                f"labels: expected one for each example, got {list(labels.shape)} for {seen + count} or more"
            )
        state = _update(apply_fn, layer_name, layer, top_k, classes, state, params, batch, own, seen, threshold)
        seen += count
    if state is None:
        raise DataError("batches: expected one or more, got none")
    if labels is not None and len(labels) != seen:
        raise DataError(f"labels: expected one for each example, got {len(labels)} for {seen} examples")
    if seen < top_k:
        raise DataError(f"top_k: expected at most the {seen} examples that there are, got {top_k}")
    return _patterns(state, None if labels is None else jnp.asarray(labels), classes)


def layer_values(
    apply_fn: Callable[[Params, PyTree], PyTree],
    params: Params,
    batch: PyTree,
    layer_name: str,
    layer: int | None = None,
) -> Float[Array, "b ... d"]:
    """Returns the output of one layer on a batch; see `compute_neuron_activation_patterns`."""
    found = capture(apply_fn, layer_name)(params, batch)[1]
    if len(found) > 1 or isinstance(next(iter(found.values())), tuple):
        raise ConfigError(f"layer_name: expected the name of one value, and {layer_name!r} matches {', '.join(found)}")
    ((name, values),) = found.items()
    if layer is not None:
        if not 0 <= layer < values.shape[0]:
            raise ConfigError(f"layer: expected 0 to {values.shape[0] - 1} of {name}, got {layer}")
        values = values[layer]
    count = jax.tree.leaves(batch)[0].shape[0]
    if values.ndim < 2 or values.shape[0] != count:
        raise DataError(
            f"layer_name: expected a value [{count}, ..., neurons], and {name} is {list(values.shape)}; "
            "of a scan over layers, `layer` says which"
        )
    return values


def _number_of_classes(labels, num_classes):
    if num_classes is None:
        if isinstance(labels, jax.core.Tracer):
            raise ConfigError("num_classes: the labels are not known here, so that it has to be given")
        num_classes = int(np.max(labels, initial=0)) + 1
    if num_classes < 2:
        raise ConfigError(f"num_classes: expected 2 or more to tell apart, got {num_classes}")
    check_indices("labels", labels, num_classes)
    return num_classes


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _update(apply_fn, layer_name, layer, top_k, classes, state, params, batch, labels, seen, threshold):
    """The state after one more batch; None is the state before the first."""
    values = layer_values(apply_fn, params, batch, layer_name, layer)
    count = len(values)
    values = values.reshape(count, -1, values.shape[-1]).astype(jnp.promote_types(values.dtype, jnp.float32))
    flat = values.reshape(-1, values.shape[-1])
    mean = flat.mean(0)
    new = {
        "count": jnp.asarray(len(flat), flat.dtype),
        "mean": mean,
        "squares": jnp.sum((flat - mean) ** 2, 0),
        "active": jnp.sum(flat > threshold, 0, dtype=flat.dtype),
        "absolute": jnp.sum(jnp.abs(flat), 0),
    }
    if classes is not None:
        known = (labels >= 0) & (labels < classes)
        one_hot = jnp.where(known[:, None], jax.nn.one_hot(labels, classes, dtype=flat.dtype), jnp.nan)
        new["class_counts"] = one_hot.sum(0) * values.shape[1]
        new["class_sums"] = values.sum(1).T @ one_hot
    top = {
        "values": values.max(1).T,
        "examples": jnp.broadcast_to(seen + jnp.arange(count), values.shape[::-2]),
        "positions": values.argmax(1).T,
    }
    if state is not None:
        before = state["sums"]
        total = before["count"] + new["count"]
        gap = new["mean"] - before["mean"]
        squares = before["squares"] + new["squares"] + gap**2 * before["count"] * new["count"] / total
        mean = before["mean"] + gap * new["count"] / total
        new = jax.tree.map(jnp.add, before, new) | {"mean": mean, "squares": squares}
        top = {name: jnp.concatenate([state["top"][name], top[name]], 1) for name in top}
    largest, places = jax.lax.top_k(top["values"], min(top_k, top["values"].shape[1]))
    top = {name: jnp.take_along_axis(top[name], places, 1) for name in ("examples", "positions")} | {"values": largest}
    return {"sums": new, "top": top}


@functools.partial(jax.jit, static_argnums=2)
def _patterns(state, labels, classes):
    sums, top = state["sums"], state["top"]
    count = sums["count"]
    variance = sums["squares"] / count
    second = variance + sums["mean"] ** 2
    density = (sums["absolute"] / count) ** 2 / jnp.where(second > 0, second, 1)
    told = None if classes is None else _class_patterns(sums, top, labels, classes)
    most_even = jnp.where(count > 1, 1 - 1 / count, 1)
    return NeuronPatterns(
        mean=sums["mean"],
        variance=variance,
        active_fraction=sums["active"] / count,
        sparseness=jnp.where(second > 0, (1 - density) / most_even, 0),
        top_values=top["values"],
        top_examples=top["examples"],
        top_positions=top["positions"],
        classes=told,
    )


def _class_patterns(sums, top, labels, classes):
    counts = sums["class_counts"]
    there = counts > 0
    means = jnp.where(there, sums["class_sums"] / jnp.where(there, counts, 1), jnp.nan)
    known = jnp.where(there, means, 0)
    preferred = jnp.nanargmax(means, 1)
    best = jnp.nanmax(means, 1)
    others = (known.sum(1) - best) / jnp.maximum(there.sum() - 1, 1)
    scale = best + others
    between = jnp.sum(counts * (known - sums["mean"][:, None]) ** 2, 1, where=there)
    positive = jnp.maximum(known, 0)
    mass = positive.sum(1, keepdims=True)
    shares = positive / jnp.where(mass > 0, mass, 1)
    fires = mass[:, 0] > 0
    entropy = -jnp.sum(shares * jnp.log(jnp.where(shares > 0, shares, 1)), 1)
    directions = jnp.where(there, known - jnp.sum(known, 1, keepdims=True) / jnp.maximum(there.sum(), 1), 0)
    products = directions.T @ directions
    lengths = jnp.diag(products)
    overlaps = jnp.sum(products**2, 1)
    return ClassPatterns(
        means=means,
        preferred=preferred,
        selectivity=jnp.where(scale != 0, (best - others) / jnp.where(scale != 0, scale, 1), 0),
        explained_variance=jnp.where(
            sums["squares"] > 0, between / jnp.where(sums["squares"] > 0, sums["squares"], 1), 0
        ),
        effective_classes=jnp.where(fires, jnp.exp(entropy), 0),
        top_purity=jax.nn.one_hot(labels[top["examples"]], classes).mean(1).max(1),
        dimensionality=jnp.where(overlaps > 0, lengths**2 / jnp.where(overlaps > 0, overlaps, 1), 0),
    )
