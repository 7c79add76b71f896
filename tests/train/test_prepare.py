import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.data import ArraySource
from aijax.errors import ConfigError
from aijax.train import Evaluation, Experiment, fit, prepare

SOURCE = ArraySource({"x": np.linspace(-1, 1, 64, dtype=np.float32).reshape(16, 4)})


def loss_fn(params, batch, key):
    return jnp.mean((batch["x"] @ params["w"] - 1) ** 2), {}


@pytest.fixture
def experiment():
    return Experiment(
        init=lambda key: {"w": jax.random.normal(key, (4, 8))},
        loss_fn=loss_fn,
        source=SOURCE,
        apply_fn=lambda params, x: x @ params["w"],
        evaluations={"all": Evaluation(SOURCE, lambda params, batch: {"sum": (batch["x"] @ params["w"]).sum(-1)})},
        fields=("note",),
    )


CONFIG = {"seed": 0, "batch_size": 8, "total_steps": 10, "optimizer": {"name": "sgd", "learning_rate": 0.1}}


def test_it_knows_shapes_and_cadence_without_computing(experiment):
    run = prepare(experiment, CONFIG | {"note": "mine", "checkpoint": {"every_fraction": 0.5, "keep_every_steps": 5}})
    assert run.state.params["w"].shape == (4, 8)
    assert run.batch["x"].shape == (8, 4)
    assert (run.cadence.total, run.cadence.checkpoint_every, run.cadence.keep_every) == (10, 5, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lerning_rate": 1}, "config.lerning_rate: unknown field"),
        ({"optimizer": 3}, "config.optimizer: expected a section of fields, got 3"),
        ({"batch_size": 12}, "config.batch_size: 12 examples cannot be split"),
        ({"batch_size": "many"}, "config.batch_size: expected"),
        ({"accumulate_steps": 3}, "config.accumulate_steps: 8 examples cannot be cut into 3 parts"),
        ({"accumulate_steps": 2}, "config.batch_size / accumulate_steps: 4 examples cannot be split"),
        ({"ema_decay": 1.0}, "config.ema_decay: expected a number from 0"),
        ({"ema_decay": 0.9, "ema_end_decay": 0.5}, "config.ema_end_decay: expected a number from ema_decay, 0.9, to 1"),
        ({"ema_end_decay": 1.0}, "config.ema_end_decay: expected a number from ema_decay, None, to 1"),
        ({"compute_dtype": "bf16"}, "config.compute_dtype: unknown value 'bf16'; did you mean 'bfloat16'"),
        ({"checkpoint": {"evry_steps": 1}}, "config.checkpoint.evry_steps: unknown field; did you mean 'every_steps'"),
        ({"checkpoint": {"keep_last": 0}}, "config.checkpoint.keep_last: expected"),
        ({"total_epochs": 1}, "two units for one duration"),
        ({"total_steps": None}, "config.total_steps: missing"),
        ({"mesh": {"dta": 8}}, "config.mesh.dta: unknown field; did you mean 'data'"),
        ({"mesh": {"rules": (("w", ("tensor", "tensr")),)}}, "unknown axis 'tensr'"),
        ({"optimizer": {"name": "sgd"}}, "config.optimizer.learning_rate: expected a number, zero or more, got None"),
    ],
)
def test_a_wrong_config_is_told_in_a_sentence(experiment, change, message):
    with pytest.raises(ConfigError) as caught:
        prepare(experiment, CONFIG | change)
    assert message in str(caught.value)


def test_fit_stops_where_it_is_asked_and_goes_on_to_the_same_end(experiment, tmp_path):
    config = CONFIG | {"ema_decay": 0.5, "tensorboard": False, "log_every_steps": 1}
    whole = fit(experiment, config, tmp_path / "whole", report=lambda sentence: None)
    half = fit(experiment, config, tmp_path / "half", report=lambda sentence: None, stop=lambda step: step == 4)
    assert (half.step, half.total_steps) == (4, 10)
    told = []
    rest = fit(experiment, config, tmp_path / "half", report=told.append)
    assert told == ["resumes from the checkpoint of step 4 of 10"]
    assert rest.step == whole.step == 10
    jax.tree.map(np.testing.assert_array_equal, whole.state, rest.state)
    assert whole.metrics["all/sum"] == rest.metrics["all/sum"]
