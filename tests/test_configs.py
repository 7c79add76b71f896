"""Every shipped config is a run: those with embedded data as they are, the others on files made on the spot."""

import gzip
import struct

import numpy as np
import pytest

from aijax.launch.cli import main
from aijax.launch.config import load
from aijax.launch.projects import import_experiment
from aijax.train import prepare
from aijax.trees import count_parameters


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("mnist"), np.random.default_rng(0)
    for half, count in (("train", 64), ("t10k", 40)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8).tobytes()
        labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
        for name, magic, content in (
            ("images-idx3", struct.pack(">4i", 0x803, count, 28, 28), images),
            ("labels-idx1", struct.pack(">2i", 0x801, count), labels),
        ):
            (folder / f"{half}-{name}-ubyte.gz").write_bytes(gzip.compress(magic + content))
    return folder


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("cifar10"), np.random.default_rng(0)
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        records = random.integers(0, 256, (16, 3073), np.uint8)
        records[:, 0] = np.arange(16) % 10
        (folder / name).write_bytes(records.tobytes())
    return folder


def test_each_config_builds(root, tmp_path, mnist, cifar10):
    built = {}
    paths = {f"{kind}/mnist": [("data.path", str(mnist))] for kind in ("cnn", "diffusion")}
    paths |= {f"{kind}/cifar10": [("data.path", str(cifar10))] for kind in ("vit", "diffusion")}
    text = tmp_path / "input.txt"
    text.write_text("to be or not to be, that is the question\n" * 200)
    paths |= {f"vit/{kind}_cifar10": [("data.path", str(cifar10))] for kind in ("dino", "mae")}
    paths |= {"lm/shakespeare": [("data.path", str(text))]}
    without_files = dict.fromkeys(("clip/siglip_b16", "vit/i1k_s16", "vit/i21k_b16"), ":synthetic")
    for file in sorted((root / "configs").rglob("*.py")):
        name = file.relative_to(root / "configs").with_suffix("").as_posix()
        loaded = load(f"{file}{without_files.get(name, '')}", paths.get(name, []))
        assert loaded.description
        module = import_experiment(loaded.experiment, loaded.project)
        if hasattr(module, "main"):
            continue
        run = prepare(module.build(loaded.config, module.load(loaded.config)), loaded.config)
        built[name] = count_parameters(run.state.params)
    assert built["mlp/digits"] == 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    assert built["vit/cifar10"] == pytest.approx(21.3e6, rel=0.02)
    assert built["vit/i1k_s16"] == pytest.approx(22.2e6, rel=0.02)
    assert built["diffusion/cifar10"] == pytest.approx(63.1e6, rel=0.01)


@pytest.mark.parametrize("config", ["cnn/mnist.py", pytest.param("vit/cifar10.py:tiny", marks=pytest.mark.slow)])
def test_configs_with_files_run_on_them(root, tmp_path, mnist, cifar10, config):
    data = mnist if "mnist" in config else cifar10
    words = [f"--config.data.path={data}", "--config.total_steps=2", "--config.batch_size=16"]
    assert main(["run", str(root / "configs" / config), "--workdir", str(tmp_path / "a"), *words]) == 0


@pytest.mark.parametrize("config", ["cnn/mnist.py", "vit/cifar10.py"])
def test_without_the_files_it_says_what_to_download_and_where_to_put_it(root, tmp_path, capsys, config):
    words = [f"--config.data.path={tmp_path / 'nothing'}", "--workdir", str(tmp_path / "a")]
    assert main(["run", str(root / "configs" / config), *words]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "config.data.path" in told
    assert "download" in told
