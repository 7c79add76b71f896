"""Relative positions as a bias of attention: near distances have one each, far ones share (Raffel et al. 2020, 2.1)."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from aijax.typing import Array, Float, Int


class RelativeBias(nn.Module):
    """A bias for each head and bucket of distances: places [t] of queries and [s] of keys -> [h, t, s].

    Attributes:
      num_heads: of attention.
      num_buckets, max_distance, two_sided: see `distance_bucket`.
      dtype, param_dtype: see `aijax.models.block_spec.BlockSpec`.
    """

    num_heads: int
    num_buckets: int = 32
    max_distance: int = 128
    two_sided: bool = True
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, queries: Int[Array, " t"], keys: Int[Array, " s"]) -> Float[Array, "h t s"]:
        bucket = distance_bucket(keys[None, :] - queries[:, None], self.num_buckets, self.max_distance, self.two_sided)
        init = nn.initializers.normal(1.0)
        table = self.param("embedding", init, (self.num_buckets, self.num_heads), jnp.dtype(self.param_dtype))
        table = table if self.dtype is None else table.astype(self.dtype)
        return jnp.moveaxis(jnp.take(table, bucket, axis=0), -1, 0)


def distance_bucket(
    distance: Int[Array, "t s"], num_buckets: int = 32, max_distance: int = 128, two_sided: bool = True
) -> Int[Array, "t s"]:
    """Returns the bucket of each distance, key minus query.

    Half of the buckets of a side have a distance each; the others grow as its logarithm up to `max_distance`, and the
    last has all beyond. Of one side, keys after the query count as distance 0.

    >>> distance_bucket(jnp.array([[-9, -1, 0, 1, 9]]), num_buckets=8, max_distance=8).tolist()
    [[3, 1, 0, 5, 7]]
    """
    first = jnp.zeros_like(distance)
    if two_sided:
        num_buckets //= 2
        first = jnp.where(distance > 0, num_buckets, 0)
        away = jnp.abs(distance)
    else:
        away = jnp.maximum(-distance, 0)
    return first + jnp.take(_buckets_of(num_buckets, max_distance), jnp.minimum(away, max_distance))


def _buckets_of(num_buckets, max_distance):
    """The bucket of each distance up to `max_distance`, of one side; in 32 bits on the host, as it was when published
    models were trained, since rounding decides on which side of a boundary some distances fall."""
    exact = num_buckets // 2
    away = np.arange(max_distance + 1)
    growth = np.log(np.maximum(away, 1).astype(np.float32) / np.float32(exact))
    growth = growth / np.float32(math.log(max_distance / exact)) * np.float32(num_buckets - exact)
    far = np.minimum(exact + growth.astype(int), num_buckets - 1)
    return jnp.asarray(np.where(away < exact, away, far), jnp.int32)
