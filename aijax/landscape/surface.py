"""The loss along one direction or over the plane of two: L(theta + a d_0 + b d_1) on a grid, as one program."""

import functools
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, DataError
from aijax.landscape.batches import as_batches, mean_over
from aijax.landscape.directions import check_like_parameters
from aijax.landscape.operators import LossFn, check_loss
from aijax.typing import Any, Array, Float, Params, PyTree


@functools.partial(jax.tree_util.register_dataclass, data_fields=["axes", "values"], meta_fields=[])
@dataclass(frozen=True)
class Surface:
    """The loss `values` at all combinations of the steps along each direction: `[n]`, or `[n, m]` for two."""

    axes: tuple[Array, ...]
    values: Array


def surface(
    loss_fn: LossFn,
    params: Params,
    batches: Any,
    directions: PyTree | list[PyTree],
    grid: Float[Array, " n"] | list[Float[Array, " n"]] | None = None,
    *,
    batch_size: int | None = None,
) -> Surface:
    """Returns the mean loss on a grid along one or two directions.

    Args:
      loss_fn: `(params, batch)` to the mean loss of the batch.
      params: the middle.
      batches: one batch, or a list of batches.
      directions: a list of one or two trees like `params`.
      grid: steps along each direction, or one for all; default 21 from -1 to 1.
      batch_size: points worked out together, by `jax.vmap`; default one after the other.

    Raises:
      ConfigError: directions that are not like the parameters or more than two, a loss that is no scalar.

    >>> found = surface(lambda w, x: jnp.mean(x * w), jnp.ones(()), jnp.ones(3), [jnp.ones(())], jnp.array([0.0, 1.0]))
    >>> found.values.tolist()
    [1.0, 2.0]
    """
    directions = directions if isinstance(directions, list) else [directions]
    if len(directions) not in (1, 2):
        raise ConfigError(f"directions: expected one or two, got {len(directions)}")
    for index, direction in enumerate(directions):
        check_like_parameters(f"directions[{index}]", direction, params)
    axes = grid if isinstance(grid, list) else [grid] * len(directions)
    axes = tuple(jnp.linspace(-1.0, 1.0, 21) if axis is None else jnp.asarray(axis) for axis in axes)
    if len(axes) != len(directions):
        raise ConfigError(f"grid: expected steps for each of {len(directions)} directions, got {len(axes)}")
    batches = as_batches(batches)
    check_loss(loss_fn, params, batches)
    return Surface(axes, _values(loss_fn, params, batches, tuple(directions), axes, batch_size))


def loss_landscape_analysis(
    loss_fn: LossFn, params: Params, batches: Any, directions: PyTree | list[PyTree], **options: Any
) -> Surface:
    """Returns the loss around `params` along one or two directions: `surface` by the name that guides use."""
    return surface(loss_fn, params, batches, directions, **options)


def save_surface(path: str | Path, found: Surface) -> None:
    """Writes a surface to an `.npz` file."""
    axes = {f"axis_{index}": np.asarray(axis) for index, axis in enumerate(found.axes)}
    np.savez(path, values=np.asarray(found.values), **axes)


def load_surface(path: str | Path) -> Surface:
    """Returns the surface of a file that `save_surface` wrote.

    Raises:
      DataError: a file that holds none.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            values = stored["values"]
            return Surface(tuple(stored[f"axis_{index}"] for index in range(values.ndim)), values)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: expected a surface as save_surface writes it, got {error}") from None


@functools.partial(jax.jit, static_argnames=("loss_fn", "batch_size"))
def _values(loss_fn, params, batches, directions, axes, batch_size):
    steps = jnp.stack([part.reshape(-1) for part in jnp.meshgrid(*axes, indexing="ij")], axis=1)

    def at(step):
        def moved(p, *ds):
            return p + sum(a.astype(p.dtype) * d for a, d in zip(step, ds, strict=True))

        there = jax.tree.map(moved, params, *directions)
        return mean_over(lambda batch: loss_fn(there, batch), batches)

    return jax.lax.map(at, steps, batch_size=batch_size).reshape([len(axis) for axis in axes])
