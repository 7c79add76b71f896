"""Optimisers by name from a config section, with ordered patterns for weight decay, learning rate and freezing.

An optimiser is one of optax's or of `aijax.train.update_rules`, called with the section's own fields. Patterns give
each parameter two multipliers, of the weight decay and of the learning rate; parameters with equal multipliers share
one instance of the optimiser, so that the multipliers mean exactly what the optimiser itself means by the two numbers.
"""

from collections.abc import Mapping
from typing import Any

import jax
import optax
import optax.contrib

from aijax.binding import bind
from aijax.errors import ConfigError, choose
from aijax.train import update_rules
from aijax.train.layers import layer_multipliers, scale_by_layer
from aijax.trees import match_rules
from aijax.typing import Params, PyTree

OPTIMIZERS = {
    "adabelief": optax.adabelief,
    "adafactor": update_rules.adafactor,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
    "adamax": optax.adamax,
    "adamaxw": optax.adamaxw,
    "adamw": optax.adamw,
    "amsgrad": update_rules.amsgrad,
    "lamb": optax.lamb,
    "lars": optax.lars,
    "lion": optax.lion,
    "muon": optax.contrib.muon,
    "nadam": optax.nadam,
    "nadamw": optax.nadamw,
    "novograd": optax.novograd,
    "radam": optax.radam,
    "rmsprop": optax.rmsprop,
    "sgd": update_rules.sgd,
    "yogi": optax.yogi,
}
"""The optimisers that a config may name."""

DECAYING = ("adafactor", "adamaxw", "adamw", "amsgrad", "lamb", "lars", "lion", "muon", "nadamw", "novograd", "sgd")
"""Those that decay weights: they take `weight_decay`."""


def make_optimizer(
    section: Mapping[str, Any],
    schedule: optax.Schedule,
    params: Params,
    *,
    where: str = "config.optimizer",
) -> tuple[optax.GradientTransformation, PyTree]:
    """Returns `(optimizer, frozen)`: the update rule that a config section describes, and which parameters are frozen.

    Args:
      section: `name` (one of `OPTIMIZERS`); `learning_rate`, read by the caller into `schedule`; `weight_decay`;
        `clip_norm`, a bound on the global norm of the gradient; three ordered lists of pairs in which the first pattern
        that matches a parameter's whole path wins: `weight_decay_rules` (multipliers; a parameter that none matches
        decays if it has two or more dimensions), `learning_rate_rules` (multipliers, default 1) and `freeze_rules`
        (booleans, default False); `layer_decay`, which multiplies the rate of each layer (see `layers`); and the
        optimiser's own arguments under optax's names.
      schedule: the learning rate at a step.
      params: the parameters or their shapes.
      where: the section's place in the config, for messages.

    Raises:
      ConfigError: an unknown optimiser or field, a pattern that matches nothing, a weight decay given to an optimiser
        that has none.
    """
    own = dict(section)
    own.pop("learning_rate", None)
    name = own.pop("name", "adamw")
    build = choose(OPTIMIZERS, name, f"{where}.name")
    clip_norm = own.pop("clip_norm", None)
    if clip_norm is not None and not clip_norm > 0:
        raise ConfigError(f"{where}.clip_norm: expected a positive bound or None, got {clip_norm!r}")
    weight_decay = own.pop("weight_decay", 0.0) or 0.0
    if weight_decay < 0:
        raise ConfigError(f"{where}.weight_decay: expected zero or more, got {weight_decay!r}")
    if weight_decay and name not in DECAYING:
        decaying = ", ".join(DECAYING)
        raise ConfigError(f"{where}.weight_decay: {name} does not decay weights; expected one of {decaying}, or 0")

    layer_decay = own.pop("layer_decay", None)
    if layer_decay is not None:
        multipliers = layer_multipliers(params, layer_decay, f"{where}.layer_decay")

    def rules(kind: str, default) -> PyTree:
        return match_rules(own.pop(f"{kind}_rules", ()) or (), params, default=default, where=f"{where}.{kind}_rules")

    decays = rules("weight_decay", lambda _, leaf: 1.0 if len(leaf.shape) >= 2 else 0.0)
    rates = rules("learning_rate", lambda *_: 1.0)
    frozen = rules("freeze", lambda *_: False)
    if all(jax.tree.leaves(frozen)):
        raise ConfigError(f"{where}.freeze_rules: every parameter is frozen; nothing is left to train")
    if not weight_decay:
        decays = jax.tree.map(lambda _: 0.0, decays)

    def instance(decay: float, rate: float) -> optax.GradientTransformation:
        given = {"weight_decay": weight_decay * decay} if name in DECAYING else {}
        return bind(build, own, where, learning_rate=lambda step: rate * schedule(step), **given)()

    labels = jax.tree.map(
        lambda decay, rate, stop: "frozen" if stop else f"decay {decay:g}, rate {rate:g}", decays, rates, frozen
    )
    kinds = {
        label: instance(decay, rate)
        for label, decay, rate in zip(*map(jax.tree.leaves, (labels, decays, rates)), strict=True)
        if label != "frozen"
    }
    if "frozen" in jax.tree.leaves(labels):
        kinds["frozen"] = optax.set_to_zero()
    update = next(iter(kinds.values())) if len(kinds) == 1 else optax.partition(kinds, labels)
    parts = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    parts += [update] if layer_decay is None else [update, scale_by_layer(multipliers)]
    return optax.chain(*parts) if len(parts) > 1 else update, frozen
