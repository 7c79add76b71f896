"""A plain convolutional network: stages of 3 x 3 convolutions, each stage at half the resolution of the one before.

Normalisation is over groups of channels (Wu and He 2018) or absent, never over the batch, so that the network is a
pure function of one image, as kernels and Hessians need it.
"""

from typing import Any, Literal

import flax.linen as nn

from aijax.errors import ConfigError, choose
from aijax.models.block_spec import ACTIVATIONS, Activation
from aijax.parallel import keep_batch_split
from aijax.typing import Array, Float


class CNN(nn.Module):
    """A convolutional network: images [b, h, w, c] -> logits [b, num_classes].

    Attributes:
      widths: channels of each stage; a stage ends with a max-pool of 2 x 2, the last with the mean over the image.
      num_classes: None gives the pooled features.
      convolutions: 3 x 3 convolutions in a stage.
      norm: "group" or "none".
      num_groups: groups of channels that are normalised together; it divides every width.
      activation: "relu", "gelu", "gelu_tanh" or "silu".
      dropout_rate: of the pooled features.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.

    Raises, when it is traced:
      ConfigError: an image too small for its stages, or groups that do not divide a width.

    >>> import jax
    >>> model = CNN(widths=(8, 8), num_classes=3)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jax.numpy.ones((5, 8, 8, 1)))[0].shape
    (5, 3)
    """

    widths: tuple[int, ...] = (32, 64, 128)
    num_classes: int | None = None
    convolutions: int = 1
    norm: Literal["group", "none"] = "group"
    num_groups: int = 8
    activation: Activation = "relu"
    dropout_rate: float = 0.0
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b k"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if min(x.shape[1:3]) < 2 ** (len(self.widths) - 1):
            raise ConfigError(
                f"widths: {len(self.widths)} stages halve an image of {x.shape[1]} x {x.shape[2]} to nothing"
            )
        for stage, width in enumerate(self.widths):
            if self.norm == "group" and width % self.num_groups:
                raise ConfigError(f"num_groups: expected a divisor of the width {width}, got {self.num_groups}")
            x = max_pool(x) if stage else x
            for i in range(self.convolutions):
                x = nn.Conv(width, (3, 3), name=f"conv_{stage}_{i}", **dtypes)(x)
                if choose({"group": True, "none": False}, self.norm, "norm"):
                    x = nn.GroupNorm(self.num_groups, name=f"norm_{stage}_{i}", **dtypes)(x)
                x = keep_batch_split(choose(ACTIVATIONS, self.activation, "activation")(x))
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x.mean(axis=(1, 2)))
        return x if self.num_classes is None else keep_batch_split(nn.Dense(self.num_classes, name="head", **dtypes)(x))


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """Returns the largest of each 2 x 2 pixels; an odd last row or column is left out.

    A maximum over a reshaped array: its gradient on CPU takes a fraction of that of a windowed reduction.
    """
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
