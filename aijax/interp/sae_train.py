"""Training of sparse autoencoders: one step as a pure function, for one site of a model or for many at once.

A latent that has not been active for `dead_after` steps counts as dead: the kinds that have a loss to revive dead
latents are given them, and `resample_dead` begins them anew. Where the penalty would let latents shrink and rows of the
decoder grow, the rows are kept at norm 1: the gradient along a row is taken out, and the row made 1 long again after
the step (T. Bricken et al., Towards monosemanticity (2023), appendix "Advice for training").

    step = make_sae_step(TopK(k=32), optax.adam(1e-3), dead_after=500)
    state, metrics = step(state, {"x": activations}, key)

is a step of `aijax.train.train`; latents are resampled between two runs of the loop. For K sites `x` is `[K, n, d]`,
the state is that of K autoencoders, and `sites=True`; with a mesh the sites are split over its devices, which then need
not talk to each other.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from aijax.errors import ConfigError
from aijax.interp.sae import sae_loss
from aijax.interp.sae_quality import explained_variance
from aijax.interp.sae_terms import row_norms
from aijax.typing import Any, Array, Batch, Callable, Float, Metrics, Params, PRNGKey


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SAEState:
    """What the training of an autoencoder carries from step to step; of several, each field has their axis first.

    Args:
      step: updates made, int32.
      params: the weights.
      opt_state: the optimiser's state.
      idle: steps since each latent was last active, int32 `[m]`.
      threshold: moving average of the least latent above 0, for `as_jump_relu`.
    """

    step: Array
    params: Params
    opt_state: Any
    idle: Array
    threshold: Array


def init_sae_state(params: Params, optimizer: optax.GradientTransformation) -> SAEState:
    """Returns the state before the first step; for several autoencoders, to be mapped by `jax.vmap`."""
    width, dtype = params["decoder"].shape[0], params["decoder"].dtype
    return SAEState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        idle=jnp.zeros(width, jnp.int32),
        threshold=jnp.zeros((), dtype),
    )


def sae_step(
    architecture: Any,
    optimizer: optax.GradientTransformation,
    state: SAEState,
    x: Float[Array, "n d_in"],
    target: Float[Array, "n d_out"] | None = None,
    *,
    dead_after: int | None = None,
    unit_rows: bool = False,
    threshold_rate: float = 0.01,
) -> tuple[SAEState, Metrics]:
    """Returns the state after one update, and the losses, l0, explained variance and share of dead latents before it.

    Args:
      architecture: a kind, such as `TopK(k=32)`, or a function of the step that gives one, for a coefficient that is
        raised by and by: `lambda step: L1(0.1 * jnp.minimum(step / 1000, 1))`.
      optimizer: the update rule.
      state: as `init_sae_state` makes it.
      x: activations.
      target: of a transcoder.
      dead_after: steps without activity after which a latent counts as dead; default: none does.
      unit_rows: keep the rows of the decoder at norm 1.
      threshold_rate: of the moving average `threshold`.

    Raises:
      ConfigError: as `sae_loss`.
    """
    architecture = architecture(state.step) if callable(architecture) else architecture
    dead = None if dead_after is None else state.idle >= dead_after
    gradient = jax.grad(lambda params: sae_loss(architecture, params, x, target, dead=dead), has_aux=True)
    slopes, output = gradient(state.params)
    if unit_rows:
        slopes = slopes | {"decoder": without_radial(slopes["decoder"], state.params["decoder"])}
    updates, opt_state = optimizer.update(slopes, state.opt_state, state.params)
    params = _constrained(optax.apply_updates(state.params, updates), unit_rows)
    moved = state.threshold + threshold_rate * (output.least - state.threshold)
    metrics = output.losses | {
        "l0": output.l0,
        "explained_variance": explained_variance(output.reconstruction, x if target is None else target),
    }
    if dead is not None:
        metrics["dead_share"] = jnp.mean(dead, dtype=jnp.float32)
    return SAEState(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        idle=jnp.where(output.fired, 0, state.idle + 1),
        threshold=jnp.where(jnp.isfinite(output.least), moved, state.threshold).astype(state.threshold.dtype),
    ), metrics


def make_sae_step(
    architecture: Any,
    optimizer: optax.GradientTransformation,
    *,
    sites: bool = False,
    mesh: Mesh | None = None,
    **options: Any,
) -> Callable[[SAEState, Batch, PRNGKey], tuple[SAEState, Metrics]]:
    """Returns `step(state, batch, key) -> (state, metrics)` for the train loop, with batches of `x` and, for
    transcoders, `target`.

    Args:
      architecture: as of `sae_step`; with `sites`, a kind's coefficients may have the sites' axis.
      optimizer: the update rule.
      sites: whether state, `x` and `target` have an axis of sites before all others. Metrics are means over the sites,
        and those of each are named `site_0/loss` and so on.
      mesh: with `sites`, the devices that they are split over, along all of its axes.
      **options: of `sae_step`.

    Raises, when it is called:
      ConfigError: as `sae_loss`, and a number of sites that the devices do not divide.
    """

    def step(kind, state, x, target):
        return sae_step(architecture if kind is None else kind, optimizer, state, x, target, **options)

    if not sites:
        return lambda state, batch, key: step(None, state, batch["x"], batch.get("target"))

    def many(state, batch, key):
        x, target = batch["x"], batch.get("target")
        count = x.shape[0]
        kind = None if callable(architecture) else architecture
        mapped = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count,)), kind)
        if count != len(state.step):
            raise ConfigError(f"x: expected activations of {len(state.step)} sites, got {x.shape}")
        run = jax.vmap(step)
        if mesh is not None:
            if count % mesh.size:
                raise ConfigError(f"x: {count} sites cannot be split evenly over {mesh.size} devices")
            run = jax.shard_map(
                run, mesh=mesh, in_specs=P(mesh.axis_names), out_specs=P(mesh.axis_names), check_vma=False
            )
        state, metrics = run(mapped, state, x, target)
        each = {f"site_{i}/{name}": value[i] for name, value in metrics.items() for i in range(count)}
        return state, {name: jnp.mean(value) for name, value in metrics.items()} | each

    return many


def resample_dead(
    key: PRNGKey,
    architecture: Any,
    optimizer: optax.GradientTransformation,
    state: SAEState,
    x: Float[Array, "n d_in"],
    target: Float[Array, "n d_out"] | None = None,
    *,
    dead_after: int,
    encoder_scale: float = 0.2,
) -> SAEState:
    """Returns the state with dead latents begun anew, each on an example that is reconstructed badly.

    An example is drawn with probability in proportion to its squared loss. Less the decoder's bias, its direction is
    the latent's row of the decoder, as long as living rows are, and its row of the encoder, `encoder_scale` times as
    long as living ones are; the biases and the optimiser's moments of the latent become 0.

    Args:
      key: of the draw.
      architecture, optimizer, state, x, target: as of `sae_step`; many rows of x, for the losses to tell.
      dead_after: steps without activity after which a latent counts as dead.
      encoder_scale: how faint the new latents are at first.

    Source: Bricken et al. (2023), appendix "Neuron resampling".
    """
    params = state.params
    dead = state.idle >= dead_after
    wanted = x if target is None else target
    _, output = sae_loss(architecture, params, x, target)
    losses = jnp.sum((output.reconstruction - wanted) ** 2, axis=-1)
    total = jnp.sum(losses**2)
    shares = jnp.where(total > 0, losses**2 / jnp.where(total > 0, total, 1), 1 / len(x))
    chosen = jax.random.choice(key, len(x), dead.shape, p=shares)
    inputs = x - params["decoder_bias"] if architecture.centre else x
    like = ~dead | jnp.all(dead)  # where none lives, rows are as long as those of the dead
    lengths = {name: jnp.mean(row_norms(params[name]), where=like) for name in ("encoder", "decoder")}
    fresh = jax.tree.map(jnp.zeros_like, params) | {
        "decoder": lengths["decoder"] * _unit((wanted - params["decoder_bias"])[chosen]),
        "encoder": encoder_scale * lengths["encoder"] * _unit(inputs[chosen]),
    }
    fresh |= {name: params[name] for name in ("decoder_bias", "threshold") if name in params}
    masks = {name: dead[:, None] if name in ("encoder", "decoder") else dead for name in params}
    masks["decoder_bias"] = jnp.zeros((), bool)
    masks = {name: jnp.broadcast_to(mask, params[name].shape) for name, mask in masks.items()}
    opt_state = optax.tree_utils.tree_map_params(
        optimizer, lambda moment, mask: jnp.where(mask, 0, moment), state.opt_state, masks
    )
    return dataclasses.replace(
        state,
        params=jax.tree.map(jnp.where, masks, fresh, params),
        opt_state=opt_state,
        idle=jnp.where(dead, 0, state.idle),
    )


def without_radial(slopes: Float[Array, "m d"], rows: Float[Array, "m d"]) -> Float[Array, "m d"]:
    """Returns the gradient by rows without its part along each row."""
    directions = _unit(rows)
    return slopes - jnp.sum(slopes * directions, axis=-1, keepdims=True) * directions


def expected_norm_scale(x: Float[Array, "n d"]) -> Float[Array, ""]:
    """Returns the number that makes the mean norm of activations sqrt(d), the length at which losses and coefficients
    of different sites compare (Conerly et al., Update on how we train SAEs (2024)).

    >>> round(float(expected_norm_scale(jnp.array([[3.0, 4.0]])) ** 2), 4)
    0.08
    """
    return jnp.sqrt(jnp.array(x.shape[-1], x.dtype)) / jnp.mean(row_norms(x))


def fold_scale(params: Params, scale: Array, target_scale: Array | None = None) -> Params:
    """Returns the weights for activations as they are of an autoencoder trained on `scale * x`.

    Args:
      params: the weights.
      scale: what x was multiplied by.
      target_scale: of a transcoder, what the target was multiplied by.
    """
    target_scale = scale if target_scale is None else target_scale
    return params | {
        "encoder": params["encoder"] * scale,
        "decoder": params["decoder"] / target_scale,
        "decoder_bias": params["decoder_bias"] / target_scale,
    }


def _constrained(params, unit_rows):
    if unit_rows:
        params = params | {"decoder": _unit(params["decoder"])}
    if "threshold" in params:
        params = params | {"threshold": jnp.maximum(params["threshold"], 0)}
    return params


def _unit(rows):
    norms = row_norms(rows)[..., None]
    return rows / jnp.where(norms > 0, norms, 1)
