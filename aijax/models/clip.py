"""Two encoders that put images and texts into one space (Radford et al. 2021; Zhai et al. 2023).

    u = W_u vision(image),   v = W_v text(tokens),   each of length one;      logits_ij = e^s u_i . v_j (+ b)

The scale e^s, an inverse temperature, is learned; with the sigmoid loss so is the bias b. The losses are those of
`aijax.losses`, which has them also over a mesh (`ring_softmax_contrastive_loss`) and for large batches on few devices
(`encode_in_parts`): these take the features of `encode_image` and `encode_text`.
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from aijax.errors import choose
from aijax.losses import normalize, sigmoid_contrastive_loss, softmax_contrastive_loss
from aijax.models.text import TextEncoder
from aijax.parallel import keep_batch_split
from aijax.typing import Array, Bool, Float, Int

LOSSES = {"softmax": False, "sigmoid": True}


class CLIP(nn.Module):
    """A dual encoder: images and tokens -> a dictionary with their features and the loss of their pairs.

    Attributes:
      vision_encoder: images -> features `[b, d]`, such as a `ViT` without classes.
      text_encoder: tokens -> features `[b, d]` or `aijax.models.text.TextFeatures`, such as a `TextEncoder`.
      embed_dim: width of the common space, to which a linear layer without bias takes what each encoder gives. A text
        encoder with a projection of its own has no such layer; None for none at all.
      loss: "softmax" (CLIP) or "sigmoid" (SigLIP).
      temperature: first value of e^-s; None for 0.07 with "softmax" and 0.1 with "sigmoid".
      bias: first value of b, for "sigmoid".
      published_as: the published class that it was read as, and as which it is saved.
      dtype, param_dtype: of the projections, see `aijax.models.block_spec.BlockSpec`.

    >>> import jax
    >>> from aijax.models import TextEncoder, ViT
    >>> text = TextEncoder(vocab_size=9, context_length=6, width=8, depth=1, num_heads=2)
    >>> model = CLIP(ViT(patch_size=4, embed_dim=8, depth=1, num_heads=2), text, embed_dim=5)
    >>> inputs = jnp.ones((3, 8, 8, 3)), jnp.ones((3, 6), int)
    >>> out = jax.eval_shape(model.init_with_output, jax.random.key(0), *inputs)[0]
    >>> out["image_features"].shape, out["loss"].shape
    ((3, 5), ())
    """

    vision_encoder: nn.Module
    text_encoder: nn.Module
    embed_dim: int | None = 512
    loss: Literal["softmax", "sigmoid"] = "softmax"
    temperature: float | None = None
    bias: float = -10.0
    published_as: str | None = None
    dtype: Any = None
    param_dtype: Any = "float32"

    def setup(self):
        sigmoid = choose(LOSSES, self.loss, "loss")
        temperature = self.temperature or (0.1 if sigmoid else 0.07)
        dtype = jnp.dtype(self.param_dtype)
        self.log_scale = self.param("log_scale", nn.initializers.constant(-math.log(temperature)), (), dtype)
        if sigmoid:
            self.logit_bias = self.param("logit_bias", nn.initializers.constant(self.bias), (), dtype)
        if self.embed_dim is not None:
            self.vision_projection = self._projection()
            if getattr(self.text_encoder, "projection_width", None) is None:
                self.text_projection = self._projection()

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        tokens: Int[Array, "b t"],
        *,
        token_mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
        **how: Any,
    ) -> dict[str, Array]:
        """Returns `image_features` and `text_features`, each `[b, d]` and of length one, `logits` `[b, b]` for each
        image and text, `scale` and, of a sigmoid loss, `bias`; for as many images as texts `loss` and `accuracy`, the
        share of images whose own text is the nearest. Inside `jit`, what is not used is not computed.

        Args:
          images, tokens: pairs.
          token_mask: True for tokens that may be attended to, default all.
          train: dropout and stochastic depth are on; they need the "dropout" rng.
          **how: of the vision encoder.
        """
        image = self.encode_image(images, train=train, **how)
        text = self.encode_text(tokens, mask=token_mask, train=train)
        image, text = nn.dtypes.promote_dtype(image, text)
        scale = jnp.exp(self.log_scale)
        sigmoid = choose(LOSSES, self.loss, "loss")
        logits = scale * image @ text.T
        found = {"image_features": image, "text_features": text, "scale": scale}
        if sigmoid:
            found["bias"] = self.logit_bias
            logits = logits + self.logit_bias
        found["logits"] = logits
        if len(image) == len(text):
            of_pairs = sigmoid_contrastive_loss if sigmoid else softmax_contrastive_loss
            found["loss"] = of_pairs(image, text, scale, *((self.logit_bias,) if sigmoid else ()))
            found["accuracy"] = jnp.mean(jnp.argmax(logits, axis=1) == jnp.arange(len(image)), dtype=logits.dtype)
        return found

    def encode_image(self, images: Float[Array, "b h w c"], *, unit: bool = True, **how: Any) -> Float[Array, "b d"]:
        """Returns the features of images, of length one unless `unit` is False; `how` goes to the encoder."""
        features = self.vision_encoder(images, **how)
        features = features if self.embed_dim is None else self.vision_projection(features)
        return keep_batch_split(normalize(features) if unit else features)

    def encode_text(self, tokens: Int[Array, "b t"], *, unit: bool = True, **how: Any) -> Float[Array, "b d"]:
        """Returns the features of texts, of length one unless `unit` is False; `how` goes to the encoder."""
        if isinstance(self.text_encoder, TextEncoder):
            how = {"with_features": False} | how
        features = self.text_encoder(tokens, **how)
        features = getattr(features, "pooled", features)
        if self.embed_dim is not None and getattr(self.text_encoder, "projection_width", None) is None:
            features = self.text_projection(features)
        return keep_batch_split(normalize(features) if unit else features)

    def _projection(self):
        return nn.Dense(self.embed_dim, use_bias=False, dtype=self.dtype, param_dtype=self.param_dtype)
