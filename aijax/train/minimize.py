"""The train loop without a run folder: for small networks, curves between networks, and what is measured on the way."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aijax.train.loop import Hook, train
from aijax.train.recorder import Recorder, pack
from aijax.train.state import TrainState, init_state
from aijax.train.step import make_step
from aijax.typing import Batch, LossFn, Params, PRNGKey


def minimize(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    optimizer: optax.GradientTransformation,
    batches: Batch | Iterator[Batch],
    steps: int,
    *,
    hooks: Sequence[Hook] = (),
    log_every: int = 1,
    **options: Any,
) -> tuple[TrainState, list[dict[str, float]]]:
    """Returns the state after some steps of training in memory, and what was recorded: dicts with a "step".

    Args:
      key: of the run.
      loss_fn: `loss_fn(params, batch, key) -> (loss, metrics)`.
      params: where to begin; they stay.
      optimizer: such as `optax.sgd(0.1)`.
      batches: an iterator, or one batch that every step takes whole.
      steps: how many.
      hooks: called while training (see `Hook`); what they return is recorded.
      log_every: steps whose mean metrics are one record.
      options: of `make_step`.

    Raises:
      RunError: a metric of some step is not finite.

    >>> loss = lambda w, batch, key: (jnp.mean((batch - w) ** 2), {})
    >>> state, records = minimize(jax.random.key(0), loss, jnp.zeros(()), optax.sgd(0.5), jnp.ones(3), 1)
    >>> float(state.params), records[0]["train/loss"]
    (1.0, 1.0)
    """
    step = make_step(loss_fn, optimizer, **options)

    def packed(state, batch, key):
        state, metrics = step(state, batch, key)
        return state, pack(metrics)

    records: list[dict[str, float]] = []
    if not isinstance(batches, Iterator):
        batches = itertools.repeat(batches)
    state = init_state(jax.tree.map(jnp.copy, params), optimizer, keep_ema=options.get("ema_decay") is not None)
    recorder = Recorder(
        [lambda step, metrics: records.append({"step": step} | dict(metrics))],
        every=log_every,
        batch_size=1,
        total_steps=steps,
    )
    run: Callable = jax.jit(packed, donate_argnums=0)
    state, _ = train(state, run, batches, key=key, start=0, total_steps=steps, recorder=recorder, hooks=hooks)
    return state, records
