"""A residual multilayer perceptron whose layers are scaled and shifted by what it is told (FiLM, Perez et al. 2018).

    h <- h + W_k act((1 + s_k) norm(h) + b_k),      (s_k, b_k) = V_k e,      e = MLP(sines of t) + class embedding

For small images and tables it denoises as well as a UNet at a fraction of its cost.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.models.block_spec import ACTIVATIONS, Activation
from aijax.models.embeddings import sinusoidal_embedding
from aijax.parallel import keep_batch_split
from aijax.typing import Array, Float, Int


class FiLMMLP(nn.Module):
    """A network of diffusion models: x [b, ...] and times [b] or [] -> an array of the shape of x.

    Attributes:
      width: of the hidden layers.
      depth: residual blocks.
      embedding_width: of e.
      num_classes: of class labels, counting the one that stands for none where there is guidance; None for no classes.
      time_scale: by which t is multiplied before it is embedded by sines of periods up to 10^4.
      activation: "relu", "gelu", "gelu_tanh" or "silu".
      dropout_rate: within the blocks.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.

    Raises, when it is traced:
      ConfigError: a network with classes without labels.

    >>> import jax
    >>> model = FiLMMLP(width=16, depth=2, embedding_width=8, num_classes=11)
    >>> x, labels = jnp.ones((5, 8, 8, 1)), jnp.arange(5)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), x, jnp.ones(5), labels)[0].shape
    (5, 8, 8, 1)
    """

    width: int = 512
    depth: int = 4
    embedding_width: int = 256
    num_classes: int | None = None
    time_scale: float = 1.0
    activation: Activation = "silu"
    dropout_rate: float = 0.0
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b ..."],
        t: Float[Array, " b"] | Float[Array, ""],
        class_labels: Int[Array, " b"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "b ..."]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        act = choose(ACTIVATIONS, self.activation, "activation")
        shape = x.shape
        # one time for all rows is embedded once
        e = sinusoidal_embedding(jnp.reshape(t, (-1,)), self.embedding_width, scale=self.time_scale, shift=0.0)
        e = nn.Dense(self.embedding_width, name="time_0", **dtypes)(e)
        e = nn.Dense(self.embedding_width, name="time_1", **dtypes)(act(e))
        if self.num_classes is not None:
            if class_labels is None:
                raise ConfigError(f"class_labels: expected one of {self.num_classes} classes for each row, got none")
            e = e + nn.Embed(self.num_classes, self.embedding_width, name="classes", **dtypes)(class_labels)
        e = act(e)
        h = nn.Dense(self.width, name="in", **dtypes)(x.reshape(shape[0], -1))
        for i in range(self.depth):
            scale, shift = jnp.split(nn.Dense(2 * self.width, name=f"film_{i}", **dtypes)(e), 2, -1)
            y = nn.LayerNorm(use_scale=False, use_bias=False, name=f"norm_{i}", **dtypes)(h)
            y = act((1 + scale) * y + shift)
            y = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"dropout_{i}")(y)
            h = keep_batch_split(h + nn.Dense(self.width, name=f"layer_{i}", **dtypes)(y))
        size = x[0].size
        return nn.Dense(size, kernel_init=nn.initializers.zeros, name="out", **dtypes)(act(h)).reshape(shape)
