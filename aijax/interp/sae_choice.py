"""What sparse autoencoders make of a batch, and how from the few latents that were chosen alone."""

import dataclasses

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.interp.sae_terms import row_norms
from aijax.interp.sparse_codes import products_at, sparse_product
from aijax.typing import Any, Array, Float, Int, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SAEOutput:
    """What a sparse autoencoder makes of a batch.

    Args:
      pre_activations: h, `[n, m]`, before latents are chosen.
      latents: a, `[n, m]`.
      reconstruction: y, `[n, d_out]`.
      fired: which latents are active on some row, `[m]`.
      l0: active latents of a row, on average.
      least: the least latent that is active; infinity where none is.
      losses: `loss` and the terms that it is the sum of, by name.
    """

    pre_activations: Array
    latents: Array
    reconstruction: Array
    fired: Array
    l0: Array
    least: Array
    losses: dict[str, Array]


def centre_of(architecture: Any, params: Params, x: Float[Array, "... d"]) -> Float[Array, " d"]:
    """Returns what is taken off the input of the encoder: the decoder's bias, or zeros."""
    bias = params["decoder_bias"]
    if not architecture.centre:
        return jnp.zeros_like(bias, shape=x.shape[-1:])
    return bias


def check_k(architecture: Any, params: Params) -> None:
    """Raises a `ConfigError` for more chosen latents than there are."""
    if architecture.k > (width := len(params["encoder"])):
        raise ConfigError(f"k: expected at most the {width} latents, got {architecture.k}")


def scored(architecture: Any, params: Params, x: Float[Array, "... d"]) -> tuple[Array, Array, Array]:
    """Returns the inputs of the encoder, a row each, by what their latents are chosen, and the norms in that."""
    inputs = (x - centre_of(architecture, params, x)).reshape(-1, x.shape[-1])
    bias = params["encoder_bias"]
    norms = row_norms(params["decoder"]) if architecture.rescale else jnp.ones_like(bias)
    return inputs, jax.lax.stop_gradient((inputs @ params["encoder"].T + bias) * norms), norms


def from_chosen(
    architecture: Any,
    params: Params,
    x: Float[Array, "... d"],
    inputs: Float[Array, "n d"],
    norms: Float[Array, " m"],
    indices: Int[Array, "e k"],
    rows: Int[Array, "e k"] | None = None,
) -> SAEOutput:
    """Returns what is made of a batch from the latents at `indices`; an entry whose row there is not counts
    nothing.

    Latents are h_j |D_j| and their rows D_j / |D_j|: the norms serve the choice, and cancel in the sum.
    """
    count, width, lead = len(inputs), len(norms), x.shape[:-1]
    values = jax.nn.relu(products_at(inputs, indices, params["encoder"], rows) + params["encoder_bias"][indices])
    values = values if rows is None else jnp.where(rows < count, values, 0)
    latents, sums = values * norms[indices], sparse_product(values, indices, params["decoder"], rows, count)
    at = (jnp.arange(count)[:, None] if rows is None else rows), indices
    return SAEOutput(
        pre_activations=architecture.pre_activations(params, x),
        latents=jnp.zeros((count, width), values.dtype).at[at].set(latents, mode="drop").reshape(*lead, width),
        reconstruction=sums.reshape(*lead, -1) + params["decoder_bias"],
        fired=jnp.zeros(width, bool).at[indices].max(values > 0),
        l0=jnp.sum(values > 0, dtype=values.dtype) / count,
        least=jnp.min(jnp.where(values > 0, latents, jnp.inf)),
        losses={},
    )
