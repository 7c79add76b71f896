"""Positional embeddings: random vectors, one a position and the same for all examples, with a given covariance R.

    R[p, p'] = decay(sum_i |p_i - p'_i|^norm),        the identity without a decay.

Added to the activations ("SUM") they take the covariance K to K + W_std^2 R; as additional channels ("CONCAT") to the
mean of K and W_std^2 R by numbers of channels. They are trained, so R enters the tangent kernel with the same weight.
(Hron, Bahri, Sohl-Dickstein and Novak 2020, "Infinite attention", section 4.3.)
"""

import dataclasses
import enum
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, did_you_mean
from aijax.ntk.stax.layer import standard_normal
from aijax.typing import Array


class PositionalEmbedding(enum.StrEnum):
    """Where embeddings enter; `GlobalSelfAttention` takes the name or the member."""

    NONE = "NONE"
    SUM = "SUM"
    CONCAT = "CONCAT"


@dataclasses.dataclass(frozen=True)
class Positions:
    """What embeddings are used, and how they are correlated.

    Attributes:
      kind: "NONE", "SUM" or "CONCAT".
      norm: power of the differences between coordinates.
      decay: covariance as a function of the distance; None for independent positions.
      channels: how many channels are added by "CONCAT"; None for as many as there are.
      std: standard deviation of the embeddings.
    """

    kind: str
    norm: float
    decay: Callable | None
    channels: int | None
    std: float

    def __post_init__(self):
        if self.kind not in list(PositionalEmbedding):
            raise ConfigError(
                f"pos_emb_type: unknown value {self.kind!r}{did_you_mean(str(self.kind), PositionalEmbedding)}"
            )
        if self.channels is not None and self.kind != "CONCAT":
            raise ConfigError(f"n_chan_pos_emb={self.channels}: only pos_emb_type 'CONCAT' adds channels")

    def covariance(self, sizes: tuple[int, ...]) -> Array:
        """Returns R [P, P] of positions in row-major order."""
        count = math.prod(sizes)
        if self.decay is None:
            return jnp.eye(count)
        points = np.stack(np.unravel_index(np.arange(count), sizes), -1).astype(np.float64)
        distances = np.sum(np.abs(points[:, None] - points) ** self.norm, -1)
        return self.decay(jnp.asarray(distances, jnp.result_type(float)))

    def added_channels(self, channels: int) -> int:
        """Returns how many channels are added to `channels`."""
        if self.kind != "CONCAT":
            return 0
        return channels if self.channels is None else self.channels

    def init(self, key, sizes: tuple[int, ...], channels: int) -> Array | None:
        """Returns the embeddings' parameters [P, c], independent standard normal."""
        if self.kind == "NONE":
            return None
        return standard_normal(key, (math.prod(sizes), self.added_channels(channels) or channels))

    def apply(self, parameters: Array, x: Array, sizes: tuple[int, ...], kept: Array | None) -> Array:
        """Returns the activations x [n, P, c] with their embeddings, zero where they are not `kept`."""
        if self.kind == "NONE":
            return x
        values, vectors = jnp.linalg.eigh(self.covariance(sizes))
        root = (vectors * jnp.sqrt(jnp.maximum(values, 0))) @ vectors.T
        embedding = jnp.broadcast_to(self.std * (root @ parameters), (*x.shape[:2], parameters.shape[1]))
        embedding = embedding if kept is None else jnp.where(kept, embedding, 0)
        return x + embedding if self.kind == "SUM" else jnp.concatenate([x, embedding.astype(x.dtype)], -1)

    def embed(self, cov: Array, r: Array, channels: int) -> Array:
        """Returns a covariance, or a tangent kernel, [..., P, P'] with the embeddings' share of it."""
        if self.kind == "NONE":
            return cov
        r = jnp.broadcast_to(r, cov.shape)
        if self.kind == "SUM":
            return cov + self.std**2 * r
        added = self.added_channels(channels)
        return (channels * cov + added * self.std**2 * r) / (channels + added)
