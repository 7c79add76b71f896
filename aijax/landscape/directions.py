"""Directions in the space of parameters in which a loss is looked at.

A random direction is only comparable between networks when it is scaled as they are: each filter of it, the weights
that lead to one output, gets the norm of the network's own filter (Li et al. 2018, section 4). Of a trajectory, the
principal components show where it went.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.linalg.vectors import random_like
from aijax.typing import Array, Callable, Float, Params, PRNGKey, PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Principal:
    """Principal components of a trajectory.

    Args:
      directions: orthonormal, the strongest first: a tree like the parameters with a first axis of k.
      explained: the share of the variance along each, `[k]`.
      coordinates: of the checkpoints, about the parameters, along the directions, `[n, k]`.
    """

    directions: PyTree
    explained: Array
    coordinates: Array


def random_direction(
    key: PRNGKey, params: Params, *, normalize: str = "filter", filter_axis: int | Callable[[Array], int] = -1
) -> PyTree:
    """Returns a standard normal direction, normalised as `normalize_direction` does."""
    return normalize_direction(random_like(key, params), params, how=normalize, filter_axis=filter_axis)


def normalize_direction(
    direction: PyTree, params: Params, *, how: str = "filter", filter_axis: int | Callable[[Array], int] = -1
) -> PyTree:
    """Returns a direction with the norms that the parameters have.

    Args:
      direction: a tree like `params`.
      params: where.
      how: "filter", each filter of an array of two or more axes gets the norm of the parameters' filter; "layer", each
        array as a whole. In both, arrays of fewer axes, such as biases, become 0. "none" leaves all as it is.
      filter_axis: the axis that counts filters, outputs that is: the last one for kernels `[..., inputs, outputs]`, the
        default, the first for those of PyTorch; or a function of the array.

    Raises:
      ConfigError: a direction of another structure or shapes, an unknown `how`.

    Source: Li, Xu, Taylor, Studer and Goldstein 2018, section 4.

    >>> found = normalize_direction(jnp.ones((2, 2)), jnp.array([[3.0, 0.0], [4.0, 0.0]]))
    >>> [round(float(value), 3) for value in found[0]]
    [3.536, 0.0]
    """
    axes_of = choose({"filter": True, "layer": True, "none": False}, how, "how")
    check_like_parameters("direction", direction, params)
    if not axes_of:
        return direction

    def scaled(d, p):
        if p.ndim < 2:
            return jnp.zeros_like(d)
        axes = tuple(range(p.ndim))
        if how == "filter":
            kept = filter_axis(p) if callable(filter_axis) else filter_axis
            axes = tuple(axis for axis in axes if axis != kept % p.ndim)
        size, wanted = (jnp.sqrt(jnp.sum(a**2, axes, keepdims=True)) for a in (d, p))
        return d * (wanted / (size + 1e-10))

    return jax.tree.map(scaled, direction, params)


def principal_directions(trajectory: PyTree, params: Params, k: int = 2) -> Principal:
    """Returns the k principal components of checkpoints about their mean.

    Args:
      trajectory: checkpoints: a tree like `params` with a first axis that counts them.
      params: the point from which coordinates count, such as the last checkpoint.
      k: how many; fewer than the checkpoints.

    Raises:
      ConfigError: more components than checkpoints, a trajectory of another structure or shapes.

    Source: Li et al. 2018, section 7.2. The sign of each makes its largest entry positive.
    """
    moves = jax.tree.map(lambda a, p: jnp.asarray(a) - p, trajectory, params)
    check_like_parameters("trajectory", jax.tree.map(lambda a: a[0], moves), params)
    flat = jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(moves)], axis=1)
    if not 1 <= k <= min(flat.shape):
        raise ConfigError(f"k: expected from 1 to {min(flat.shape)} components of {len(flat)} checkpoints, got {k}")
    _, sizes, rows = jnp.linalg.svd(flat - flat.mean(0), full_matrices=False)
    rows = rows[:k]
    peaks = jnp.take_along_axis(rows, jnp.argmax(jnp.abs(rows), 1, keepdims=True), 1)
    rows = rows * jnp.sign(peaks)
    return Principal(_like(rows, params), (sizes**2 / jnp.sum(sizes**2))[:k], flat @ rows.T)


def check_like_parameters(name: str, tree: PyTree, params: Params) -> None:
    """Raises a `ConfigError` for a tree of another structure or other shapes than the parameters."""
    if jax.tree.structure(tree) != jax.tree.structure(params):
        raise ConfigError(f"{name}: expected a tree like the parameters, {jax.tree.structure(params)}, got another")
    for one, other in zip(jax.tree.leaves(tree), jax.tree.leaves(params), strict=True):
        if jnp.shape(one) != jnp.shape(other):
            raise ConfigError(f"{name}: expected an array {jnp.shape(other)} like the parameter, got {jnp.shape(one)}")


def _like(rows: Float[Array, "k p"], params: Params) -> PyTree:
    leaves, structure = jax.tree.flatten(params)
    parts, start = [], 0
    for leaf in leaves:
        parts.append(rows[:, start : start + leaf.size].reshape(len(rows), *leaf.shape))
        start += leaf.size
    return structure.unflatten(parts)
