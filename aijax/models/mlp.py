"""The multilayer perceptron: x -> act(x W_1 + b_1) -> ... -> x W_head + b_head."""

from typing import Any

import flax.linen as nn

from aijax.errors import choose
from aijax.models.block_spec import ACTIVATIONS, Activation
from aijax.parallel import keep_batch_split
from aijax.typing import Array, Float


class MLP(nn.Module):
    """A multilayer perceptron on flattened inputs: [b, ...] -> [b, num_classes].

    Attributes:
      widths: of the hidden layers; () is a linear model.
      num_classes: outputs; None gives the last hidden layer.
      activation: "relu", "gelu", "gelu_tanh" or "silu".
      dropout_rate: after each hidden layer.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.

    >>> import jax
    >>> model = MLP(widths=(16,), num_classes=3)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jax.numpy.ones((5, 2, 2)))[0].shape
    (5, 3)
    """

    widths: tuple[int, ...] = (512, 512)
    num_classes: int | None = None
    activation: Activation = "relu"
    dropout_rate: float = 0.0
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], *, train: bool = False) -> Float[Array, "b k"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.widths):
            x = nn.Dense(width, name=f"layer_{i}", **dtypes)(x)
            x = choose(ACTIVATIONS, self.activation, "activation")(x)
            x = keep_batch_split(nn.Dropout(self.dropout_rate, deterministic=not train, name=f"dropout_{i}")(x))
        return x if self.num_classes is None else keep_batch_split(nn.Dense(self.num_classes, name="head", **dtypes)(x))
