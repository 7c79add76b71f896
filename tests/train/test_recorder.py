import jax.numpy as jnp
import pytest

from aijax.errors import RunError
from aijax.train.recorder import Recorder, pack


@pytest.fixture
def records():
    return []


@pytest.fixture
def recorder(records):
    return Recorder(
        [lambda step, metrics: records.append((step, dict(metrics)))],
        every=4,
        batch_size=10,
        total_steps=10,
        last_good=lambda: "The last good checkpoint is of step 0.",
        late=3,
    )


def test_windows_are_means_and_the_last_one_ends_with_the_run(recorder, records):
    for step in range(1, 11):
        recorder.push(step, pack({"loss": jnp.float32(step), "accuracy": jnp.float32(0.5)}))
    recorder.catch_up()
    assert [(step, metrics["train/loss"]) for step, metrics in records] == [(4, 2.5), (8, 6.5), (10, 9.5)]
    assert records[0][1]["train/accuracy"] == 0.5
    assert records[0][1]["train/examples_per_second"] > 0
    assert recorder.latest["train/loss"] == 9.5


def test_it_reads_only_what_is_late(recorder, records):
    for step in range(1, 8):
        recorder.push(step, pack({"loss": jnp.float32(step)}))
    assert [step for step, _ in records] == [4]
    recorder.catch_up()
    assert [step for step, _ in records] == [4]


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_metric_that_is_not_finite_is_named_with_its_step_and_the_last_good_checkpoint(recorder, records, value):
    recorder.push(1, pack({"loss": jnp.float32(1.0), "gradient_norm": jnp.float32(1.0)}))
    recorder.push(2, pack({"loss": jnp.float32(value), "gradient_norm": jnp.float32(1.0)}))
    with pytest.raises(RunError, match=r"step 2: train/loss is -?(nan|inf).*The last good checkpoint is of step 0\."):
        recorder.catch_up()
    assert [(step, metrics["train/loss"]) for step, metrics in records] == [(1, 1.0)]
