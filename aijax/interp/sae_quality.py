"""How good a sparse autoencoder is: by itself, and in the place of the activation that it reconstructs.

    explained variance   1 - mean |x - y|^2 / mean |x - mean x|^2
    L0                   mean number of active latents
    loss recovered       (L_zero - L_sae) / (L_zero - L)

with L the model's loss, L_sae its loss with y in the place of x, and L_zero with zeros there: 1 where nothing is lost,
0 where the reconstruction is worth no more than zeros (T. Bricken et al. (2023), appendix "Ablation metrics").
"""

import dataclasses

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.interp.capture import capture, intervene
from aijax.interp.sae import sae_decode, sae_encode
from aijax.interp.sae_terms import squared_error
from aijax.typing import Any, Array, Callable, Float, Mapping, Params, PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SAEQuality:
    """How an autoencoder does on a set of activations.

    Args:
      l0: active latents of a row, on average.
      explained_variance: of the target.
      mse: squared error summed over the width, mean over rows.
      dead_share: share of the latents active on none of the rows.
      frequencies: share of the rows on which each latent is active, `[m]`.
    """

    l0: Array
    explained_variance: Array
    mse: Array
    dead_share: Array
    frequencies: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossRecovered:
    """What of a model's loss is left with a reconstruction in the place of an activation.

    Args:
      clean: the loss of the model.
      spliced: with the reconstruction.
      zeroed: with zeros.
      recovered: `(zeroed - spliced) / (zeroed - clean)`.
    """

    clean: Array
    spliced: Array
    zeroed: Array
    recovered: Array


def sae_quality(
    architecture: Any, params: Params, x: Float[Array, "n d_in"], target: Float[Array, "n d_out"] | None = None
) -> SAEQuality:
    """Returns the measures of an autoencoder, or of a transcoder with its target, on rows x.

    Raises:
      ConfigError: activations of another width than the encoder.
    """
    target = x if target is None else target
    latents = sae_encode(architecture, params, x)
    reconstruction = sae_decode(architecture, params, latents)
    frequencies = jnp.mean(latents > 0, axis=0, dtype=x.dtype)
    return SAEQuality(
        l0=jnp.sum(frequencies),
        explained_variance=explained_variance(reconstruction, target),
        mse=squared_error(reconstruction, target),
        dead_share=jnp.mean(frequencies == 0, dtype=x.dtype),
        frequencies=frequencies,
    )


def explained_variance(reconstruction: Float[Array, "n d"], target: Float[Array, "n d"]) -> Float[Array, ""]:
    """Returns `1 - mean |x - y|^2 / mean |x - mean x|^2`.

    >>> float(explained_variance(jnp.array([[1.0], [2.0]]), jnp.array([[1.0], [3.0]])))
    0.5
    """
    return 1 - squared_error(reconstruction, target) / squared_error(jnp.mean(target, axis=0), target)


def splice_sae(apply_fn: Callable, saes: Mapping[str, tuple[Any, Params]]) -> Callable:
    """Returns the function with reconstructions in the places of activations.

    Args:
      apply_fn: such as `apply_fn(params, x)`.
      saes: name of the activation (a pattern, as of `intervene`) to `(architecture, params)`, or to
        `(architecture, params, input name)` for a transcoder of another activation, as it
        is without changes.

    Raises, when it is called:
      ConfigError: a name that matches nothing, activations of another width.
    """

    def run(*args, **kwargs):
        changes = {}
        for name, (architecture, params, *source) in saes.items():
            changes[name] = change = _reconstruction(architecture, params)
            if source:
                _, values = capture(apply_fn, source)(*args, **kwargs)
                if len(values) != 1:
                    raise ConfigError(f"{source[0]}: expected the name of one value, and it is of {', '.join(values)}")
                made = change(*values.values())
                changes[name] = lambda old, made=made: made.astype(old.dtype)
        return intervene(apply_fn, changes)(*args, **kwargs)

    return run


def loss_recovered(loss_fn: Callable[..., Array], saes: Mapping[str, tuple], *args: PyTree) -> LossRecovered:
    """Returns what of the loss the reconstructions keep.

    Args:
      loss_fn: the model's loss, such as `loss_fn(params, batch)`; it must run the model, so that the names are there.
      saes: as of `splice_sae`.
      args: of the loss.
    """
    clean = loss_fn(*args)
    spliced = splice_sae(loss_fn, saes)(*args)
    zeroed = intervene(loss_fn, dict.fromkeys(saes, jnp.zeros_like))(*args)
    return LossRecovered(clean, spliced, zeroed, (zeroed - spliced) / (zeroed - clean))


def _reconstruction(architecture, params):
    def change(value):
        latents = sae_encode(architecture, params, value)
        return sae_decode(architecture, params, latents).astype(value.dtype)

    return change
