"""How information may pass through layers of attention, from a position of the last to one of the input.

Each layer passes on what its residual stream holds and what its heads read, as much of the one as of the other
(Abnar and Zuidema 2020, "Quantifying attention flow in transformers", equation 1; heads are averaged):

    W_l = (A_l + I) / 2                         W_l: [t, t], from the positions of layer l to those below it
    rollout_l = W_l W_{l-1} .. W_1              rows of W sum to one                                     (section 3.1)
    flow(q, k) = the largest flow from q, above the last layer, to k, below the first, through edges
        of capacities W_l                                                                                 (section 3.2)
"""

from collections import deque

import jax.numpy as jnp
import numpy as np

from aijax.errors import DataError
from aijax.typing import Any, Array, Float


def attention_rollout(
    attention_weights: Float[Array, "l *b h t t"], *, residual: float = 0.5
) -> Float[Array, "l *b t t"]:
    """Returns for each layer how much of each position of the input its positions hold, the product of layers so far.

    Args:
      attention_weights: of the layers from the first, `[l, h, t, t]` or `[l, b, h, t, t]`.
      residual: share of the stream in what a layer passes on, the others' being that of the heads; default 1/2.

    Raises:
      DataError: weights of another form, or a share that is not from 0 to 1.

    >>> attention_rollout(jnp.full((1, 1, 2, 2), 0.5))[0].tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    layers = _passed_on(jnp.asarray(attention_weights), residual)
    layers = layers / layers.sum(-1, keepdims=True)
    rolled = [layers[0]]
    for layer in layers[1:]:
        rolled.append(layer @ rolled[-1])
    return jnp.stack(rolled)


def attention_flow(attention_weights: Any, *, residual: float = 0.5, positions: Any = None) -> np.ndarray:
    """Returns the largest flow from each position of the last layer to each of the input, `[q, t]`.

    It is exact but for rounding, by the blocking flows of Dinic (1970), on the host, one pair of positions after the
    other: for tens of positions.

    Args:
      attention_weights: of the layers from the first, `[l, h, t, t]`, of one text.
      residual: see `attention_rollout`.
      positions: of the last layer, from which; default all.

    Raises:
      DataError: weights of another form, a share that is not from 0 to 1, or positions out of range.

    >>> attention_flow(np.full((1, 1, 2, 2), 0.5)).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    weights = np.asarray(attention_weights, np.float64)
    if weights.ndim != 4:
        raise DataError(f"attention_weights: expected [layers, heads, length, length], got {list(weights.shape)}")
    layers = _passed_on(weights, residual)
    length = layers.shape[-1]
    positions = np.arange(length) if positions is None else np.asarray(positions)
    if positions.size and (positions.min() < 0 or positions.max() >= length):
        raise DataError(f"positions: expected numbers from 0 to {length - 1}, got {positions.tolist()}")
    # node l t + i is position i below layer l
    edges = [
        ((number + 1) * length + i, number * length + j, layer[i, j])
        for number, layer in enumerate(layers)
        for i, j in np.argwhere(layer > 0)
    ]
    network = _Network((len(layers) + 1) * length, edges)
    top = len(layers) * length
    return np.array([[network.largest_flow(top + q, k) for k in range(length)] for q in positions])


def _passed_on(weights, residual):
    if weights.ndim < 4 or weights.shape[-1] != weights.shape[-2]:
        raise DataError(f"attention_weights: expected [layers, heads, length, length], got {list(weights.shape)}")
    if not 0 <= residual <= 1:
        raise DataError(f"residual: expected a share from 0 to 1, got {residual}")
    return (1 - residual) * weights.mean(-3) + residual * np.eye(weights.shape[-1], dtype=weights.dtype)


class _Network:
    """A directed graph with capacities; edge 2 e is one of those given, and 2 e + 1 the way back along it."""

    def __init__(self, count: int, edges: list[tuple[int, int, float]]):
        self.ends: list[int] = []
        self.capacities: list[float] = []
        self.leaving: list[list[int]] = [[] for _ in range(count)]
        for start, end, capacity in edges:
            for node, other, room in ((start, end, float(capacity)), (end, start, 0.0)):
                self.leaving[node].append(len(self.ends))
                self.ends.append(other)
                self.capacities.append(room)

    def largest_flow(self, source: int, sink: int) -> float:
        rooms, total = self.capacities.copy(), 0.0
        while (levels := self._levels(rooms, source, sink)) is not None:
            total += self._block(rooms, levels, source, sink)
        return total

    def _levels(self, rooms, source, sink):
        """How many edges with room lie between the source and each node; None where the sink is out of reach."""
        levels, queue = {source: 0}, deque([source])
        while queue and sink not in levels:
            node = queue.popleft()
            for edge in self.leaving[node]:
                if rooms[edge] > 0 and self.ends[edge] not in levels:
                    levels[self.ends[edge]] = levels[node] + 1
                    queue.append(self.ends[edge])
        return levels if sink in levels else None

    def _block(self, rooms, levels, source, sink):
        """Sends along shortest paths until each has an edge without room, and returns how much."""
        tried, path, sent = dict.fromkeys(levels, 0), [], 0.0
        while True:
            node = self.ends[path[-1]] if path else source
            if node == sink:
                least = min(rooms[edge] for edge in path)
                for edge in path:
                    rooms[edge] -= least
                    rooms[edge ^ 1] += least
                sent += least
                full = next(number for number, edge in enumerate(path) if rooms[edge] <= 0)
                del path[full:]
                continue
            edges = self.leaving[node]
            while tried[node] < len(edges) and not self._leads(rooms, levels, node, edges[tried[node]]):
                tried[node] += 1
            if tried[node] < len(edges):
                path.append(edges[tried[node]])
            elif path:
                tried[self.ends[path.pop() ^ 1]] += 1
            else:
                return sent

    def _leads(self, rooms, levels, node, edge):
        return rooms[edge] > 0 and levels.get(self.ends[edge]) == levels[node] + 1
