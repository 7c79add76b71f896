"""What configs of transformers' text models have in common: names of activations, and fields that are refused."""

from aijax.errors import UnsupportedError, did_you_mean
from aijax.models.published.architecture import Fields, shape_of
from aijax.typing import Any

ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_accurate": "gelu_tanh",
    "quick_gelu": "gelu_quick", "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh",
}  # fmt: skip
"""Activations by the names that published configs give them."""
PUBLISHED = {
    "gelu": "gelu", "gelu_tanh": "gelu_new", "gelu_quick": "quick_gelu", "relu": "relu", "silu": "silu", "tanh": "tanh",
}  # fmt: skip
"""The published names of our activations."""


def take_activation(fields: Fields, name: str, default: str) -> str:
    """Returns our name of the activation in a field."""
    value = fields.take(name, str, default)
    if value not in ACTIVATIONS:
        raise UnsupportedError(f"{fields.where}.{name}: {value!r} is not offered{did_you_mean(value, ACTIVATIONS)}")
    return ACTIVATIONS[value]


def tokens_of(model: Any, config: Any) -> dict[str, Any]:
    """Returns the shapes of the inputs of a model of tokens."""
    return {"tokens": shape_of(1, 1, dtype="int32")}
