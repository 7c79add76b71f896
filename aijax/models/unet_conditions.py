"""What a UNet is told beside the image: the time, a class, texts and sizes, as one vector for all residual blocks.

    e = MLP(sines and cosines of t) + class embedding + MLP(pooled text, sines and cosines of sizes) + pooled context

The MLP is W_2 act(W_1 .). The sines are at fixed frequencies (Ho et al. 2020), or at random ones of ln t (Song et al.
2021), or a table is learned. Sizes beside a pooled text are those of Podell et al. (2023, section 2.2). A context is
pooled by attention of its mean to it (Saharia et al. 2022, section 2.3).
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.models.attention import attend
from aijax.models.embeddings import sinusoidal_embedding
from aijax.models.resnet import IMAGE_ACTIVATIONS
from aijax.typing import Array, Float


@dataclasses.dataclass(frozen=True)
class Conditions:
    """How a UNet embeds what it is told.

    Attributes:
      time_width: of the embedding of the time and of their sum.
      time: "positional" (sines and cosines of t), "fourier" (of 2 pi w t, w drawn once), "log_fourier" (of
        2 pi w ln t) or "learned" (a table for t = 0, 1, ...).
      time_features: sines and cosines together, or the width of the table.
      cosine_first: whether cosines come first.
      frequency_shift: "downscale_freq_shift" of the published embedding.
      time_scale: by which positional times are multiplied, such as 1000 for times from 0 to 1.
      num_times: rows of the table.
      activation: of the MLP of the time.
      time_activation_after, activation_after: applied to the time's embedding and to the sum; None for nothing.
      class_labels: "none", "label" (a table for classes), "timestep" (as a time), "identity" (an embedding is given),
        "projection" (a vector is given to an MLP) or "simple_projection" (to one layer).
      num_classes: rows of the table of classes.
      concatenate_class: whether the class stands beside the time rather than being added.
      size_features: sines and cosines of each size; None where no text and sizes are told.
      pool_heads: heads of the attention that pools a context into the embedding; None leaves it out.
      context_projection: width to which a context is projected by one layer; None leaves it.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.
    """

    time_width: int
    time: Literal["positional", "fourier", "log_fourier", "learned"] = "positional"
    time_features: int = 64
    cosine_first: bool = True
    frequency_shift: float = 0.0
    time_scale: float = 1.0
    num_times: int | None = None
    activation: str = "silu"
    time_activation_after: str | None = None
    activation_after: str | None = None
    class_labels: Literal["none", "label", "timestep", "identity", "projection", "simple_projection"] = "none"
    num_classes: int | None = None
    concatenate_class: bool = False
    size_features: int | None = None
    pool_heads: int | None = None
    context_projection: int | None = None
    dtype: Any = None
    param_dtype: Any = "float32"

    def dtypes(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


class TimestepEmbedding(nn.Module):
    """An MLP of two layers; `condition` is added to its input after a layer without bias (Meng et al. 2023)."""

    width: int
    activation: str = "silu"
    activation_after: str | None = None
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b f"], condition: Float[Array, "b g"] | None = None) -> Float[Array, "b e"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if condition is not None:
            x = x + nn.Dense(x.shape[-1], use_bias=False, name="cond_proj", **dtypes)(condition)
        x = activate(self.activation, nn.Dense(self.width, name="linear_1", **dtypes)(x))
        return activate(self.activation_after, nn.Dense(self.width, name="linear_2", **dtypes)(x))


class FourierFeatures(nn.Module):
    """sin(2 pi w t) and cos(2 pi w t) with fixed random w, drawn from N(0, scale^2) (Tancik et al. 2020)."""

    features: int
    scale: float
    cosine_first: bool = False
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, t: Float[Array, " b"]) -> Float[Array, "b f"]:
        draw = nn.initializers.normal(self.scale)
        frequencies = jax.lax.stop_gradient(self.param("weight", draw, (self.features // 2,), self.param_dtype))
        angles = 2 * jnp.pi * t[:, None] * frequencies
        parts = (jnp.cos(angles), jnp.sin(angles)) if self.cosine_first else (jnp.sin(angles), jnp.cos(angles))
        return jnp.concatenate(parts, -1)


class PooledContext(nn.Module):
    """A context [b, s, d] -> [b, width]: what its mean attends to in it, normalised before and after.

    Attributes:
      width: of the result.
      num_heads: of the attention.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.

    Source: Saharia et al. 2022, section 2.3.
    """

    width: int
    num_heads: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, context: Float[Array, "b s d"]) -> Float[Array, "b e"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def norm(name):
            return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name, **dtypes)

        y = AttentionPool(self.num_heads, name="pool", **dtypes)(norm("norm1")(context))
        return norm("norm2")(nn.Dense(self.width, name="proj", **dtypes)(y))


class AttentionPool(nn.Module):
    """Attention of the mean of vectors, moved by a learned one, to itself and to them: [b, s, d] -> [b, d].

    Attributes:
      num_heads: of the attention, a divisor of d.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.
    """

    num_heads: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"]) -> Float[Array, "b d"]:
        width = x.shape[-1]
        if width % self.num_heads:
            raise ConfigError(f"addition_embed_type_num_heads: expected a divisor of {width}, got {self.num_heads}")
        draw = nn.initializers.normal(width**-0.5)
        place = self.param("positional_embedding", draw, (1, width), self.param_dtype)
        mean = x.mean(1, keepdims=True) + place.astype(x.dtype)
        x = jnp.concatenate([mean, x], 1)

        def project(name, y):
            y = nn.Dense(width, dtype=self.dtype, param_dtype=self.param_dtype, name=name)(y)
            return y.reshape(*y.shape[:-1], self.num_heads, -1)

        y = attend(project("q_proj", mean), project("k_proj", x), project("v_proj", x), causal=False)
        return y.reshape(-1, width)


def embed_conditions(
    conditions: Conditions,
    t: Float[Array, " b"],
    dtype: Any,
    class_labels: Array | None,
    text_embeds: Float[Array, "b e"] | None,
    time_ids: Float[Array, "b s"] | None,
    time_condition: Float[Array, "b g"] | None,
    context: Float[Array, "b s d"] | None,
) -> Float[Array, "b e"]:
    """Returns the vector that all residual blocks are told, made by layers of the module that calls it.

    Raises:
      ConfigError: something is told that the network has no place for, or not told that it needs.
    """
    told, dtypes = conditions, conditions.dtypes()
    time_features = _time_features(told)
    features = time_features(t).astype(dtype)
    acts = (told.activation, told.time_activation_after)
    e = TimestepEmbedding(told.time_width, *acts, name="time_embedding", **dtypes)(features, time_condition)
    if (class_labels is None) != (told.class_labels == "none"):
        expected = "none, as the network has no classes" if told.class_labels == "none" else "one for each image"
        raise ConfigError(f"class_labels: expected {expected}, got {'none' if class_labels is None else 'some'}")
    if class_labels is not None:
        label = _embed_class(told, time_features, jnp.asarray(class_labels), dtype)
        e = jnp.concatenate([e, label], -1) if told.concatenate_class else e + label
    if told.size_features is not None:
        if text_embeds is None or time_ids is None:
            raise ConfigError("text_embeds, time_ids: expected both, as the network is told a pooled text and sizes")
        sizes = _sinusoids(told, time_ids.reshape(-1), told.size_features).reshape(time_ids.shape[0], -1)
        added = jnp.concatenate([text_embeds, sizes.astype(dtype)], -1)
        e = e + TimestepEmbedding(told.time_width, name="add_embedding", **dtypes)(added)
    elif text_embeds is not None or time_ids is not None:
        raise ConfigError("text_embeds, time_ids: expected none, as the network has no place for them")
    if told.pool_heads is not None:
        e = e + PooledContext(told.time_width, told.pool_heads, name="add_embedding", **dtypes)(context)
    return activate(told.activation_after, e)


def activate(name: str | None, x: Array) -> Array:
    """Returns the activation of that name of x, or x."""
    return x if name is None else choose(IMAGE_ACTIVATIONS, name, "act_fn")(x)


def _time_features(told):
    """The function that gives the features of times, with the layer that it needs."""
    if told.time == "positional":
        return lambda t: _sinusoids(told, t, told.time_features)
    if told.time == "learned":
        table = nn.Embed(told.num_times, told.time_features, param_dtype=told.param_dtype, name="time_proj")
        return lambda t: table(t.astype(jnp.int32))
    if told.time == "log_fourier":
        waves = FourierFeatures(told.time_features, 16.0, param_dtype=told.param_dtype, name="time_proj")
        return lambda t: waves(jnp.log(t))
    choose({"fourier": None}, told.time, "time_embedding_type")
    return FourierFeatures(told.time_features, 1.0, told.cosine_first, told.param_dtype, name="time_proj")


def _sinusoids(told, t, width):
    return sinusoidal_embedding(
        t, width, cosine_first=told.cosine_first, shift=told.frequency_shift, scale=told.time_scale
    )


def _embed_class(told, time_features, labels, dtype):
    dtypes = told.dtypes()
    if told.class_labels == "label":
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ConfigError(f"class_labels: expected integers, got {labels.dtype}")
        return nn.Embed(told.num_classes, told.time_width, name="class_embedding", **dtypes)(labels)
    if told.class_labels == "timestep":
        mlp = TimestepEmbedding(told.time_width, told.activation, name="class_embedding", **dtypes)
        return mlp(time_features(labels).astype(dtype))
    if told.class_labels == "projection":
        return TimestepEmbedding(told.time_width, name="class_embedding", **dtypes)(labels)
    if told.class_labels == "simple_projection":
        return nn.Dense(told.time_width, name="class_embedding", **dtypes)(labels)
    choose({"identity": None}, told.class_labels, "class_embed_type")
    return labels.astype(dtype)
