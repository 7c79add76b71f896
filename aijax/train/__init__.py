"""Training: the step, the loop, the optimisers, checkpoints and metrics; one loop for every objective."""

from aijax.train.checkpoints import Checkpoints
from aijax.train.classifier import fit_classifier
from aijax.train.evaluate import evaluate, make_evaluate_step, outputs
from aijax.train.experiment import Evaluation, Experiment
from aijax.train.fine_tune import start_from
from aijax.train.fit import Fitted, fit
from aijax.train.layers import layer_multipliers
from aijax.train.loop import Hook, train
from aijax.train.minimize import minimize
from aijax.train.optimizers import OPTIMIZERS, make_optimizer
from aijax.train.prepare import Prepared, prepare
from aijax.train.recorder import Recorder, pack
from aijax.train.schedules import SCHEDULES, make_schedule
from aijax.train.sharpness import sharpness_aware
from aijax.train.state import Carry, Past, TrainState, init_state
from aijax.train.step import make_step

__all__ = [
    "OPTIMIZERS", "SCHEDULES", "Carry", "Checkpoints", "Evaluation", "Experiment", "Fitted", "Hook", "Past", "Prepared",
    "Recorder", "TrainState", "evaluate", "fit", "fit_classifier", "init_state", "layer_multipliers",
    "make_evaluate_step", "make_optimizer", "make_schedule", "make_step", "minimize", "outputs", "pack", "prepare",
    "sharpness_aware", "start_from", "train",
]  # fmt: skip
