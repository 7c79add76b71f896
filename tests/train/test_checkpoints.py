import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import parallel
from aijax.errors import RunError
from aijax.train.checkpoints import Checkpoints
from aijax.train.prepare import placed, placed_alike
from aijax.train.state import TrainState

STATE = {"kernel": jnp.arange(64.0).reshape(8, 8), "half": jnp.ones(8, jnp.bfloat16), "step": jnp.int32(3)}


@pytest.fixture(scope="module")
def target():
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    return placed_alike(jax.eval_shape(lambda: STATE), parallel.replicated(mesh))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(folder, keep_last=2, keep_every=10) as checkpoints:
        for step in (10, 15, 20, 25, 35):
            checkpoints.save(
                step, jax.tree.map(lambda x, step=step: x + step, STATE), {"step": step, "config": {"seed": 1}}
            )
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoints")


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def largest_file(folder, step):
    return max((folder / f"{step:09d}" / "state").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())


def test_the_newest_and_the_round_ones_are_kept_and_read_back(folder, target):
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps() == [10, 20, 25, 35]
        step, state, about = checkpoints.restore_latest(target, pytest.fail)
    assert step == 35
    assert about == {"step": 35, "config": {"seed": 1}}
    assert_equal(state, jax.tree.map(lambda x: x + 35, STATE))


def test_a_checkpoint_from_before_a_field_was_there_is_read(tmp_path):
    state = TrainState(step=jnp.int32(1), params={"w": jnp.ones(2)}, opt_state=(), ema=None)
    before = {"step": state.step, "params": state.params, "opt_state": (), "ema": None}  # no "carried" yet
    target = placed_alike(jax.eval_shape(lambda: state), parallel.replicated(parallel.make_mesh()))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, before, {"step": 1})
        checkpoints.wait()
        step, found, _ = checkpoints.restore_latest(target, pytest.fail)
    assert step == 1 and isinstance(found, TrainState) and found.carried is None
    assert_equal(found, state)


@pytest.mark.parametrize("sizes", [(8, 1), (1, 8), (4, 2)])
def test_a_state_is_read_back_onto_another_mesh(folder, target, sizes):
    mesh = parallel.make_mesh(*sizes)
    shardings = parallel.parameter_shardings(mesh, target)
    with Checkpoints(folder) as checkpoints:
        _, state, _ = checkpoints.restore_latest(placed(target, shardings), pytest.fail)
    assert state["kernel"].sharding == shardings["kernel"]
    assert_equal(state, jax.tree.map(lambda x: x + 35, STATE))


def truncate(file):
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(truncate, "bytes of"), (flip_a_bit, "have changed"), (lambda file: file.unlink(), "is missing")],
)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(folder, target, damage, reason):
    damage(largest_file(folder, 35))
    told = []
    with Checkpoints(folder) as checkpoints:
        step, state, _ = checkpoints.restore_latest(target, told.append)
        assert step == 25
        assert_equal(state, jax.tree.map(lambda x: x + 25, STATE))
        checkpoints.save(35, STATE, {})
        checkpoints.wait()
        assert checkpoints.steps()[-1] == 35
    assert len(told) == 1
    assert "checkpoint 35 is damaged" in told[0]
    assert reason in told[0]


def test_when_all_are_damaged_it_says_so(folder, target):
    for step in (10, 20, 25, 35):
        truncate(largest_file(folder, step))
    with Checkpoints(folder) as checkpoints, pytest.raises(RunError, match="all 4 checkpoints are damaged"):
        checkpoints.restore_latest(target, lambda sentence: None)


def test_a_checkpoint_left_half_written_is_not_seen(folder, target):
    shutil.copytree(folder / f"{35:09d}", folder / f"{40:09d}.orbax-checkpoint-tmp")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore_latest(target, pytest.fail)[0] == 35


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"kernel": t["half"]}, r"'kernel' has shape \(8, 8\), but the run needs \(8,\)"),
        (lambda t: t | {"bias": t["half"]}, "'bias' is only in the run"),
        (lambda t: {"kernel": t["kernel"], "step": t["step"]}, "'half' is only in the checkpoint"),
    ],
)
def test_other_parameters_are_refused_in_a_sentence(folder, target, change, message):
    with Checkpoints(folder) as checkpoints, pytest.raises(RunError, match=message):
        checkpoints.restore_latest(change(target), pytest.fail)


def test_a_disk_without_room_is_said_before_writing_and_the_last_checkpoint_stands(folder, target, monkeypatch):
    with Checkpoints(folder) as checkpoints:
        usage = shutil.disk_usage(folder)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
        with pytest.raises(RunError, match=r"the disk is full .*the last whole checkpoint is step 35"):
            checkpoints.save(50, STATE, {})
        assert checkpoints.restore_latest(target, pytest.fail)[0] == 35


FILL_A_SMALL_DISK = """
import shutil, sys, jax
from aijax.errors import RunError
from aijax.train.checkpoints import Checkpoints
shutil.disk_usage = lambda path: shutil._ntuple_diskusage(2**40, 0, 2**40)  # the write itself is to fail
state = {"w": jax.random.normal(jax.random.key(0), (350_000,))}
try:
    with Checkpoints(sys.argv[1], keep_last=9) as checkpoints:
        checkpoints.save(1, state, {})
        checkpoints.save(2, state, {})
        checkpoints.wait()
except RunError as error:
    print("told:", error)
with Checkpoints(sys.argv[1], keep_last=9) as checkpoints:
    print("kept:", checkpoints.steps())
"""
MOUNT = 'mount -t tmpfs -o size=2500k none "$0" && exec "$1" -c "$2" "$0/checkpoints"'


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="a small disk needs user namespaces",
)
def test_a_disk_that_fills_while_writing_is_said_and_the_last_checkpoint_stands(root, tmp_path):
    command = ["unshare", "-rm", "sh", "-c", MOUNT, str(tmp_path), sys.executable, FILL_A_SMALL_DISK]
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    output = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert "told: " in output
    assert "the disk is full" in output
    assert "the last whole checkpoint is step 1" in output
    assert "kept: [1]" in output


def test_the_manifest_lists_every_file_of_the_state(folder):
    entries = json.loads((folder / f"{35:09d}" / "files.json").read_text())
    files = {
        str(p.relative_to(folder / f"{35:09d}")) for p in (folder / f"{35:09d}" / "state").rglob("*") if p.is_file()
    }
    assert files <= set(entries)
