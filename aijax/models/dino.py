"""An encoder and a head that says which of many prototypes an image is like (Caron et al. 2021, arXiv 2104.14294).

    z = MLP(encoder(image)),      y_k = (z / |z|) . (w_k / |w_k|)

The student and the teacher of self-distillation are two sets of parameters of it.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aijax.losses import normalize
from aijax.typing import Array, Float


class DINO(nn.Module):
    """An encoder and a head: images [b, h, w, c] -> [b, outputs].

    Attributes:
      encoder: images -> features `[b, d]`, such as a `ViT` without classes.
      outputs: prototypes, K.
      hidden_width, hidden_layers: of the head's MLP, with GELU.
      bottleneck: width of z.
      dtype, param_dtype: of the head, see `aijax.models.block_spec.BlockSpec`.

    >>> import jax
    >>> from aijax.models import ViT
    >>> model = DINO(ViT(patch_size=4, embed_dim=8, depth=1, num_heads=2), outputs=7, hidden_width=16, bottleneck=4)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((3, 8, 8, 1)))[0].shape
    (3, 7)
    """

    encoder: nn.Module
    outputs: int = 65536
    hidden_width: int = 2048
    hidden_layers: int = 2
    bottleneck: int = 256
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], **how: Any) -> Float[Array, "b k"]:
        """Returns the outputs, from -1 to 1; `how` goes to the encoder."""
        x = self.encoder(images, **how)
        for i, width in enumerate((*(self.hidden_width,) * self.hidden_layers, self.bottleneck)):
            x = nn.gelu(x, approximate=False) if i else x
            x = nn.Dense(width, dtype=self.dtype, param_dtype=self.param_dtype, name=f"head_{i}")(x)
        shape = (self.bottleneck, self.outputs)
        kernel = self.param("prototypes", nn.initializers.normal(1.0), shape, jnp.dtype(self.param_dtype))
        x, kernel = nn.dtypes.promote_dtype(normalize(x), kernel, dtype=self.dtype)
        return x @ normalize(kernel.T).T
