"""A run, opened: the model, the parameters and all that is needed to use what was trained.

run = aijax.open_run("runs/a")
run.apply(images)
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from ml_collections import FrozenConfigDict

from aijax.errors import ConfigError, RunError, did_you_mean
from aijax.launch import folder as folders
from aijax.launch.config import find_experiment, from_json, import_experiment


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run.

    Attributes:
      folder: the run folder.
      config: the resolved config.
      step: the step whose parameters these are.
      params: the parameters (their moving average where the run kept one).
      model: the Linen module, or None where the experiment has none.
      metrics: the last value of each metric, as `{"test/accuracy": 0.99, ...}`.
      history: every record of `metrics.jsonl`, in order.
      classes: names of the classes, or None.
      tokenizer: for text, what turns it to tokens and back; else None.
      preprocess: from raw examples (as the data set gives them) to the model's inputs.
      apply_fn: the pure function `apply_fn(params, inputs) -> outputs`.
    """

    folder: Path
    config: FrozenConfigDict
    step: int
    params: Any
    model: Any
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    classes: tuple[str, ...] | None
    tokenizer: Any
    preprocess: Any
    apply_fn: Any

    def apply(self, raw: Any) -> Any:
        """Returns the model's outputs on raw examples: `preprocess`, then `apply_fn`, compiled."""
        return self._compiled(self.params, raw)

    def predict(self, raw: Any) -> list[str]:
        """Returns the name of the likeliest class of each raw example."""
        if self.classes is None:
            raise ConfigError(f"{self.folder}: predict needs classes, and this run has none; use apply")
        return [self.classes[index] for index in self.apply(raw).argmax(-1).tolist()]

    @functools.cached_property
    def _compiled(self):
        import jax

        return jax.jit(lambda params, raw: self.apply_fn(params, self.preprocess(raw)))


def open_run(folder: str | Path, *, step: int | None = None) -> Run:
    """Returns the run of a run folder with its parameters in memory; the data set need not be at hand.

    Args:
      folder: the run folder.
      step: the checkpoint to read; None takes the newest.

    Raises:
      ConfigError: no run in the folder, no such checkpoint, or an experiment that does not train.
      RunError: a checkpoint that is damaged or holds other parameters than the experiment builds today.
    """
    import jax

    from aijax.data.described import Described
    from aijax.data.tokenizer import load_tokenizer
    from aijax.train.checkpoints import Checkpoints
    from aijax.train.prepare import prepare
    from aijax.train.sinks import read_lines

    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise ConfigError(f"{folder}: not a run folder (no config.json)")
    config = from_json(folder / "config.json")
    module = import_experiment(find_experiment(config.experiment, folder), folder)
    if not hasattr(module, "build"):
        raise ConfigError(f"{folder}: the experiment {config.experiment!r} trains no model; its results are files")
    tokenizer = load_tokenizer(folder) if (folder / "tokenizer.json").exists() else None
    described = json.loads((folder / "data.json").read_text())
    experiment = module.build(config, {name: Described(about, tokenizer) for name, about in described.items()})
    alone = FrozenConfigDict(config.to_dict() | {"mesh": {}})
    state = prepare(experiment, alone, devices=jax.local_devices()[:1]).state
    with Checkpoints(folder / "checkpoints") as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise ConfigError(f"{folder}: no checkpoint has been written yet")
        if step is not None and step not in steps:
            raise ConfigError(f"{folder}: no checkpoint of step {step}{did_you_mean(str(step), map(str, steps))}")
        chosen = steps[-1] if step is None else step
        problem = checkpoints.problem(chosen, state)
        if problem is not None:
            raise RunError(problem)
        params = checkpoints.restore(chosen, state).best_params
    summary = folders.read_summary(folder) or {}
    history = read_lines(folder / "metrics.jsonl")
    return Run(
        folder=folder,
        config=config,
        step=chosen,
        params=params,
        model=experiment.model,
        metrics=summary.get("metrics") or latest(history),
        history=history,
        classes=experiment.classes,
        tokenizer=experiment.tokenizer,
        preprocess=experiment.preprocess,
        apply_fn=experiment.apply_fn,
    )


def latest(history: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the last value of each metric."""
    merged: dict[str, Any] = {}
    for record in history:
        merged |= record
    return {name: value for name, value in merged.items() if name not in ("step", "seconds")}
