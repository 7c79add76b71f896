"""One training step, made from a pure loss function: gradients, accumulation, mixed precision, update, average.

The step is written for one device. Compiled with sharded arguments it is the same step on a mesh, since a mean over the
batch is a mean over the whole batch wherever its rows lie.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from aijax.train.sharpness import sharpness_aware
from aijax.train.state import Carry, Past, TrainState
from aijax.trees import split_rows
from aijax.typing import Array, Batch, LossFn, Metrics, Params, PRNGKey, PyTree

Step = Callable[[TrainState, Batch, PRNGKey], tuple[TrainState, Metrics]]


def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    schedule: optax.Schedule | None = None,
    accumulate_steps: int = 1,
    compute_dtype: jnp.dtype | str | None = None,
    ema_decay: float | optax.Schedule | None = None,
    frozen: PyTree | None = None,
    sharpness_radius: float | None = None,
    carry: Carry | None = None,
) -> Step:
    """Returns the pure function `step(state, batch, key) -> (state, metrics)`.

    The key is the run's and stays the same: the step folds `state.step` into it, so that a resumed run draws what the
    uninterrupted one would have drawn.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> (loss, metrics)`, the loss a mean over the batch, metrics named scalars.
      optimizer: the update rule, clipping included.
      schedule: the learning rate at a step, reported as the metric `learning_rate` when given.
      accumulate_steps: the batch is cut into so many parts whose gradients are averaged: the gradient of the whole
        batch, at the memory of one part. Right for a loss that is a mean over examples, not for one that compares them.
      compute_dtype: parameters and floating batch arrays are cast to it for the loss (such as "bfloat16"); gradients,
        moments and parameters keep their own type.
      ema_decay: keeps an average, `ema <- decay * ema + (1 - decay) * params`, when given (Polyak and Juditsky 1992);
        a number, or a function of the step.
      frozen: tree of booleans like the parameters; where True no gradient is taken.
      sharpness_radius: takes the gradient at the worst point at this distance, when given (see `sharpness`).
      carry: what the loss carries from step to step, when given; it is then told of the past (see `Carry`).

    Returns:
      The step. Its metrics are those of `loss_fn` and `loss`, `gradient_norm` (before clipping), `learning_rate`.
    """

    def gradient_after(past: Past) -> Callable:
        """`gradient(params, batch, key) -> (grads, (metrics, seen))` at the step that follows the past."""

        def loss_at(params: Params, batch: Batch, key: PRNGKey) -> tuple[Array, tuple[Metrics, PyTree]]:
            if frozen is not None:
                params = jax.tree.map(lambda p, stop: jax.lax.stop_gradient(p) if stop else p, params, frozen)
            before = past
            if compute_dtype is not None:
                params, batch, average = cast_floating((params, batch, past.average), compute_dtype)
                before = past._replace(average=average)
            if carry is None:
                (loss, metrics), seen = loss_fn(params, batch, key), None
            else:
                loss, metrics, seen = loss_fn(params, batch, key, before)
            return loss.astype(jnp.float32), ({"loss": loss} | dict(metrics), seen)

        gradient = jax.grad(loss_at, has_aux=True)
        if accumulate_steps > 1:
            gradient = accumulate(gradient, accumulate_steps)
        return gradient if sharpness_radius is None else sharpness_aware(gradient, sharpness_radius)

    def step(state: TrainState, batch: Batch, key: PRNGKey) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)
        gradient = gradient_after(Past(state.step, state.ema, state.carried))
        grads, (metrics, seen) = gradient(state.params, batch, key)
        metrics = dict(metrics) | {"gradient_norm": optax.tree.norm(grads)}
        if schedule is not None:
            metrics["learning_rate"] = schedule(state.step)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = None
        if ema_decay is not None:
            decay = ema_decay(state.step) if callable(ema_decay) else ema_decay
            ema = optax.incremental_update(params, state.ema, 1 - decay)
        carried = None if carry is None else carry.update(state.carried, seen)
        return TrainState(state.step + 1, params, opt_state, ema, carried), metrics

    return step


def accumulate(gradient: Callable, parts: int) -> Callable:
    """Returns `gradient` averaged over `parts` equal parts of the batch (`split_rows`), one after another."""

    def averaged(params, batch, key):
        split = split_rows(batch, parts)
        keys = jax.random.split(key, parts)
        shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], split), key)
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

        def add(total, part):
            return jax.tree.map(jnp.add, total, gradient(params, *part)), None

        total, _ = jax.lax.scan(add, zeros, (split, keys))
        return jax.tree.map(lambda x: x / parts, total)

    return averaged


def cast_floating(tree: PyTree, dtype: jnp.dtype | str) -> PyTree:
    """Returns `tree` with its floating arrays cast to `dtype`; integers and keys are left as they are."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
