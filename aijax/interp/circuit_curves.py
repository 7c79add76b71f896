"""How good circuits are by their size, beside circuits of as many random edges.

With F(C) the behaviour where all edges but those of C are patched, and f(C) = (F(C) - F(none)) / (F(all) - F(none)):

    faithfulness     f(C)                             1: the circuit does what the model does (Hanna et al. 2024)
    completeness     1 - f(all - C)                   1: without the circuit nothing of it is left (Wang et al. 2022)
    minimality       mean over e in C of |f(C) - f(C - e)|: what an edge of it is worth (Wang et al. 2022)

    CPR = integral of f over the share of edges kept,    CMD = integral of |1 - f|    (Mueller et al. 2025, MIB)
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, DataError
from aijax.interp.circuit_search import prune_edges
from aijax.interp.contrast import Contrast, outcomes
from aijax.typing import Array, Bool, Float, Int, PRNGKey


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Curve:
    """Circuits of each of several sizes.

    Attributes:
      sizes: edges asked for.
      kept: edges left after those that dangle.
      behaviour: F of the circuits.
      faithfulness, completeness, minimality: of the circuits; minimality of no edges is 0.
    """

    sizes: Int[Array, " sizes"]
    kept: Int[Array, "*draws sizes"]
    behaviour: Float[Array, "*draws sizes"]
    faithfulness: Float[Array, "*draws sizes"]
    completeness: Float[Array, "*draws sizes"]
    minimality: Float[Array, "*draws sizes"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Curves:
    """Curves of circuits by their size.

    Attributes:
      whole, none: F with no edge patched, and with all.
      best: of the edges of largest score.
      random: of random edges, with a first axis of draws.
      cpr, cmd: areas of the best edges under f, and between it and 1.
    """

    whole: Float[Array, ""]
    none: Float[Array, ""]
    best: Curve
    random: Curve
    cpr: Float[Array, ""]
    cmd: Float[Array, ""]


def default_sizes(count: int) -> tuple[int, ...]:
    """Returns about a dozen sizes of circuits, from 1 to all `count` edges, at equal ratios."""
    return tuple(sorted({round(float(size)) for size in np.geomspace(1, count, min(count, 12))}))


def circuit_curves(
    key: PRNGKey,
    contrast: Contrast,
    scores: Float[Array, " edges"],
    *,
    sizes: tuple[int, ...] | None = None,
    draws: int = 3,
    probes: int = 4,
    batch_size: int | None = None,
) -> Curves:
    """Returns how good the circuits of the edges of largest absolute score are, beside random ones.

    Args:
      key: of the random edges and of the probes.
      contrast: of `contrast`.
      scores: of the edges.
      sizes: numbers of edges, ascending; None for about twelve at equal ratios.
      draws: random circuits of each size.
      probes: random edges of each circuit, without which it is tried for its minimality; at most all.
      batch_size: runs at a time, None for as many as have 16 examples together; there are (1 + draws) (2 + probes) for
        each size.

    Raises:
      ConfigError: sizes that do not ascend within 1 and the number of edges, no draws or probes.
      DataError: a behaviour that is the same with all edges patched, where it is known.
    """
    count = len(contrast.graph.pairs)
    sizes = default_sizes(count) if sizes is None else tuple(sizes)
    if not sizes or list(sizes) != sorted(set(sizes)) or not 1 <= sizes[0] <= sizes[-1] <= count:
        raise ConfigError(f"sizes: expected ascending numbers of edges from 1 to {count}, got {list(sizes)}")
    for name, value in (("draws", draws), ("probes", probes)):
        if value < 1:
            raise ConfigError(f"{name}: expected at least 1, got {value}")
    curves = _curves(key, contrast, scores, sizes, draws, min(probes, count), batch_size)
    _check_contrast(curves)
    return curves


def recovery_auc(scores: Float[Array, " edges"], wanted: Bool[Array, " edges"]) -> Float[Array, ""]:
    """Returns the chance that a wanted edge has a larger absolute score than another edge, an equal one counting half.

    It is the area under the ROC curve of |score|, and NaN where all edges are wanted or none is.

    >>> float(recovery_auc(jnp.asarray([-3.0, 1.0, 2.0, 0.0]), jnp.asarray([True, True, False, False])))
    0.75
    """
    values, wanted = jnp.sort(jnp.abs(scores)), jnp.asarray(wanted, bool)
    below, upto = (jnp.searchsorted(values, jnp.abs(scores), side=side) for side in ("left", "right"))
    ranks = (below + upto + 1) / 2
    positives = wanted.sum()
    wins = jnp.where(wanted, ranks, 0.0).sum() - positives * (positives + 1) / 2
    return wins / (positives * (len(values) - positives))


def _check_contrast(curves):
    whole, none = curves.whole, curves.none
    if not isinstance(whole, jax.core.Tracer) and float(whole) == float(none):
        raise DataError(
            f"target_behavior: it is {float(whole):.6g} with all edges patched and with none, so that there is nothing "
            "to find; expected inputs whose other run differs"
        )


@partial(jax.jit, static_argnames=("sizes", "draws", "probes", "batch_size"))
def _curves(key, contrast, scores, sizes, draws, probes, batch_size):
    count = len(contrast.graph.pairs)
    random_key, probe_key = jax.random.split(key)
    orders = jnp.concatenate([jnp.abs(scores)[None], jax.random.uniform(random_key, (draws, count), scores.dtype)])
    ranks = jnp.argsort(jnp.argsort(-orders, axis=-1, stable=True), axis=-1)
    chosen = ranks[:, None] < jnp.asarray(sizes)[:, None]  # [orders, sizes, edges]
    kept = jax.vmap(jax.vmap(partial(prune_edges, contrast.graph)))(chosen)
    # probes: the edges of a circuit in random order
    probed = jax.lax.top_k(jax.random.uniform(probe_key, kept.shape) + kept, probes)[1]
    tried = jnp.arange(probes) < kept.sum(-1)[..., None]
    without = kept[..., None, :] & ~jax.nn.one_hot(probed, count, dtype=bool)
    circuits = jnp.concatenate([kept[..., None, :], ~kept[..., None, :], without], axis=-2)
    ends = jnp.asarray([[True], [False]]) & jnp.ones(count, bool)
    patched = ~jnp.concatenate([ends, circuits.reshape(-1, count)])
    (whole, none), behaviour = jnp.split(outcomes(contrast, patched.astype(scores.dtype), batch_size=batch_size), [2])
    behaviour = behaviour.reshape(circuits.shape[:-1])
    f = (behaviour - none) / (whole - none)
    lost = jnp.where(tried, jnp.abs(f[..., :1] - f[..., 2:]), 0.0).sum(-1) / jnp.maximum(tried.sum(-1), 1)
    columns = kept.sum(-1), behaviour[..., 0], f[..., 0], 1 - f[..., 1], lost
    best, random = (Curve(jnp.asarray(sizes), *(column[part] for column in columns)) for part in (0, slice(1, None)))
    share = jnp.asarray([0, *sizes] + ([] if sizes[-1] == count else [count])) / count
    along = jnp.concatenate([jnp.zeros(1), best.faithfulness, jnp.ones(len(share) - 1 - len(sizes))])
    cpr, cmd = (jnp.trapezoid(values, share) for values in (along, jnp.abs(1 - along)))
    return Curves(whole, none, best, random, cpr, cmd)
