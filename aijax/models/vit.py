"""The vision transformer: an image cut into patches, each a token of a transformer (Dosovitskiy et al. 2021).

    tokens = patches(image) W + b + position,      features = pool(Transformer(tokens)),      logits = features H + c

Its fields make it the ViT of that paper, DeiT (Touvron et al. 2021), the encoders of MAE, CLIP, DINOv2, DINOv3 and
SigLIP, with register tokens (Darcet et al. 2024), flexible patches (Beyer et al. 2023) and images of native aspect
(NaFlex, Tschannen et al. 2025). The image's size is read from the input. Named sizes are those of the papers:
`vit("B/16")` has width 768, depth 12, 12 heads and patches of 16 x 16 pixels; any field may be overridden.
"""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.models.block_spec import LAYERS, Activation, BlockSpec, Norm, activate, norm
from aijax.models.convolution import Conv
from aijax.models.patches import PatchEmbedding, pair
from aijax.models.pooling import Pool, pool_tokens
from aijax.models.positions import Resize, positions_of_patches, resize_table, rotary2d_angles, sincos2d
from aijax.models.transformer import Remat, Transformer
from aijax.parallel import keep_batch_split
from aijax.typing import Array, Bool, Float, Int

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
SINCOS = {"sincos2d": "mocov3", "sincos2d_mae": "mae", "sincos2d_timm": "timm"}
POSITIONS = ("learned", *SINCOS, "rotary2d", "none")


class VisionFeatures(NamedTuple):
    """What a vision transformer makes of images.

    Attributes:
      last: tokens after the final norm, `[b, t, d]`: class, distillation and register tokens before the patches.
      pooled: before the head, `[b, d]`.
      hidden: tokens before the first block and after each, without the final norm, `depth + 1` arrays `[b, t, d]`.
    """

    last: Array
    pooled: Array
    hidden: tuple[Array, ...]


class ViT(nn.Module):
    """A vision transformer: images [b, h, w, c] -> logits [b, num_classes].

    Attributes:
      patch_size: pixels on a side of a patch, or on both; it divides the image's height and width.
      embed_dim: width of the residual stream.
      depth: number of blocks.
      num_heads: attention heads of a block.
      num_classes: None gives the pooled features [b, embed_dim].
      mlp_ratio: width of the MLP over `embed_dim`.
      pool: "cls" (a class token comes before the patches, and its output is taken), "gap" (mean over patches),
        "cls_gap" (both, one after the other), "map" (a learned query attends to them), "first" or "none" (all tokens).
      positions: "learned" (a table), "sincos2d" (fixed; Chen, Xie and He 2021), "sincos2d_mae", "sincos2d_timm" (other
        conventions, see `aijax.models.positions.sincos2d`), "rotary2d" (of queries and keys, as DINOv3) or "none".
      img_size: of the images that learned positions are for; None for that of the first image.
      position_resize: how learned positions are made to fit other images: "none" refuses them; the methods are those of
        `aijax.models.positions.resize_table`.
      token_positions: which tokens before the patches have learned positions too: "none", "class" (and distillation),
        "all" (registers too).
      freeze_positions: learned positions stay as they are: "sincos2d_mae", unless they were read from a file.
      rotary_base: of "rotary2d".
      class_token: whether there is one; None for what `pool` needs.
      num_registers: further tokens before the patches.
      distillation: "none", "token" (a further token) or "head" (and a head of its own; logits are the mean of both).
      mask_token: whether hidden patches have a learned token.
      embedding_norm: a norm before the first block.
      embedding_bias: whether patches have a bias.
      final_norm: "tokens", "pooled" (after the pool) or "none".
      pool_prefix: "gap" and "map" take tokens before the patches too.
      pre_logits: width of a layer with tanh before the head; None for no such layer.
      head_bias: whether the head has a bias; a projection into a space shared with texts has none.
      biases, qk_norm, layer_scale, gated, attention_dropout_rate, norm, norm_epsilon, activation, implementation,
        dtype, param_dtype: see `aijax.models.block_spec.BlockSpec`.
      patch_kernel: sides of the patches that the kernel is kept for (FlexiViT); None for `patch_size`.
      drop_rest: pixels that fill no patch are left out; otherwise there may be none.
      stem_widths: channels of 3 x 3 convolutions, each followed by the activation, before the image is cut into
        patches: () for none. They help on small data (Xiao et al. 2021).
      stem_strides: of these convolutions; None for 1 each.
      dropout_rate: of tokens after their positions are added, and of each branch.
      token_dropout_rate: share of patches that are left out in training.
      stochastic_depth_rate, remat, scan: see `aijax.models.transformer.Transformer`.
      in_channels: of the images; None for those of the first image.
      published_as: the published class that it was read as, and as which it is saved.

    Raises, when it is traced:
      ConfigError: an image that patches do not divide, of other channels than `in_channels`, or of another size than
        the learned positions where `position_resize` is "none".

    >>> model = ViT(patch_size=2, embed_dim=8, depth=1, num_heads=2, num_classes=10)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((3, 8, 8, 1)))[0].shape
    (3, 10)
    """

    patch_size: int | tuple[int, int]
    embed_dim: int
    depth: int
    num_heads: int
    num_classes: int | None = None
    mlp_ratio: float = 4.0
    pool: Pool = "cls"
    positions: Literal["learned", "sincos2d", "sincos2d_mae", "sincos2d_timm", "rotary2d", "none"] = "learned"
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
    img_size: int | tuple[int, int] | None = None
    position_resize: Resize = "none"
    token_positions: Literal["none", "class", "all"] = "none"
    freeze_positions: bool = False
    rotary_base: float = 100.0
    class_token: bool | None = None
    num_registers: int = 0
    distillation: Literal["none", "token", "head"] = "none"
    mask_token: bool = False
    embedding_norm: bool = False
    embedding_bias: bool = True
    final_norm: Literal["tokens", "pooled", "none"] = "tokens"
    pool_prefix: bool = False
    pre_logits: int | None = None
    head_bias: bool = True
    biases: tuple[str, ...] = LAYERS
    qk_norm: bool = False
    layer_scale: float | None = None
    gated: bool = False
    attention_dropout_rate: float = 0.0
    implementation: Literal["xla", "cudnn"] | None = None
    patch_kernel: int | tuple[int, int] | None = None
    drop_rest: bool = False
    token_dropout_rate: float = 0.0
    in_channels: int | None = None
    stem_strides: tuple[int, ...] | None = None
    published_as: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "..."],
        *,
        shapes: Int[Array, "b 2"] | None = None,
        mask: Bool[Array, "b n"] | None = None,
        hide: Bool[Array, "b n"] | None = None,
        keep: Int[Array, "b k"] | None = None,
        with_features: bool = False,
        train: bool = False,
    ) -> Any:
        """Returns the logits, or the features where `num_classes` is None; with `with_features` these and
        `VisionFeatures`.

        Args:
          x: images `[b, h, w, c]`; or their patches, `[b, n, p p c]`, with the shapes that they form.
          shapes: (rows, columns) of the patches of each image, where `x` are patches.
          mask: which patches are there, where `x` are patches.
          hide: patches in place of which the mask token stands.
          keep: the patches that are seen, by number; None for all.
          train: dropout of all kinds is on; it needs the "dropout" rng.
        """
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        spec = self._spec()
        if x.ndim == 4 and self.in_channels not in (None, x.shape[-1]):
            raise ConfigError(f"in_channels: expected images of {self.in_channels} channels, got shape {x.shape}")
        strides = (1,) * len(self.stem_widths) if self.stem_strides is None else self.stem_strides
        if len(strides) != len(self.stem_widths):
            raise ConfigError(f"stem_strides: expected {len(self.stem_widths)}, as stem_widths has, got {strides}")
        for i, (width, stride) in enumerate(zip(self.stem_widths, strides, strict=True)):
            x = activate(spec, Conv(width, stride=stride, name=f"stem_{i}", **dtypes)(x))
        embedding = PatchEmbedding(
            self.patch_size, self.embed_dim, self.embedding_bias, self.patch_kernel, self.drop_rest, name="embedding",
            **dtypes,
        )  # fmt: skip
        x = embedding(x)
        grid, (batch, *_) = x.shape[1:-1], x.shape
        x = x.reshape(batch, -1, self.embed_dim)
        if self.mask_token:
            token = self._token("mask_token", 1, 0.02)
            x = x if hide is None else jnp.where(hide[..., None], token.astype(x.dtype), x)
        elif hide is not None:
            raise ConfigError("hide: hidden patches need mask_token=True")
        prefix = self._prefix()
        x = x + self._positions(grid, shapes, x.shape[1]).astype(x.dtype)
        angles = rotary2d_angles(grid, self.embed_dim // self.num_heads, self.rotary_base) if self._rotary else None
        if train and self.token_dropout_rate and keep is None:
            keep = self._draw(batch, x.shape[1])
        if keep is not None:
            x = jnp.take_along_axis(x, keep[..., None], axis=1)
            angles = None if angles is None else angles[keep]
            mask = None if mask is None else jnp.take_along_axis(mask, keep, axis=1)
        if prefix is not None:
            count = len(prefix)
            x = jnp.concatenate([jnp.broadcast_to(prefix.astype(x.dtype), (batch, *prefix.shape)), x], axis=1)
            angles = None if angles is None else jnp.pad(angles, (*((0, 0),) * (angles.ndim - 2), (count, 0), (0, 0)))
            mask = None if mask is None else jnp.pad(mask, ((0, 0), (count, 0)), constant_values=True)
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
        x = norm(spec, "norm_embedding")(x) if self.embedding_norm else x
        final = choose({"tokens": True, "pooled": False, "none": False}, self.final_norm, "final_norm")
        encoder = Transformer(
            self.depth, spec, self.stochastic_depth_rate, self.remat, self.scan, final, name="encoder"
        )  # fmt: skip
        alone = self.pool in ("cls", "first") and self.distillation != "head" and not with_features
        place = 0 if alone else None
        last = encoder(x, mask=mask, angles=angles, place=place, with_hidden=with_features, train=train)
        last, hidden = last if with_features else (last[:, None] if alone else last, ())
        return self._head(last, spec, hidden, 0 if prefix is None else len(prefix), mask, with_features)

    def _head(self, last, spec, hidden, count, mask, with_features):
        x = pool_tokens(self.pool, last, spec, 0 if self.pool_prefix else count, mask)
        x = norm(spec, "norm_pooled")(x) if self.final_norm == "pooled" else x
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.pre_logits is not None:
            x = jnp.tanh(nn.Dense(self.pre_logits, name="pre_logits", **dtypes)(x))
        x = pooled = keep_batch_split(x)
        if self.num_classes is not None:
            x = nn.Dense(self.num_classes, use_bias=self.head_bias, name="head", **dtypes)(x)
            if self.distillation == "head":
                x = (x + nn.Dense(self.num_classes, name="head_distillation", **dtypes)(last[:, 1])) / 2
            x = keep_batch_split(x)
        return (x, VisionFeatures(last, pooled, hidden)) if with_features else x

    @property
    def _rotary(self):
        return choose({name: name == "rotary2d" for name in POSITIONS}, self.positions, "positions")

    @property
    def has_class_token(self) -> bool:
        """Whether a class token comes first."""
        return self.pool in ("cls", "cls_gap") if self.class_token is None else self.class_token

    def _spec(self):
        return BlockSpec(
            self.num_heads, self.mlp_ratio, self.norm, self.norm_epsilon, self.activation,
            dropout_rate=self.dropout_rate, dtype=self.dtype, param_dtype=self.param_dtype, gated=self.gated,
            biases=self.biases, qk_norm=self.qk_norm, attention_dropout_rate=self.attention_dropout_rate,
            layer_scale=self.layer_scale, implementation=self.implementation,
        )  # fmt: skip

    def _token(self, name, count, std):
        init = nn.initializers.normal(std) if std else nn.initializers.zeros
        return self.param(name, init, (count, self.embed_dim), jnp.dtype(self.param_dtype))

    def _prefix(self):
        """The tokens before the patches, with their positions; None where there are none."""
        needed = self.pool in ("cls", "cls_gap") or self.distillation == "head"
        if needed and not self.has_class_token:
            raise ConfigError(
                f"class_token: pool={self.pool!r} and distillation={self.distillation!r} need one, got False"
            )
        tokens = [self._token("class_token", 1, 0.0)] if self.has_class_token else []
        if choose({"none": False, "token": True, "head": True}, self.distillation, "distillation"):
            tokens.append(self._token("distillation_token", 1, 0.02))
        rows = {"none": 0, "class": len(tokens), "all": len(tokens) + self.num_registers}
        rows = choose(rows, self.token_positions, "token_positions")
        if self.num_registers:
            tokens.append(self._token("registers", self.num_registers, 0.02))
        if not tokens:
            return None
        prefix = jnp.concatenate(tokens)
        if rows and self.positions == "learned":
            prefix = prefix.at[:rows].add(self._learned("token_positions", (rows, self.embed_dim)))
        return prefix

    def _positions(self, grid, shapes, length):
        """The positions of the patches, `[n, d]`, or `[b, n, d]` where images have shapes of their own."""
        choose(dict.fromkeys(POSITIONS), self.positions, "positions")
        if len(grid) == 1 and (shapes is None or self.positions not in ("learned", "none")):
            raise ConfigError("shapes: images given as patches need their shapes, and positions that are learned")
        if self.positions in SINCOS:
            return sincos2d(grid, self.embed_dim, convention=SINCOS[self.positions]).reshape(-1, self.embed_dim)
        if self.positions != "learned":
            return jnp.zeros((1, self.embed_dim))
        own = grid
        if self.has_variable("params", "positions"):
            own = self.get_variable("params", "positions").shape[:2]
        elif self.img_size is not None:
            own = grid_of(self.img_size, self.patch_size, self.drop_rest)
        table = self._learned("positions", (*own, self.embed_dim))
        if len(grid) == 1:
            return positions_of_patches(table, shapes, length)
        if own != grid and self.position_resize == "none":
            raise ConfigError(
                f"positions: learned for {own[0]} x {own[1]} patches, and the image gives {grid[0]} x {grid[1]}; "
                "position_resize names how they are to be resized"
            )
        table = table if own == grid else resize_table(table, grid, self.position_resize)
        return table.reshape(-1, self.embed_dim)

    def _learned(self, name, shape):
        init, dtype = nn.initializers.normal(self.embed_dim**-0.5), jnp.dtype(self.param_dtype)
        if not self.freeze_positions:
            return self.param(name, init, shape, dtype)
        fixed = sincos2d(shape[:2], self.embed_dim, convention="mae") if len(shape) == 3 else jnp.zeros(shape)
        return jax.lax.stop_gradient(self.param(name, lambda _: fixed.astype(dtype)))

    def _draw(self, batch, length):
        kept = max(1, int(length * (1 - self.token_dropout_rate)))
        noise = jax.random.uniform(self.make_rng("dropout"), (batch, length))
        return jnp.argsort(noise, axis=1)[:, :kept]


def vit(variant: str, **fields: Any) -> ViT:
    """Returns the ViT of a named size such as "B/16", with any field overridden.

    >>> vit("Ti/16", num_classes=10).embed_dim
    192
    """
    return ViT(**(decode_variant(variant) | fields))


def decode_variant(variant: str, where: str = "variant") -> dict[str, Any]:
    """Returns the fields that a variant "SIZE/PATCH" stands for.

    Raises:
      ConfigError: an unknown size, or a patch size that is no number; it names the field `where`.
    """
    size, slash, patch = variant.partition("/")
    if not (slash and patch.isdecimal() and int(patch) > 0):
        known = size if size in SIZES else "B"
        raise ConfigError(f"{where}: expected a size and a patch size such as '{known}/16', got {variant!r}")
    width, depth, mlp, heads = choose(SIZES, size, where)
    return {"embed_dim": width, "depth": depth, "num_heads": heads, "mlp_ratio": mlp / width, "patch_size": int(patch)}


def grid_of(img_size: int | tuple[int, int], patch_size: int | tuple[int, int], drop_rest: bool) -> tuple[int, int]:
    """Returns the rows and columns of patches of images.

    Raises:
      ConfigError: patches that do not divide the images.
    """
    (h, w), (p, q) = pair(img_size), pair(patch_size)
    if not drop_rest and (h % p or w % q):
        raise ConfigError(f"patch_size: patches of {p} x {q} pixels do not divide an image of {h} x {w}")
    return h // p, w // q
