"""Kernels on disk: killed at any instant, damaged, of something else, too big for the disk."""

import collections
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import parallel
from aijax.errors import ConfigError, DataError
from aijax.ntk.blocks import kernel_blocks
from aijax.ntk.store import KernelStore, StoredKernel, open_kernel

Both = collections.namedtuple("Both", "nngp ntk")
WEIGHTS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(19, 5)).astype(np.float32)


def kernel(x1, x2, w):
    f1, f2 = jnp.tanh(x1 @ w), jnp.tanh(x2 @ w)
    return Both(f1 @ f2.T, jnp.einsum("ia,jb->ijab", f1, f2))


def one(x1, x2, w):
    return kernel(x1, x2, w).ntk


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(devices=jax.devices()[:1])


@pytest.fixture
def run(mesh, tmp_path):
    """Calls `kernel_blocks` into one store and returns the kernel and how many chunks were computed."""

    def call(function=one, x1=X, x2=None, w=WEIGHTS, **options):
        told = []
        options = {"block_size": 4, "mesh": mesh, "store": tmp_path / "k"} | options
        found = kernel_blocks(
            function, x1, x2, kernel_args=(w,), progress=lambda done, total: told.append(done), **options
        )
        return found, told[-1] - told[0]

    return call


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_store_holds_what_memory_would(run, mesh, tmp_path):
    found, computed = run()
    whole = kernel_blocks(one, X, kernel_args=(WEIGHTS,), block_size=4, mesh=mesh)
    assert isinstance(found, StoredKernel)
    assert (found.shape, found.dtype, found.ndim, len(found)) == ((19, 19, 3, 3), np.float32, 4, 19)
    np.testing.assert_array_equal(np.asarray(found), whole)
    assert computed == 15
    lazy = open_kernel(tmp_path / "k")
    for index in (3, -1, slice(2, 9), slice(None, None, 3), (slice(1, 4), -2, ..., 1), (Ellipsis, 0), (0, 1, 2, 2)):
        np.testing.assert_array_equal(lazy[index], whole[index])
    with pytest.raises(IndexError):
        lazy[19]
    np.testing.assert_array_equal(np.asarray(lazy[2:5], np.float64), whole[2:5].astype(np.float64))


def test_it_is_an_array_of_zarr_format_3(run, tmp_path):
    run()
    about = json.loads((tmp_path / "k" / "zarr.json").read_text())
    assert (about["zarr_format"], about["node_type"], about["shape"]) == (3, "array", [19, 19, 3, 3])
    assert about["chunk_grid"]["configuration"]["chunk_shape"] == [4, 4, 3, 3]
    raw = np.frombuffer((tmp_path / "k" / "c" / "0" / "1" / "0" / "0").read_bytes()[:-4], "<f4").reshape(4, 4, 3, 3)
    np.testing.assert_allclose(raw, one(X[:4], X[4:8], WEIGHTS), atol=1e-6)


def test_a_tree_is_a_group_with_an_array_a_leaf(run, tmp_path):
    found, _ = run(kernel)
    assert isinstance(found, Both)
    np.testing.assert_allclose(np.asarray(found.nngp), kernel(X, X, WEIGHTS).nngp, atol=1e-6)
    opened = open_kernel(tmp_path / "k")
    assert list(opened) == ["nngp", "ntk"]
    np.testing.assert_array_equal(opened["ntk"][...], np.asarray(found.ntk))
    assert json.loads((tmp_path / "k" / "zarr.json").read_text())["node_type"] == "group"


def test_what_is_there_is_not_computed_again(run, tmp_path):
    first, _ = run(x2=X[:7])
    before = files(tmp_path / "k")
    for block_size in (4, "auto"):
        again, computed = run(x2=X[:7], block_size=block_size)
        assert computed == 0
        np.testing.assert_array_equal(np.asarray(first), np.asarray(again))
    assert files(tmp_path / "k") == before


@pytest.mark.parametrize("kept", [0, 1, 7])
def test_a_store_cut_short_goes_on_and_ends_the_same(run, tmp_path, kept):
    run(kernel)
    whole, store = files(tmp_path / "k"), tmp_path / "k"
    lines = (store / "chunks.jsonl").read_text().splitlines(keepends=True)
    (store / "chunks.jsonl").write_text("".join(lines[:kept]) + lines[kept][:11])
    with pytest.raises(ConfigError, match=f"not finished, {kept} of 15 chunks are there"):
        open_kernel(store)
    _, computed = run(kernel)
    assert computed == 15 - kept
    assert files(store) == whole


def test_damaged_and_missing_chunks_are_found_and_computed_again(run, tmp_path):
    found, _ = run()
    whole, store = files(tmp_path / "k"), tmp_path / "k"
    chunk = store / "c" / "3" / "4" / "0" / "0"  # at the edge: smaller than its file
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    chunk.write_bytes(content)
    (store / "c" / "1" / "0" / "0" / "0").unlink()  # the mirror image of (0, 1)
    with pytest.raises(DataError, match=r"DATA_LOSS.*kernel_blocks"):
        found[12:16]
    with pytest.raises(DataError, match="is missing"):
        found[4]
    told = []
    _, computed = run(report=told.append)
    assert computed == 2
    assert len(told) == 1 and "2 of 15 chunks are damaged ((0, 1), (3, 4)) and computed again" in told[0]
    assert {name: content for name, content in files(store).items() if name.name != "chunks.jsonl"} == {
        name: content for name, content in whole.items() if name.name != "chunks.jsonl"
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x1": X + 1}, "other inputs x1;"),
        ({"x1": X[:18]}, "other inputs x1"),
        ({"x2": X}, "other inputs x2;"),
        ({"w": WEIGHTS + 1}, "other kernel_args;"),
        ({"block_size": 5}, r"other block_size \(\[4, 4\], not \[5, 5\]\);"),
        ({"function": kernel}, "other kernel_fn;"),
        ({"function": lambda a, b, w: one(a, b, w * 2)}, "other kernel_fn;"),
        ({"function": lambda a, b, w: one(a, b, w) * WEIGHTS[0]}, "other kernel_fn and other the arrays inside"),
    ],
)
def test_a_store_of_something_else_is_refused(run, tmp_path, change, message):
    run()
    before = files(tmp_path / "k")
    with pytest.raises(ConfigError, match=f"^store: .*{message}"):
        run(**change)
    assert files(tmp_path / "k") == before


def test_closed_over_parameters_count_at_any_depth(run):
    def make(w):
        return lambda a, b, _: jax.jit(lambda a, b: jnp.cos(a @ w) @ jnp.cos(b @ w).T)(a, b)

    run(make(jnp.asarray(WEIGHTS)))
    assert run(make(jnp.asarray(WEIGHTS)))[1] == 0
    with pytest.raises(ConfigError, match="arrays inside kernel_fn"):
        run(make(jnp.asarray(WEIGHTS) + 1))


def test_folders_with_something_else_are_refused(run, tmp_path):
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is not empty and holds no kernel"):
        run()
    with pytest.raises(ConfigError, match="holds no kernel"):
        open_kernel(tmp_path / "k")
    with pytest.raises(ConfigError, match="is a file; expected a folder"):
        run(store=tmp_path / "k" / "thesis.txt")
    shutil.rmtree(tmp_path / "k")
    (tmp_path / "k").mkdir()
    run()


def test_two_processes_cannot_write_to_one_store(run, tmp_path):
    run()
    about = json.loads((tmp_path / "k" / "kernel.json").read_text())
    with (
        KernelStore(tmp_path / "k", about, new=False, report=pytest.fail),
        pytest.raises(ConfigError, match="another process writes to"),
    ):
        run()


def test_a_block_halved_for_memory_keeps_the_chunks(run, tmp_path):
    def greedy(x1, x2, w):
        if x1.shape[0] > 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return one(x1, x1 if x2 is None else x2, w)

    told = []
    found, _ = run(greedy, report=told.append)
    assert len(told) == 1
    np.testing.assert_allclose(np.asarray(found), one(X, X, WEIGHTS), atol=1e-6)
    assert json.loads((tmp_path / "k" / "kernel.json").read_text())["chunk"] == [4, 4]


def test_eight_devices_write_what_one_does(run, tmp_path):
    alone, _ = run()
    many, _ = run(store=tmp_path / "many", mesh=parallel.make_mesh())
    np.testing.assert_allclose(np.asarray(alone), np.asarray(many), atol=2e-7)
    lines = (tmp_path / "many" / "chunks.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "many" / "chunks.jsonl").write_text("".join(lines[:5]))
    assert run(store=tmp_path / "many", mesh=parallel.make_mesh())[1] == 10


def test_half_precision_is_stored_as_float32(run):
    found, _ = run(lambda a, b, w: (a @ b.T).astype(jnp.bfloat16))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(found), np.asarray(jnp.asarray(X @ X.T).astype(jnp.bfloat16), np.float32))


SLOW = """
import sys, time
import jax, jax.numpy as jnp, numpy as np
from aijax.ntk.blocks import kernel_blocks

def host(a):
    time.sleep(float(sys.argv[2]))
    return np.float32(1)

def kernel(x1, x2):
    one = jax.pure_callback(host, jax.ShapeDtypeStruct((), jnp.float32), x1[0, 0])
    return one * jnp.cos(x1 @ (x1 if x2 is None else x2).T)

x = np.random.default_rng(0).normal(size=(38, 6)).astype(np.float32)
kernel_blocks(kernel, x, block_size=4, store=sys.argv[1])
"""


@pytest.mark.processes
def test_killed_again_and_again_it_ends_the_same(tmp_path, root):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}

    def start(name, seconds):
        return subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path / name), str(seconds)], env=environment)

    assert start("whole", 0).wait(timeout=120) == 0
    chunks = tmp_path / "killed" / "chunks.jsonl"
    for lines in (3, 20):
        process = start("killed", 0.05)
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not (chunks.exists() and chunks.read_bytes().count(b"\n") >= lines):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lines <= chunks.read_bytes().count(b"\n") < 55
    assert start("killed", 0).wait(timeout=120) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


SHARED = """
import os, sys
import jax
folder, process, port, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
jax.distributed.initialize(f"localhost:{port}", 2, process)
import jax.numpy as jnp
import numpy as np
from aijax import parallel
from aijax.errors import ConfigError
from aijax.ntk.blocks import kernel_blocks
from jax.sharding import Mesh
from tests.ntk.test_store import WEIGHTS, X, one

def told(done, total):
    print(done, total, flush=True)
    if stop and done >= stop:
        os._exit(7)

mesh = parallel.make_mesh()
weights = jax.device_put(WEIGHTS, parallel.replicated(mesh))
try:
    kernel_blocks(one, X, kernel_args=(weights,), mesh=mesh)
except ConfigError as error:
    print("refused:", error)
found = kernel_blocks(one, X, kernel_args=(weights,), block_size=4, mesh=mesh, store=folder, progress=told)
print(f"norm {np.linalg.norm(np.asarray(found)):.3f}")
if process == 1:
    X = X + 1
try:
    kernel_blocks(one, X, kernel_args=(weights,), block_size=4, mesh=mesh, store=folder)
except Exception as error:
    print("then:", type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.processes
def test_two_processes_share_a_kernel(run, tmp_path, root):
    whole, _ = run(mesh=parallel.make_mesh(devices=jax.devices()[:2]), store=tmp_path / "whole")
    flags = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root), "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}

    def together(stop):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        commands = [
            [sys.executable, "-c", SHARED, str(tmp_path / "shared"), str(i), str(port), str(stop)] for i in range(2)
        ]
        pipes = {"env": os.environ | flags, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started = [subprocess.Popen(command, **pipes) for command in commands]
        return [(*process.communicate(timeout=200), process.returncode) for process in started]

    assert any(code == 7 for _, _, code in together(6))
    lines = sum(path.read_text().count("\n") for path in (tmp_path / "shared").glob("chunks*.jsonl"))
    assert 0 < lines < 15
    ends = together(0)
    for out, err, code in ends:
        assert code == 0, err
        assert "refused: store: missing; a mesh of 2 processes needs a folder that all of them write to" in out
        assert f"norm {np.linalg.norm(np.asarray(whole)):.3f}" in out
        assert "9 9" in out or "6 6" in out
    assert "then: RunError" in ends[0][0] and "then: ConfigError" in ends[1][0] and "other inputs x1" in ends[1][0]
    found, computed = run(store=tmp_path / "shared", mesh=parallel.make_mesh(devices=jax.devices()[:1]))
    assert computed == 0
    np.testing.assert_allclose(found[...], whole[...], rtol=0, atol=1e-6)
    assert len(list((tmp_path / "shared").glob("chunks*.jsonl"))) == 1


def no_mounts():
    if shutil.which("unshare") is None:
        return True
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0


@pytest.mark.processes
@pytest.mark.skipif(no_mounts(), reason="a small file system cannot be mounted here")
def test_a_full_disk_is_told_and_what_was_written_stands(tmp_path, root):
    program = """
import sys
import numpy as np
from aijax.errors import RunError
from aijax.ntk.blocks import kernel_blocks
x = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
try:
    kernel_blocks(lambda a, b: a @ (a if b is None else b).T, x, block_size=50, store=sys.argv[1])
except RunError as error:
    print("told:", error)
print("lines:", open(sys.argv[1] + "/chunks.jsonl").read().count(chr(10)))
"""
    mount = 'mount -t tmpfs -o size=400k none "$0" && exec "$1" -c "$2" "$0/k"'
    told = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, str(tmp_path), sys.executable, program],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)},
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    assert (
        "told:" in told and "the disk is full" in told and "of 36 chunks are there, and the next call goes on" in told
    )
    lines = int(told.split("lines: ")[1])
    assert 5 < lines < 36 and f" {lines} of 36" in told
