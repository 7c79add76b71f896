"""Permutations of hidden units that bring one network next to another.

A network computes the same when the units of a hidden layer are exchanged, with the rows and columns of weights that
belong to them. Of two networks, those exchanges are sought that bring the weights of the second nearest to the first:

    maximise over P_1, P_2, ...    sum over arrays    <A, P(B)>

one layer at a time, each a linear assignment, until none changes anything (Ainsworth, Hayase and Srinivasa 2023,
algorithm 1). With one hidden layer that is exact. Or units are matched by what they do: by the correlation of their
activations on the same inputs.

Which axes count the units of which layer is told by a table, path of an array to the layer of each axis:

    {"dense_0/kernel": (None, "h0"), "dense_0/bias": ("h0",), "dense_1/kernel": ("h0", None)}
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from aijax.errors import ConfigError, did_you_mean
from aijax.trees import map_named, named_leaves
from aijax.typing import Array, Float, Params, PRNGKey

Axes = Mapping[str, Sequence[str | None]]


def match_weights(key: PRNGKey, axes: Axes, a: Params, b: Params, *, max_sweeps: int = 100) -> dict[str, np.ndarray]:
    """Returns for each hidden layer the permutation that brings `b` nearest to `a`: unit i of the new b was `p[i]`.

    Args:
      key: for the order in which layers are visited.
      axes: path of an array to the layer that each of its axes counts, None for an axis that is no hidden layer;
        arrays that are not named stay.
      a, b: parameters of two networks of one kind.
      max_sweeps: over all layers, at most.

    Raises:
      ConfigError: a path that does not exist, axes that do not fit the array, layers of different sizes.

    Source: Ainsworth, Hayase and Srinivasa 2023, algorithm 1.
    """
    ours, theirs = ({name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()} for tree in (a, b))
    sizes = _layer_sizes(axes, ours, theirs)
    found = {layer: np.arange(size) for layer, size in sizes.items()}
    layers = sorted(sizes)
    for sweep in range(max_sweeps):
        changed = False
        order = jax.random.permutation(jax.random.fold_in(key, sweep), len(layers))
        for layer in (layers[int(index)] for index in order):
            score = sum(_scores(axes, ours, theirs, found, layer))
            permutation = linear_sum_assignment(score, maximize=True)[1]
            better = score[np.arange(len(score)), permutation].sum()
            now = score[np.arange(len(score)), found[layer]].sum()
            if better > now + 1e-12 * max(1.0, abs(now)):
                found[layer], changed = permutation, True
        if not changed:
            break
    return found


def match_activations(a: Float[Array, "n h"], b: Float[Array, "n h"]) -> np.ndarray:
    """Returns the permutation of the units of `b` that correlates best with those of `a`, on the same n inputs.

    Args:
      a, b: activations of one layer; units that never change correlate with none.

    Raises:
      ConfigError: activations of different shapes.

    Source: Li, Yosinski, Clune, Lipson and Hopcroft 2016; Ainsworth et al. 2023, section 3.1.

    >>> match_activations(jnp.eye(3), jnp.eye(3)[:, [2, 0, 1]]).tolist()
    [1, 2, 0]
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 2:
        raise ConfigError(f"a and b: expected activations [n, h] of the same shape, got {a.shape} and {b.shape}")
    a, b = (part - part.mean(0) for part in (a, b))
    a, b = (part / np.where((size := np.linalg.norm(part, axis=0)) > 0, size, 1) for part in (a, b))
    return linear_sum_assignment(a.T @ b, maximize=True)[1]


def permute(axes: Axes, permutations: Mapping[str, np.ndarray], params: Params) -> Params:
    """Returns the parameters with the units of each layer exchanged: unit i of the new layer is unit `p[i]` of the old.

    Args:
      axes: as `match_weights`.
      permutations: of each layer.
      params: of the network.
    """
    _layer_sizes(axes, named_leaves(params))

    def one(name, leaf):
        for axis, layer in enumerate(axes.get(name, ())):
            leaf = leaf if layer is None else jnp.take(leaf, np.asarray(permutations[layer]), axis)
        return leaf

    return map_named(one, params)


def _layer_sizes(axes, *parameters):
    sizes: dict[str, int] = {}
    for name, layers in axes.items():
        for leaves in parameters:
            if name not in leaves:
                raise ConfigError(f"axes: there is no parameter {name!r}{did_you_mean(name, leaves)}")
            shape = jnp.shape(leaves[name])
            if len(layers) != len(shape):
                raise ConfigError(f"axes: {name!r} has shape {shape}, and {len(layers)} axes are told")
            for layer, size in zip(layers, shape, strict=True):
                if layer is not None and sizes.setdefault(layer, size) != size:
                    raise ConfigError(f"axes: the layer {layer!r} has {sizes[layer]} units, and {name!r} {size}")
    return sizes


def _scores(axes, ours, theirs, found, layer):
    """Yields, of each array that has units of the layer, what each pair of units would give to the sum."""
    for name, layers in axes.items():
        for axis, own in enumerate(layers):
            if own == layer:
                other = theirs[name]
                for place, beside in enumerate(layers):
                    if place != axis and beside is not None:
                        other = np.take(other, found[beside], place)
                one, two = (np.moveaxis(part, axis, 0).reshape(part.shape[axis], -1) for part in (ours[name], other))
                yield one @ two.T
