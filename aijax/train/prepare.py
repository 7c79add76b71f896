"""From an experiment and a config to everything a run needs, by shape only: nothing is computed or put on a device.

`fit` runs what is prepared here; `aijax check` prints it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from aijax import durations, parallel
from aijax.binding import bind, describe, fits
from aijax.data import batch_spec
from aijax.errors import ConfigError, did_you_mean
from aijax.train.experiment import Experiment
from aijax.train.optimizers import make_optimizer
from aijax.train.recorder import pack
from aijax.train.schedules import make_schedule
from aijax.train.state import TrainState, init_state
from aijax.train.step import make_step
from aijax.typing import PyTree

INIT_STEP = 2**32 - 1
"""What is folded into the run's key for the initialisation: a step that no run reaches."""

INIT_COMPILER_OPTIONS = {"xla_backend_optimization_level": 0}
"""An initialisation runs once: the compiler is asked to be quick about it."""

DURATIONS = ("total", "log_every", "evaluate_every")
FIELDS = {
    "experiment": str,
    "seed": int,
    "batch_size": int,
    "data": Mapping,
    "optimizer": Mapping,
    "schedule": Mapping,
    "checkpoint": Mapping,
    "mesh": Mapping,
    "compute_dtype": str | None,
    "accumulate_steps": int,
    "ema_decay": float | None,
    "ema_end_decay": float | None,
    "sharpness_radius": float | None,
    "tensorboard": bool,
    "wandb": Mapping | None,
}
"""The fields of a config that the trainer reads, with their types; the durations above besides."""


@dataclasses.dataclass(frozen=True)
class Cadence:
    """When things happen, in steps.

    Attributes:
      total: steps of the whole run.
      log_every: steps in a window of the log.
      evaluate_every: steps between evaluations; 0 for the end only.
      checkpoint_every: steps between checkpoints; 0 for the end only.
      keep_last: how many of the newest checkpoints to keep.
      keep_every: keeps besides each checkpoint whose step is a multiple of it, or None.
    """

    total: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep_last: int
    keep_every: int | None


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run before it begins.

    Attributes:
      mesh: the devices.
      cadence: when things happen.
      schedule: learning rate at a step.
      init: `init(key) -> TrainState`, compiled so that the state is born where it lives.
      step: `step(state, batch, key) -> (state, packed metrics)`, compiled on first use, donating the state.
      state: shapes and shardings of the state.
      batch: shapes and shardings of a batch.
      key: shape and sharding of the run's key.
    """

    mesh: Mesh
    cadence: Cadence
    schedule: optax.Schedule
    init: Any
    step: Any
    state: TrainState
    batch: Mapping[str, jax.ShapeDtypeStruct]
    key: jax.ShapeDtypeStruct


def prepare(
    experiment: Experiment, config: Mapping[str, Any], *, devices: Sequence[jax.Device] | None = None
) -> Prepared:
    """Returns the run that a config describes, checked as far as it can be without running.

    Args:
      experiment: what to train.
      config: the resolved config; `FIELDS` and `DURATIONS` are read here.
      devices: the devices to use (default: all there are).

    Raises:
      ConfigError: an unknown or missing field, a value out of range, a mesh that the batch or a parameter does not fit.
    """
    config = plain(config)
    check_fields(config, experiment.fields)
    mesh_section = dict(config.get("mesh", {}))
    placing = {name: mesh_section.pop(name) for name in ("rules", "fsdp_min_elements") if name in mesh_section}
    mesh = bind(parallel.make_mesh, mesh_section, "config.mesh", devices=devices, where="config.mesh")()
    batch_size = config["batch_size"]
    accumulate_steps = config.get("accumulate_steps", 1)
    parallel.check_batch_size(mesh, batch_size)
    if accumulate_steps < 1 or batch_size % accumulate_steps:
        raise ConfigError(f"config.accumulate_steps: {batch_size} examples cannot be cut into {accumulate_steps} parts")
    parallel.check_batch_size(mesh, batch_size // accumulate_steps, where="config.batch_size / accumulate_steps")
    for name, evaluation in experiment.evaluations.items():
        if evaluation.batch_size is not None:
            parallel.check_batch_size(mesh, evaluation.batch_size, where=f"the batch size of the evaluation '{name}'")
    cadence, clock = resolve_cadence(config, len(experiment.source))
    schedule = make_schedule(config.get("schedule", {}), learning_rate(config), clock)
    compute_dtype = floating_dtype(config.get("compute_dtype"))
    ema_decay = decay_of_average(config, cadence.total)
    sharpness_radius = config.get("sharpness_radius")
    if sharpness_radius is not None and not sharpness_radius > 0:
        raise ConfigError(f"config.sharpness_radius: expected a distance above 0 or None, got {sharpness_radius}")

    key = jax.eval_shape(lambda: jax.random.key(0))
    init_params = jax.jit(experiment.init)  # traced once, for the shapes here and for the values in `init`
    params = jax.eval_shape(init_params, key)
    optimizer, frozen = make_optimizer(config.get("optimizer", {}), schedule, params)
    step = make_step(
        experiment.loss_fn,
        optimizer,
        schedule=schedule,
        accumulate_steps=accumulate_steps,
        compute_dtype=compute_dtype,
        ema_decay=ema_decay,
        frozen=frozen if any(jax.tree.leaves(frozen)) else None,
        sharpness_radius=sharpness_radius,
        carry=experiment.carry,
    )

    def with_optimizer(params):
        return init_state(params, optimizer, keep_ema=ema_decay is not None, carry=experiment.carry)

    def init(key):
        return with_optimizer(init_params(jax.random.fold_in(key, INIT_STEP)))

    def packed_step(state, batch, key):
        state, metrics = step(state, batch, key)
        return state, pack(metrics)

    shapes = jax.eval_shape(with_optimizer, params)
    shardings = parallel.parameter_shardings(mesh, params, **placing)
    state = placed(shapes, parallel.state_shardings(mesh, shapes, params, shardings))
    batch = placed_alike(batch_spec(experiment.source, batch_size), parallel.batch_sharding(mesh))
    where = jax.tree.map(lambda leaf: leaf.sharding, state)
    return Prepared(
        mesh=mesh,
        cadence=cadence,
        schedule=schedule,
        init=jax.jit(init, out_shardings=where, compiler_options=INIT_COMPILER_OPTIONS),
        step=jax.jit(
            parallel.on_mesh(packed_step, mesh), donate_argnums=0, out_shardings=(where, parallel.replicated(mesh))
        ),
        state=state,
        batch=batch,
        key=placed_alike(key, parallel.replicated(mesh)),
    )


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config as nested dictionaries; an `ml_collections.ConfigDict` is no `Mapping` and becomes one."""
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def check_fields(config: Mapping[str, Any], own: Sequence[str]) -> None:
    """Raises a `ConfigError` for a field that neither the trainer nor the experiment (`own`) knows, or a wrong type."""
    units = [f"{name}_{unit}" for name in DURATIONS for unit in durations.UNITS]
    for name, value in config.items():
        if name not in (*FIELDS, *units, *own):
            raise ConfigError(f"config.{name}: unknown field{did_you_mean(name, (*FIELDS, *units, *own))}")
        kind = FIELDS.get(name, Any)
        if kind is Mapping and not isinstance(value, Mapping):
            raise ConfigError(f"config.{name}: expected a section of fields, got {value!r}")
        if kind is not Mapping and not fits(value, kind):
            raise ConfigError(f"config.{name}: expected {describe(kind)}, got {value!r}")
    for name in ("seed", "batch_size"):
        if name not in config:
            raise ConfigError(f"config.{name}: missing; the trainer needs it")
    if not 0 <= config["seed"] < 2**32:
        raise ConfigError(f"config.seed: expected 0 to 2**32 - 1, got {config['seed']}")


def resolve_cadence(config: Mapping[str, Any], examples: int) -> tuple[Cadence, durations.Clock]:
    """Returns the cadence and the clock of a run over a set of `examples`."""
    clock = durations.Clock(batch_size=config["batch_size"], examples_per_epoch=examples)
    total = durations.resolve(config, "total", clock, where="config")
    if total == 0:
        (unit,) = durations.given_units(config, "total")
        raise ConfigError(f"config.total_{unit}: expected a run of at least one step, got none")
    clock = dataclasses.replace(clock, total_steps=total)
    checkpoint = config.get("checkpoint", {})
    known = [f"{name}_{unit}" for name in ("every", "keep_every") for unit in durations.UNITS] + ["keep_last"]
    for name in checkpoint:
        if name not in known:
            raise ConfigError(f"config.checkpoint.{name}: unknown field{did_you_mean(name, known)}")
    keep_last = checkpoint.get("keep_last", 2)
    if not isinstance(keep_last, int) or keep_last < 1:
        raise ConfigError(
            f"config.checkpoint.keep_last: expected a number of checkpoints, 1 or more, got {keep_last!r}"
        )

    def steps(section: Mapping[str, Any], name: str, where: str, default: int) -> int:
        return durations.resolve(section, name, clock, where=where, default=default)

    cadence = Cadence(
        total=total,
        log_every=max(1, steps(config, "log_every", "config", max(1, total // 100))),
        evaluate_every=steps(config, "evaluate_every", "config", 0),
        checkpoint_every=steps(checkpoint, "every", "config.checkpoint", max(1, total // 10)),
        keep_last=keep_last,
        keep_every=steps(checkpoint, "keep_every", "config.checkpoint", 0) or None,
    )
    return cadence, clock


def decay_of_average(config: Mapping[str, Any], total: int) -> float | optax.Schedule | None:
    """Returns `config.ema_decay`, checked; with `config.ema_end_decay` it goes there along half a cosine.

    decay_t = end - (end - begin) (1 + cos(pi t / total)) / 2        (Grill et al. 2020, section 3.2)
    """
    begin, end = config.get("ema_decay"), config.get("ema_end_decay")
    if begin is not None and not 0 <= begin < 1:
        raise ConfigError(f"config.ema_decay: expected a number from 0 up to, not including, 1 or None, got {begin}")
    if end is None:
        return begin
    if begin is None or not begin <= end <= 1:
        raise ConfigError(f"config.ema_end_decay: expected a number from ema_decay, {begin}, to 1 or None, got {end}")
    return lambda step: end - (end - begin) * (1 + jnp.cos(jnp.pi * step / total)) / 2


def learning_rate(config: Mapping[str, Any]) -> float:
    """Returns `config.optimizer.learning_rate`, checked."""
    rate = config.get("optimizer", {}).get("learning_rate")
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < float("inf"):
        raise ConfigError(f"config.optimizer.learning_rate: expected a number, zero or more, got {rate!r}")
    return float(rate)


def floating_dtype(name: str | None) -> jnp.dtype | None:
    """Returns the floating type called `name`, or None for None."""
    types = {kind: jnp.dtype(kind) for kind in ("float32", "bfloat16", "float16", "float64")}
    if name is not None and name not in types:
        raise ConfigError(f"config.compute_dtype: unknown value {name!r}{did_you_mean(name, types)}")
    return types.get(name)


def placed(shapes: PyTree, shardings: PyTree) -> PyTree:
    """Returns the tree of shapes with their shardings."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def placed_alike(shapes: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """Returns the tree of shapes, all with one sharding."""
    return placed(shapes, jax.tree.map(lambda _: sharding, shapes))
