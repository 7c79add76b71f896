"""The next trial of a search, by Bayesian optimisation of what the trials so far gave (`aijax.gp.bayesopt`).

The first trials fill the space. Then a Gaussian process on the unit cube is fitted, and of many possible trials that
were not run yet those with the largest log expected improvement are climbed from, along the axes that are continuous.
jax is imported by `propose` alone, and for the CPU: the devices are the trials'.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from aijax.launch.space import Axis, draw_points, texts_at, unit_at

Texts = tuple[str, ...]


def propose(
    axes: Sequence[Axis], scores: Mapping[Texts, float], pending: Sequence[Texts], seed: int, candidates: int = 512
) -> Texts | None:
    """Returns the values of the next trial, one text for each axis; None when every possible one was run.

    Args:
      axes: the space.
      scores: of each trial that ended, larger being better; NaN where it failed.
      pending: trials that are running.
      seed: the same arguments give the same trial.
      candidates: how many possible trials are compared.
    """
    known = {*scores, *pending}
    if math.prod(axis.count for axis in axes) <= len(known):
        return None
    generator = np.random.default_rng([seed, len(known)])
    good = {texts: score for texts, score in scores.items() if math.isfinite(score)}
    near = max(good, key=good.get) if good else None
    possible = [texts for texts in draw_points(generator, axes, candidates, near) if texts not in known]
    while not possible:  # nearly all were run: draw until one is left
        possible = [texts for texts in draw_points(generator, axes, candidates, None) if texts not in known]
    units = np.stack([unit_at(axes, possible[i % len(possible)]) for i in range(candidates)])
    chosen = texts_at(axes, _ask(axes, scores, pending, units, seed))
    return chosen if chosen not in known else possible[0]


def _ask(axes, scores, pending, units, seed):
    import jax

    jax.config.update("jax_platforms", "cpu")
    from aijax.gp import bayesopt

    with jax.enable_x64(True):
        key = jax.random.key(seed)
        size = units.shape[1]
        count = len(scores) + len(pending)
        capacity = max(32, 1 << count.bit_length())  # doubles, so that few sizes are compiled
        state = bayesopt.init(key, np.tile([0.0, 1.0], (size, 1)), capacity=capacity, initial=min(2 * (size + 1), 10))
        state = dataclasses.replace(state, **_evaluations(axes, scores, pending, capacity, size))
        continuous = np.concatenate([[axis.continuous] * axis.size for axis in axes])
        found = bayesopt.ask(jax.random.fold_in(key, count), state, candidates=units[:, None, :], continuous=continuous)
        return np.asarray(found.x[0])


def _evaluations(axes, scores, pending, capacity, size):
    """Returns the arrays of a `BayesOpt` state with these trials; made here, since each size would compile anew."""
    from aijax.gp.bayesopt import EMPTY, FAILED, OBSERVED, PENDING

    x, y, status = np.full((capacity, size), 0.5), np.zeros(capacity), np.full(capacity, EMPTY)
    for row, texts in enumerate([*scores, *pending]):
        score = scores.get(texts)
        x[row] = unit_at(axes, texts)
        status[row] = PENDING if score is None else OBSERVED if math.isfinite(score) else FAILED
        y[row] = score if status[row] == OBSERVED else 0.0
    return {"x": x, "y": y, "status": status}
