"""Exact gradients of large contrastive batches in the memory of small ones: features first, then gradients.

A contrastive loss compares all rows of a batch, so that its mean over micro-batches is another loss: each row would
meet fewer others. What is large is not the features but what an encoder keeps to differentiate them. Here a batch is
encoded part by part, and of each part only the features are kept; in the backward pass, when the loss has given the
gradient of every feature, the parts are encoded once more, one after another, and their gradients summed:

    dL/dp = sum_parts (df_part/dp)^T dL/df_part

This costs one more forward pass and is exact, for any loss of the features (L. Gao et al., Scaling deep contrastive
learning batch size under memory limited setup, 2021, known as GradCache).
"""

from collections.abc import Callable

import jax

from aijax.errors import ConfigError
from aijax.trees import join_rows, split_rows
from aijax.typing import Batch, Params, PRNGKey, PyTree


def encode_in_parts(
    encode: Callable[[Params, Batch, PRNGKey], PyTree], parts: int
) -> Callable[[Params, Batch, PRNGKey], PyTree]:
    """Returns `encode` in the memory of one of `parts` equal parts of the batch, with the same derivatives.

    Args:
      encode: `encode(params, batch, key) -> features`, arrays whose first axis is the batch's; row i of the features
        depends on row i of the batch. Each part has a key of its own.
      parts: how many, 1 or more; they divide the batch.

    Returns:
      `encode(params, batch, key)`; differentiate a loss of what it gives.

    Raises:
      ConfigError: no parts; when called, a batch that they do not divide.

    >>> import jax.numpy as jnp
    >>> encode = encode_in_parts(lambda params, batch, key: params * batch["x"], 2)
    >>> encode(2.0, {"x": jnp.arange(4.0)}, jax.random.key(0)).tolist()
    [0.0, 2.0, 4.0, 6.0]
    """
    if parts < 1:
        raise ConfigError(f"parts: expected 1 or more, got {parts}")
    if parts == 1:
        return encode

    def whole(params: Params, batch: Batch, key: PRNGKey) -> PyTree:
        once_more = jax.checkpoint(encode)
        pieces = (split_rows(batch, parts), jax.random.split(key, parts))
        return join_rows(jax.lax.map(lambda piece: once_more(params, *piece), pieces))

    return whole
