"""What an experiment gives to the trainer: pure functions, and the data they are for."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aijax.train.state import Carry
from aijax.typing import Array, Batch, LossFn, Params, PRNGKey


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A set of examples and what is measured on each of them.

    Attributes:
      source: the examples, each used once (see `aijax.data`).
      metrics: `metrics(params, batch) -> {name: values}`, a pure function whose values have one entry an example;
        their mean over the set is reported.
      batch_size: examples at a time; None takes the training batch's.
    """

    source: Any
    metrics: Callable[[Params, Batch], Mapping[str, Array]]
    batch_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A training run as data and pure functions; `build(config, sources)` of an experiment's module returns one.

    Attributes:
      init: `init(key) -> params`.
      loss_fn: `loss_fn(params, batch, key) -> (loss, metrics)`.
      source: the training examples (see `aijax.data`).
      apply_fn: `apply_fn(params, inputs) -> outputs`, what the trained model does.
      evaluations: named sets to measure on; their metrics are reported as `name/metric`.
      fields: the fields of the config that the experiment reads itself; any other field that the trainer does not know
        is refused.
      model: the Linen module, for whoever opens the run.
      preprocess: from raw examples (NumPy, as the source gives them) to the inputs of `apply_fn`.
      tokenizer: for text, what turns it to tokens and back.
      classes: names of the classes, when there are any.
      draw: `draw(params, folder)` writes the experiment's own figures when the run has ended; what it returns, when it
        returns metrics, is added to those of the run.
      carry: what the objective carries from step to step beside the parameters; `loss_fn` then has a further argument
        and a further result (see `aijax.train.state.Carry`).
    """

    init: Callable[[PRNGKey], Params]
    loss_fn: LossFn
    source: Any
    apply_fn: Callable[[Params, Array], Any]
    evaluations: Mapping[str, Evaluation] = dataclasses.field(default_factory=dict)
    fields: tuple[str, ...] = ()
    model: Any = None
    preprocess: Callable[[np.ndarray], Any] = np.asarray
    tokenizer: Any = None
    classes: tuple[str, ...] | None = None
    draw: Callable[[Params, Path], Mapping[str, float] | None] | None = None
    carry: Carry | None = None
