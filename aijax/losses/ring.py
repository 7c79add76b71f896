"""Contrastive losses over a mesh in which no device ever holds the matrix of logits (see `aijax.losses.contrastive`).

Each of n devices holds b/n images and b/n texts. In n turns the texts go round the ring of devices; in a turn a device
meets its images with the texts that are there, `block_rows` images at a time. For the softmax the turn adds to

    r_i = log sum_j exp l_ij, which stays with image i,      c_j = log sum_i exp l_ij, which travels with text j,

and both are complete when the texts are home. A block of logits is computed again in the backward pass instead of
being kept, so that logits take the memory of one block, `block_rows * b / n`; the gradients are exact, being those of
the same sum. While a block is computed the texts are on their way already.

Sources: X. Zhai et al. (2023), section 3.3, for the sigmoid; H. Liu et al., Ring attention (2023), for sums of
exponentials that travel.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from aijax.errors import ConfigError
from aijax.losses.contrastive import check_pairs
from aijax.parallel import BATCH_AXES
from aijax.typing import Array, ArrayLike, Float

BLOCK_ROWS = 256


def ring_softmax_contrastive_loss(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    scale: Float[ArrayLike, ""] = 1.0,
    *,
    mesh: Mesh | AbstractMesh | None = None,
    block_rows: int = BLOCK_ROWS,
) -> Float[Array, ""]:
    """Returns `softmax_contrastive_loss(image, text, scale)`, a block of logits at a time.

    Args:
      image, text: features, split over `data` and `fsdp`.
      scale: inverse temperature.
      mesh: of `aijax.parallel.make_mesh`; None takes that of the program (`aijax.parallel.on_mesh`), or one device.
      block_rows: images of a device that meet texts at a time.

    Raises:
      ConfigError: features that are not pairs, a batch that the devices do not divide, a block without rows.

    >>> x = jnp.eye(4)
    >>> ring_softmax_contrastive_loss(x, x, 100.0, block_rows=3).tolist()
    0.0
    """

    def local(axes, image, text, scale):
        infinite = varying(jnp.full(len(image), -jnp.inf, jnp.result_type(image, scale)), axes)

        def block(rows, text, sums, scale, columns):
            logits = scale * rows @ text.T
            sums = jnp.logaddexp(sums, jax.nn.logsumexp(logits, axis=1))
            return sums, jnp.logaddexp(columns, jax.nn.logsumexp(logits, axis=0))

        def turn(carry, _):
            rows_sum, columns_sum, text = carry
            ahead = pass_round(text, axes)
            rows_sum, columns_sum = by_rows(block, block_rows, image, rows_sum, text, scale, columns_sum)
            return (rows_sum, pass_round(columns_sum, axes), ahead), None

        (rows_sum, columns_sum, _), _ = jax.lax.scan(turn, (infinite, infinite, text), length=ring_size(axes))
        own = scale * jnp.sum(image * text, axis=1)
        return jnp.sum(0.5 * (rows_sum + columns_sum) - own)

    return over_ring(local, mesh, block_rows, image, text, scale)


def ring_sigmoid_contrastive_loss(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    scale: Float[ArrayLike, ""] = 1.0,
    bias: Float[ArrayLike, ""] = 0.0,
    *,
    mesh: Mesh | AbstractMesh | None = None,
    block_rows: int = BLOCK_ROWS,
) -> Float[Array, ""]:
    """Returns `sigmoid_contrastive_loss(image, text, scale, bias)`, a block of logits at a time.

    Args:
      image, text: features, split over `data` and `fsdp`.
      scale: inverse temperature.
      bias: of the logits.
      mesh, block_rows: as in `ring_softmax_contrastive_loss`.

    Raises:
      ConfigError: features that are not pairs, a batch that the devices do not divide, a block without rows.

    >>> x = jnp.eye(4)
    >>> ring_sigmoid_contrastive_loss(x, x, 300.0, -150.0, block_rows=3).tolist()
    0.0
    """

    def local(axes, image, text, scale, bias):
        def block(rows, text, own, scale_bias, total):
            scale, bias = scale_bias
            logits = scale * rows @ text.T + bias
            apart = 1 - 2 * jax.nn.one_hot(own, len(text), dtype=logits.dtype)
            return own, total + jnp.sum(jax.nn.softplus(apart * logits))

        def turn(carry, first):
            total, text = carry
            ahead = pass_round(text, axes)
            own = jnp.where(first, jnp.arange(len(text)), -1)  # row i belongs to text i before the texts move
            _, total = by_rows(block, block_rows, image, own, text, (scale, bias), total)
            return (total, ahead), None

        size = ring_size(axes)
        zero = varying(jnp.zeros((), jnp.result_type(image, scale, bias)), axes)
        return jax.lax.scan(turn, (zero, text), jnp.arange(size) == 0)[0][0]

    return over_ring(local, mesh, block_rows, image, text, scale, bias)


def over_ring(
    local: Callable, mesh: Mesh | AbstractMesh | None, block_rows: int, image: Array, text: Array, *scalars: ArrayLike
) -> Float[Array, ""]:
    """Returns the sum over devices of `local(axes, image, text, *scalars)`, divided by the batch."""
    check_pairs(image, text)
    if block_rows < 1:
        raise ConfigError(f"block_rows: expected a number of rows, 1 or more, got {block_rows}")
    scalars = [jnp.asarray(scalar) for scalar in scalars]
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    axes = tuple(axis for axis in BATCH_AXES if axis in mesh.axis_names and mesh.shape[axis] > 1)
    if not axes:
        return local((), image, text, *scalars) / len(image)
    size = math.prod(mesh.shape[axis] for axis in axes)
    if len(image) % size:
        raise ConfigError(f"features: {len(image)} pairs cannot be split over data x fsdp = {size} devices")

    def one(image, text, *scalars):
        return jax.lax.psum(local(axes, image, text, *scalars), axes)

    specs = (P(axes), P(axes), *[P()] * len(scalars))
    return jax.shard_map(one, mesh=mesh, in_specs=specs, out_specs=P())(image, text, *scalars) / len(image)


def by_rows(block: Callable, block_rows: int, image: Array, per_row: Array, text: Array, scalars, total: Array):
    """Returns `(per_row, total)` after `block` has taken `block_rows` rows of `image` and of `per_row` at a time, each
    block computed again in the backward pass."""
    block = jax.checkpoint(block)

    def take(total, rows):
        per_row, total = block(rows[0], text, rows[1], scalars, total)
        return total, per_row

    size = min(block_rows, len(image))
    whole = len(image) // size * size
    cut = [rows[:whole].reshape(-1, size, *rows.shape[1:]) for rows in (image, per_row)]
    total, first = jax.lax.scan(take, total, cut)
    first = first.reshape(-1)
    if whole == len(image):
        return first, total
    total, last = take(total, (image[whole:], per_row[whole:]))
    return jnp.concatenate([first, last]), total


def ring_size(axes: tuple[str, ...]) -> int:
    """Returns the number of devices along the axes of the `shard_map` that this is called in."""
    return math.prod(jax.lax.axis_size(axis) for axis in axes)


def pass_round(x: Array, axes: tuple[str, ...]) -> Array:
    """Returns what the device before this one on the ring has."""
    size = ring_size(axes)
    return jax.lax.ppermute(x, axes, [(i, (i + 1) % size) for i in range(size)]) if axes else x


def varying(x: Array, axes: tuple[str, ...]) -> Array:
    """Returns a constant as a value that may come to differ between devices."""
    return functools.reduce(lambda x, axis: jax.lax.pcast(x, axis, to="varying"), axes, x)
