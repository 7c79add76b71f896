"""The types that signatures use: arrays with their shapes (jaxtyping), keys and trees."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, PyTree, Shaped, UInt8

Params = PyTree[Array]
"""The parameters of a model: any tree of arrays."""

Batch = Mapping[str, Array]
"""Named arrays whose first axis is the example."""

Metrics = Mapping[str, Array]
"""Named scalars."""

PRNGKey = Key[Array, ""]
"""A typed key, from `jax.random.key`."""

LossFn = Callable[[Params, Batch, PRNGKey], tuple[Array, Metrics]]
"""`loss_fn(params, batch, key) -> (loss, metrics)`: a pure function."""

__all__ = [
    "Any", "Array", "ArrayLike", "Batch", "Bool", "Callable", "Float", "Int", "Key", "LossFn", "Metrics", "PRNGKey",
    "Params", "PyTree", "Shaped", "UInt8",
]  # fmt: skip
