"""`aijax run configs/ntk/...`: a kernel in a run folder, gone on with, of a fresh model and of a trained one."""

import json

import jax
import numpy as np
import pytest

from aijax import models
from aijax.data import load_source
from aijax.launch.cli import main
from aijax.ntk.store import open_kernel

SMALL = ("--config.examples=40", "--config.model.widths=(16,)", "--config.block_size=12")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("ntk") / "a"
    assert main(["run", str(root / "configs/ntk/digits.py"), "--workdir", str(folder), *SMALL]) == 0
    return folder


def jacobian_kernel(apply_fn, params, x):
    """The mean over outputs of J J^T, by the whole Jacobian."""
    leaves = jax.tree.leaves(jax.jit(jax.jacrev(apply_fn))(params, x))
    flat = np.concatenate([np.asarray(leaf, np.float64).reshape(*leaf.shape[:2], -1) for leaf in leaves], -1)
    return np.einsum("iop,jop->ij", flat, flat) / flat.shape[1]


def test_the_kernel_of_a_fresh_model_and_its_numbers(finished):
    x = load_source({"source": "digits"}, "train")[np.arange(40)]["image"]
    model = models.MLP(widths=(16,), num_classes=10)
    params = models.init(jax.random.key(0), model, x)
    exact = jacobian_kernel(lambda params, x: model.apply({"params": params}, x), params, x)
    found = np.asarray(open_kernel(finished / "kernel"), np.float64)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4 * exact.max())
    metrics = json.loads((finished / "summary.json").read_text())["metrics"]
    eigenvalues = np.linalg.eigvalsh(exact)[::-1]
    assert metrics["examples"] == 40
    assert metrics["trace"] == pytest.approx(np.trace(exact), rel=1e-5)
    assert metrics["eigenvalue_1"] == pytest.approx(eigenvalues[0], rel=1e-5)
    assert metrics["effective_rank"] == pytest.approx(np.trace(exact) ** 2 / (exact**2).sum(), rel=1e-4)
    assert 0 < metrics["target_alignment"] < 1
    assert metrics["labels_in_100_eigenvectors"] == pytest.approx(1)
    for figure in ("spectrum.png", "matrix.png"):
        assert (finished / "figures" / figure).read_bytes().startswith(b"\x89PNG")


def test_a_run_cut_short_goes_on_with_the_chunks_that_are_there(finished, root, monkeypatch):
    before = {path: path.read_bytes() for path in (finished / "kernel").rglob("*") if path.is_file()}
    lines = (finished / "kernel" / "chunks.jsonl").read_text().splitlines(keepends=True)
    (finished / "kernel" / "chunks.jsonl").write_text("".join(lines[:4]))
    (finished / "summary.json").unlink()
    assert main(["run", str(root / "configs/ntk/digits.py"), "--workdir", str(finished), *SMALL]) == 0
    assert {path: path.read_bytes() for path in (finished / "kernel").rglob("*") if path.is_file()} == before


def test_the_kernel_of_a_trained_run(tmp_path, root):
    import aijax

    train = ("--config.total_steps=20", "--config.model.widths=(16,)", "--config.tensorboard=false")
    assert main(["run", str(root / "configs/mlp/digits.py"), "--workdir", str(tmp_path / "run"), *train]) == 0
    words = (f"--config.run={tmp_path / 'run'}", *SMALL)
    assert main(["run", str(root / "configs/ntk/digits.py"), "--workdir", str(tmp_path / "ntk"), *words]) == 0
    run = aijax.open_run(tmp_path / "run")
    x = load_source({"source": "digits"}, "train")[np.arange(40)]["image"]
    exact = jacobian_kernel(lambda params, raw: run.apply_fn(params, run.preprocess(raw)), run.params, x)
    found = np.asarray(open_kernel(tmp_path / "ntk" / "kernel"))
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4 * exact.max())


def test_cifar10_runs_on_files(tmp_path, root):
    random = np.random.default_rng(0)
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        records = random.integers(0, 256, (16, 3073), np.uint8)
        records[:, 0] = np.arange(16) % 10
        (tmp_path / name).write_bytes(records.tobytes())
    words = (
        f"--config.data.path={tmp_path}", "--config.examples=12", "--config.model.widths=(4,)", "--config.block_size=8",
    )  # fmt: skip
    assert main(["run", str(root / "configs/ntk/cifar10.py"), "--workdir", str(tmp_path / "run"), *words]) == 0
    assert open_kernel(tmp_path / "run" / "kernel").shape == (12, 12)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--config.examples=1", "config.examples: expected 2 to 1437 or None for all, got 1"),
        ("--config.block_size=0", "block_size: expected rows"),
        ("--config.run=nowhere", "nowhere: not a run folder"),
        ("--config.data.source=diabetes", "has no classes"),
    ],
)
def test_mistakes_are_sentences(tmp_path, root, capsys, word, message):
    assert main(["run", str(root / "configs/ntk/digits.py"), "--workdir", str(tmp_path / "a"), word]) == 2
    assert message in capsys.readouterr().err
