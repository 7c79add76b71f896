"""Self-attention over all positions, with infinitely many heads and channels.

Each head has z = f(Q K^T / d^a) V, for queries, keys and values of random weights, and the output is their sum over
heads with random weights and a bias. (Hron, Bahri, Sohl-Dickstein and Novak 2020, "Infinite attention: NNGP and NTK for
deep attention networks".) With s = (W_value_std W_out_std)^2, w = W_query_std W_key_std, C and S the covariance and the
tangent kernel of the inputs as the values see them, and D, U as queries and keys see them:

* a = 1 and queries that share the keys' weights (`linear_scaling`): the logits tend to w D(x, x), and with G = f of it

      nngp <- s G C G'^T + b^2,        ntk <- s G S G'^T + 2 s G C G'^T + b^2.

* a = 1/2: the logits stay Gaussian, of covariance w^2 D[p, p'] D[r, r'], and for f the identity

      nngp <- m <D, C> D + b^2,        ntk <- m (4 <D, C> D + <D, C> U + (<U, C> + <D, S>) D) + b^2,

  with m = s w^2 and <A, B> = sum_{r, r'} A[r, r'] B[r, r']: four weights, and the inputs by way of each of the three.
"""

import enum
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, did_you_mean
from aijax.ntk.stax.kernel import Kernel, diagonal
from aijax.ntk.stax.layer import Layer, layer, standard_normal
from aijax.ntk.stax.linear import check_stds
from aijax.ntk.stax.masking import all_masked, supports_masking
from aijax.ntk.stax.positions import Positions
from aijax.ntk.stax.requirements import Bool, Diagonal, requires
from aijax.typing import Array


class AttentionMechanism(enum.StrEnum):
    """What is made of the logits; `GlobalSelfAttention` takes the name or the member."""

    SOFTMAX = "SOFTMAX"
    IDENTITY = "IDENTITY"
    ABS = "ABS"
    RELU = "RELU"


@layer
@supports_masking(remask_kernel=True)
def GlobalSelfAttention(
    n_chan_out: int,
    n_chan_key: int,
    n_chan_val: int,
    n_heads: int,
    linear_scaling: bool = True,
    W_key_std: float = 1.0,
    W_value_std: float = 1.0,
    W_query_std: float = 1.0,
    W_out_std: float = 1.0,
    b_std: float | None = None,
    attention_mechanism: str = "SOFTMAX",
    pos_emb_type: str = "NONE",
    pos_emb_p_norm: float = 2,
    pos_emb_decay_fn: Callable[[Array], Array] | None = None,
    n_chan_pos_emb: int | None = None,
    W_pos_emb_std: float = 1.0,
    val_pos_emb: bool = False,
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Returns the layer of self-attention; all positions of the input, of any spatial rank, attend to all.

    Args:
      n_chan_out: channels of the output.
      n_chan_key: channels of a head's keys and queries.
      n_chan_val: channels of a head's values.
      n_heads: number of heads.
      linear_scaling: divide logits by `n_chan_key` and let queries share the keys' weights; otherwise divide by its
        square root, with weights of their own.
      W_key_std, W_value_std, W_query_std, W_out_std: standard deviations of the weights.
      b_std: that of the bias of the output; None for no bias.
      attention_mechanism: "SOFTMAX", "IDENTITY", "ABS" or "RELU", of the logits; the last three without normalising.
      pos_emb_type: "NONE", "SUM" or "CONCAT" (see `positions`).
      pos_emb_p_norm: power of the differences of coordinates in the distance between positions.
      pos_emb_decay_fn: covariance of embeddings as a function of that distance; None for independent ones.
      n_chan_pos_emb: channels that "CONCAT" adds; None for as many as the input has.
      W_pos_emb_std: standard deviation of the embeddings.
      val_pos_emb: values see the embeddings too, not only queries and keys.
      batch_axis: axis of the examples.
      channel_axis: axis of the channels.

    Padding (see `supports_masking`) is outside the softmax and has no embedding.

    Raises:
      ConfigError: numbers of channels or heads that are not positive, negative standard deviations, unknown names;
        for a kernel without `linear_scaling`, a mechanism other than "IDENTITY", for which no closed form is known.
    """
    counts = {"n_chan_out": n_chan_out, "n_chan_key": n_chan_key, "n_chan_val": n_chan_val, "n_heads": n_heads}
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"GlobalSelfAttention: {name}={value!r}, expected a positive number")
    check_stds(
        "GlobalSelfAttention",
        W_key_std=W_key_std,
        W_value_std=W_value_std,
        W_query_std=W_query_std,
        W_out_std=W_out_std,
        b_std=b_std,
        W_pos_emb_std=W_pos_emb_std,
    )
    if attention_mechanism not in list(AttentionMechanism):
        near = did_you_mean(str(attention_mechanism), AttentionMechanism)
        raise ConfigError(f"GlobalSelfAttention: unknown attention_mechanism {attention_mechanism!r}{near}")
    embedding = Positions(pos_emb_type, pos_emb_p_norm, pos_emb_decay_fn, n_chan_pos_emb, W_pos_emb_std)

    def flat(x: Array) -> tuple[Array, tuple[int, ...]]:
        """Activations as [n, P, c], and the sizes of the spatial axes."""
        x = jnp.moveaxis(x, (batch_axis, channel_axis), (0, -1))
        return x.reshape(x.shape[0], -1, x.shape[-1]), x.shape[1:-1]

    def init_fn(key, input_shape):
        ndim = len(input_shape)
        channels = input_shape[channel_axis]
        sizes = tuple(n for a, n in enumerate(input_shape) if a not in (batch_axis % ndim, channel_axis % ndim))
        seen = channels + embedding.added_channels(channels)
        keys = jax.random.split(key, 6)
        query = None if linear_scaling else standard_normal(keys[0], (n_heads, seen, n_chan_key))
        weights = (
            query,
            standard_normal(keys[1], (n_heads, seen, n_chan_key)),
            standard_normal(keys[2], (n_heads, seen if val_pos_emb else channels, n_chan_val)),
            standard_normal(keys[3], (n_heads, n_chan_val, n_chan_out)),
            None if b_std is None else standard_normal(keys[4], (n_chan_out,)),
            embedding.init(keys[5], sizes, channels),
        )
        return tuple(n_chan_out if a == channel_axis % ndim else n for a, n in enumerate(input_shape)), weights

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        query, key, value, out, bias, positions = params
        x, sizes = flat(inputs)
        kept = None if mask is None else ~_flat_mask(mask, inputs.shape, batch_axis, channel_axis)
        seen = embedding.apply(positions, x, sizes, None if kept is None else kept[..., None])
        values = seen if val_pos_emb else x

        def heads(z, w, std):
            return jnp.einsum("npc,hcd->nhpd", z, w) * (std / math.sqrt(z.shape[-1]))

        queries = heads(seen, key if query is None else query, W_query_std)
        logits = jnp.einsum("nhpd,nhrd->nhpr", queries, heads(seen, key, W_key_std))
        logits /= n_chan_key if linear_scaling else math.sqrt(n_chan_key)
        attended = _mechanism(attention_mechanism, logits, None if kept is None else kept[:, None, None])
        attended = attended @ heads(values, value, W_value_std)
        result = jnp.einsum("nhpd,hdo->npo", attended, out) * (W_out_std / math.sqrt(n_heads * n_chan_val))
        result = result if bias is None else result + b_std * bias
        return jnp.moveaxis(result.reshape(-1, *sizes, n_chan_out), (0, -1), (batch_axis, channel_axis))

    @requires(batch_axis=batch_axis, channel_axis=channel_axis, diagonal_spatial=Diagonal(Bool.NO, Bool.NO))
    def kernel_fn(kernel, **kwargs):
        if not linear_scaling and attention_mechanism != "IDENTITY":
            raise ConfigError(
                f"GlobalSelfAttention: no closed form is known for {attention_mechanism!r} without linear_scaling"
            )
        seen = _with_embedding(kernel, embedding)
        values = seen if val_pos_emb else kernel
        scale, width = (W_value_std * W_out_std) ** 2, W_query_std * W_key_std
        bias = 0 if b_std is None else b_std**2
        if linear_scaling:
            return _deterministic(values, seen, attention_mechanism, scale, width, bias)
        return _identity_attention(values, seen, scale * width**2, bias)

    def mask_fn(mask, input_shape):
        return all_masked(mask, channel_axis)

    return init_fn, apply_fn, kernel_fn, mask_fn


def _deterministic(values: Kernel, seen: Kernel, mechanism: str, scale, width, bias) -> Kernel:
    """The kernel after attention whose logits tend to numbers."""
    attention1 = _attention(seen, "cov1", seen.mask1, mechanism, width)
    attention2 = attention1 if seen.cov2 is None else _attention(seen, "cov2", seen.mask2, mechanism, width)
    sides = {
        "nngp": (attention1, attention2),
        "ntk": (attention1, attention2),
        "cov1": (attention1, attention1),
        "cov2": (attention2, attention2),
    }

    def attend(cov: Array, name: str) -> Array:
        """s G C G'^T."""
        left, right = sides[name]
        subscripts = "npr,nrt,nqt->npq" if values.is_diagonal_batch(name) else "npr,nmrt,mqt->nmpq"
        product = jnp.einsum(subscripts, left, _matrix(cov), right, precision=jax.lax.Precision.HIGHEST)
        return scale * _unmatrix(product, cov.shape)

    new = {n: attend(v, n) + bias for n in ("nngp", "cov1", "cov2") if (v := getattr(values, n)) is not None}
    if values.ntk is not None:
        inner = attend(values.ntk, "ntk") if jnp.ndim(values.ntk) else 0
        new["ntk"] = inner + 2 * new["nngp"] - bias
    return values.replace(**new, is_gaussian=True)


def _identity_attention(values: Kernel, seen: Kernel, scale, bias) -> Kernel:
    """The kernel after attention whose logits stay random, for the identity mechanism."""

    def inner(a: Array, b: Array, name: str) -> Array:
        first = 1 if values.is_diagonal_batch(name) else 2
        return jnp.sum(a * b, tuple(range(first, a.ndim)), keepdims=True)

    new = {}
    for name in ("nngp", "cov1", "cov2"):
        c, d = getattr(values, name), getattr(seen, name)
        if c is not None:
            new[name] = scale * inner(d, c, name) * d + bias
    if values.ntk is not None:
        c, d = values.nngp, seen.nngp
        s, u = (jnp.broadcast_to(k.ntk, c.shape) for k in (values, seen))
        both = inner(d, c, "ntk")
        new["ntk"] = scale * (both * (4 * d + u) + (inner(u, c, "ntk") + inner(d, s, "ntk")) * d) + bias
    return values.replace(**new, is_gaussian=True)


def _attention(seen: Kernel, name: str, mask: Array | None, mechanism: str, width) -> Array:
    """G [n, P, P] of each example, from its covariance with itself."""
    cov = getattr(seen, name)
    own = cov if seen.diagonal_batch else diagonal(cov, 0)
    shape = seen.shape1 if name == "cov1" else seen.shape2
    kept = None if mask is None else ~_flat_mask(mask, shape, seen.batch_axis, seen.channel_axis)
    return _mechanism(mechanism, width * _matrix(own), None if kept is None else kept[:, None])


def _mechanism(name: str, logits: Array, kept: Array | None) -> Array:
    """f of the logits [..., P, P]; entries whose last index is not `kept` are 0."""
    if name == "SOFTMAX":
        if kept is None:
            return jax.nn.softmax(logits)
        return jax.nn.softmax(logits, where=jnp.broadcast_to(kept, logits.shape), axis=-1)
    values = {"IDENTITY": lambda x: x, "ABS": jnp.abs, "RELU": jax.nn.relu}[name](logits)
    return values if kept is None else jnp.where(kept, values, 0)


def _with_embedding(kernel: Kernel, embedding: Positions) -> Kernel:
    if embedding.kind == "NONE":
        return kernel
    sizes = tuple(kernel.shape1[a] for a in kernel.spatial_axes)
    channels = kernel.shape1[kernel.channel_axis]
    r = embedding.covariance(sizes).astype(kernel.nngp.dtype)
    new = {}
    for name in ("nngp", "ntk", "cov1", "cov2"):
        value = getattr(kernel, name)
        if value is not None:
            value = jnp.broadcast_to(value, kernel.nngp.shape) if name == "ntk" else value
            new[name] = _unmatrix(embedding.embed(_matrix(value), r, channels), value.shape)
    return kernel.replace(**new).mask(kernel.mask1, kernel.mask2)


def _matrix(cov: Array) -> Array:
    """A covariance (..., H, H', W, W') as [..., P, P']; in front are one or two batch axes, as the rank tells."""
    batches = 2 - cov.ndim % 2
    rank = (cov.ndim - batches) // 2
    order = [*range(batches), *(batches + 2 * i + side for side in range(2) for i in range(rank))]
    size = math.prod(cov.shape[batches::2])
    return jnp.transpose(cov, order).reshape(*cov.shape[:batches], size, size)


def _unmatrix(matrix: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `_matrix` for a covariance of the given shape."""
    batches = 2 - len(shape) % 2
    sizes = shape[batches::2]
    split = matrix.reshape(*shape[:batches], *sizes, *sizes)
    rank = len(sizes)
    return jnp.transpose(
        split, [*range(batches), *(batches + i + rank * side for i in range(rank) for side in range(2))]
    )


def _flat_mask(mask: Array, shape: tuple[int, ...], batch_axis: int, channel_axis: int) -> Array:
    """Where positions are padding [n, P]: all their channels are."""
    masked = jnp.all(mask, axis=channel_axis, keepdims=True)
    masked = jnp.moveaxis(masked, (batch_axis, channel_axis), (0, -1))[..., 0]
    ndim = len(shape)
    sizes = [n for a, n in enumerate(shape) if a not in (batch_axis % ndim, channel_axis % ndim)]
    masked = jnp.broadcast_to(masked, (masked.shape[0], *sizes))
    return masked.reshape(masked.shape[0], -1)
