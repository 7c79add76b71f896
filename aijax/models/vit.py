"""The vision transformer: an image cut into patches, each a token of a transformer (Dosovitskiy et al. 2021).

    tokens = patches(image) W + b + position,      features = pool(Transformer(tokens)),      logits = features H + c

The image's size is read from the input. Named sizes are those of the papers: `vit("B/16")` is width 768, depth 12,
12 heads, patches of 16 x 16 pixels; any field may be overridden.
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, choose
from aijax.models.block_spec import ACTIVATIONS, Activation, BlockSpec, Norm
from aijax.models.transformer import Remat, Transformer
from aijax.parallel import keep_batch_split
from aijax.typing import Array, Float

# width, depth, width of the MLP, heads
SIZES = {
    "mu": (32, 1, 128, 2),
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "M": (512, 12, 2048, 8),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "So400m": (1152, 27, 4304, 16),
    "H": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
    "G": (1664, 48, 8192, 16),
    "e": (1792, 56, 15360, 16),
}


class ViT(nn.Module):
    """A vision transformer: images [b, h, w, c] -> logits [b, num_classes].

    Attributes:
      patch_size: pixels on a side of a patch; it divides the image's height and width.
      width: of the residual stream.
      depth: number of blocks.
      num_heads: attention heads of a block.
      num_classes: None gives the pooled features [b, width].
      mlp_ratio: width of the MLP over `width`.
      pool: "cls" (a class token joins the patches, and its output is taken) or "gap" (mean over patches).
      positions: "learned" (a table for one image size) or "sincos2d" (fixed; Chen, Xie and He 2021).
      stem_widths: channels of 3 x 3 convolutions, each followed by the activation, before the image is cut into
        patches: () for none. They help on small data (Xiao et al. 2021).
      dropout_rate: of tokens after their positions are added, and of each branch.
      stochastic_depth_rate, remat, scan: see `aijax.models.transformer.Transformer`.
      norm, norm_epsilon, activation, dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.

    Raises, when it is traced:
      ConfigError: an image that patches do not divide, or of another size than the learned positions.

    >>> import jax
    >>> model = ViT(patch_size=2, width=8, depth=1, num_heads=2, num_classes=10)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((3, 8, 8, 1)))[0].shape
    (3, 10)
    """

    patch_size: int
    width: int
    depth: int
    num_heads: int
    num_classes: int | None = None
    mlp_ratio: float = 4.0
    pool: Literal["cls", "gap"] = "cls"
    positions: Literal["learned", "sincos2d"] = "learned"
    stem_widths: tuple[int, ...] = ()
    dropout_rate: float = 0.0
    stochastic_depth_rate: float = 0.0
    norm: Norm = "layer"
    norm_epsilon: float = 1e-6
    activation: Activation = "gelu"
    remat: Remat = "none"
    scan: bool | None = None
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b k"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        for i, width in enumerate(self.stem_widths):
            x = nn.Conv(width, (3, 3), name=f"stem_{i}", **dtypes)(x)
            x = choose(ACTIVATIONS, self.activation, "activation")(x)
        x = PatchEmbedding(self.patch_size, self.width, name="embedding", **dtypes)(x)
        x = x + self._positions(x.shape[1:3]).astype(x.dtype)
        x = x.reshape(x.shape[0], -1, self.width)
        if choose({"cls": True, "gap": False}, self.pool, "pool"):
            token = self.param("class_token", nn.initializers.zeros, (1, self.width), jnp.dtype(self.param_dtype))
            x = jnp.concatenate([jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, self.width)), x], axis=1)
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
        spec = BlockSpec(
            self.num_heads, self.mlp_ratio, self.norm, self.norm_epsilon, self.activation,
            dropout_rate=self.dropout_rate, **dtypes,
        )  # fmt: skip
        encoder = Transformer(self.depth, spec, self.stochastic_depth_rate, self.remat, self.scan, name="encoder")
        x = encoder(x, train=train)
        x = keep_batch_split(x[:, 0] if self.pool == "cls" else x.mean(axis=1))
        return x if self.num_classes is None else keep_batch_split(nn.Dense(self.num_classes, name="head", **dtypes)(x))

    def _positions(self, grid: tuple[int, int]) -> Float[Array, "h w d"]:
        if choose({"learned": False, "sincos2d": True}, self.positions, "positions"):
            return sincos2d(grid, self.width)
        if self.has_variable("params", "positions"):
            table = self.get_variable("params", "positions").shape[:2]
            if table != grid:
                raise ConfigError(
                    f"positions: learned for {table[0]} x {table[1]} patches, and the image gives {grid[0]} x {grid[1]}"
                )
        init = nn.initializers.normal(self.width**-0.5)
        return self.param("positions", init, (*grid, self.width), jnp.dtype(self.param_dtype))


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its size, as one product of matrices: [b, h, w, c] -> [b, h/p, w/p, d]."""

    patch_size: int
    width: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b gh gw d"]:
        p, (b, h, w, c) = self.patch_size, x.shape
        if h % p or w % p:
            raise ConfigError(f"patch_size: patches of {p} x {p} pixels do not divide an image of {h} x {w}")
        param_dtype = jnp.dtype(self.param_dtype)
        init = nn.initializers.lecun_normal(in_axis=(0, 1, 2))
        kernel = self.param("kernel", init, (p, p, c, self.width), param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        x = x.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(b, h // p, w // p, -1) @ kernel.reshape(-1, self.width) + bias


def vit(variant: str, **fields: Any) -> ViT:
    """Returns the ViT of a named size such as "B/16", with any field overridden.

    >>> vit("Ti/16", num_classes=10).width
    192
    """
    return ViT(**(decode_variant(variant) | fields))


def decode_variant(variant: str, where: str = "variant") -> dict[str, Any]:
    """Returns the fields that a variant "SIZE/PATCH" stands for.

    Raises:
      ConfigError: an unknown size, or a patch size that is no number; it names the field `where`.
    """
    size, slash, patch = variant.partition("/")
    width, depth, mlp, heads = choose(SIZES, size, where)
    if not (slash and patch.isdecimal() and int(patch) > 0):
        raise ConfigError(f"{where}: expected a size and a patch size such as '{size}/16', got {variant!r}")
    return {"width": width, "depth": depth, "num_heads": heads, "mlp_ratio": mlp / width, "patch_size": int(patch)}


def sincos2d(grid: tuple[int, int], width: int, *, base: float = 10_000.0) -> Float[Array, "h w d"]:
    """Returns fixed positions: sin and cos of x w_i, then of y w_i, with w_i = base^(-i / (d/4 - 1)), i = 0..d/4 - 1.

    The convention of MoCo v3 (Chen, Xie and He 2021, arXiv 2104.02057) and of Beyer et al. 2022.

    Raises:
      ConfigError: a width that is no multiple of 4.
    """
    if width % 4 or width < 8:
        raise ConfigError(f"width: sincos2d positions need a multiple of 4, at least 8, got {width}")
    y, x = np.mgrid[: grid[0], : grid[1]]
    frequencies = base ** -np.linspace(0.0, 1.0, width // 4)
    x, y = x[..., None] * frequencies, y[..., None] * frequencies
    return jnp.asarray(np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=-1))
