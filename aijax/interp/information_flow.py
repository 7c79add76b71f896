"""How information may pass through layers of attention, from a position of the last to one of the input.

Each layer passes on what its residual stream holds and what its heads read, as much of the one as of the other
(Abnar and Zuidema 2020, "Quantifying attention flow in transformers", equation 1; heads are averaged):

    W_l = (A_l + I) / 2                         W_l: [t, t], from the positions of layer l to those below it
    rollout_l = W_l W_{l-1} .. W_1              rows of W sum to one                                     (section 3.1)
    flow(q, k) = the largest flow from q, above the last layer, to k, below the first, through edges
        of capacities W_l                                                                                 (section 3.2)
"""

import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from aijax.errors import DataError
from aijax.typing import Any, Array, Float

UNITS = 2**30
"""What all capacities that leave a position are together at most, in whole numbers of 32 bits."""


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

    It is the capacity of the smallest cut (Ford and Fulkerson 1956), which SciPy's `maximum_flow` finds in units of
    2^-30 and which is then summed in float64: exact but for rounding, unless another cut comes as near as a unit for
    each of its edges. On the host, one pair of positions after the other; 4,225 pairs take seconds.

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
    number, above, below = np.nonzero(layers > 0)
    starts, ends, capacities = (number + 1) * length + above, number * length + below, layers[layers > 0]
    nodes, top = (len(layers) + 1) * length, len(layers) * length
    units = np.floor(capacities * (UNITS / layers.sum(-1).max()))
    units = csr_array((units.astype(np.int32), (starts, ends)), (nodes, nodes))

    def largest_flow(source, sink):
        room = units - maximum_flow(units, source, sink).flow
        room.eliminate_zeros()
        held = np.zeros(nodes, bool)
        held[breadth_first_order(room, source, return_predecessors=False)] = True
        return capacities[held[starts] & ~held[ends]].sum()

    return np.array([[largest_flow(top + q, k) for k in range(length)] for q in positions])


def _passed_on(weights, residual):
    if weights.ndim < 4 or weights.shape[-1] != weights.shape[-2]:
        raise DataError(f"attention_weights: expected [layers, heads, length, length], got {list(weights.shape)}")
    if not 0 <= residual <= 1:
        raise DataError(f"residual: expected a share from 0 to 1, got {residual}")
    return (1 - residual) * weights.mean(-3) + residual * np.eye(weights.shape[-1], dtype=weights.dtype)
