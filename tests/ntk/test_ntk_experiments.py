"""The experiments on tangent kernels, at a size of seconds: they run, give what they say and draw their figures."""

import importlib.util

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def run(root, tmp_path):
    """`run(experiment, config_file, changes) -> metrics` in a folder of its own."""

    def load(path):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def run(experiment, config_file, changes):
        config = load(root / "configs" / "ntk" / config_file).get_config()
        config.update(changes)
        (tmp_path / "figures").mkdir()
        return load(root / "experiments" / experiment).main(config, tmp_path)

    return run


def test_width_convergence(run, tmp_path):
    metrics = run(
        "ntk_width_convergence.py",
        "width_convergence.py",
        {
            "activation": "Relu",
            "depth": 1,
            "train_points": 4,
            "test_points": 8,
            "widths": (16, 256),
            "trained_widths": (16, 256),
            "networks": 6,
            "trained_networks": 2,
            "steps": 20,
            "ensemble_width": 64,
            "ensemble_members": 16,
        },
    )
    assert -1 < metrics["slope_at_initialisation"] < -0.1 and metrics["slope_of_change_in_training"] < -0.1
    assert metrics["share_within_two_standard_deviations"] > 0.8
    assert (tmp_path / "figures" / "width_convergence.png").stat().st_size > 10_000


def test_cifar_with_few_images(run, tmp_path):
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        records = rng.integers(0, 256, (30, 3073), np.uint8)
        records[:, 0] = np.arange(30) % 10
        records[:, 1:1025] = 20 * records[:, :1] + records[:, 1:1025] // 16  # a class shows in the red channel
        (tmp_path / name).write_bytes(records.tobytes())
    networks = {"vanilla_32x32": {"image_size": 4, "depth": 1}, "gap_8x8": {"image_size": 2, "depth": 1}}
    changes = {"networks": networks, "sizes": (10, 30), "test_images": 20, "repeats": 2}
    metrics = run("ntk_cifar_cntk.py", "cifar_cntk.py", {"data": {"path": str(tmp_path)}, **changes})
    assert metrics["vanilla_32x32_ntk_30"] > 0.3  # of ten classes
    assert (tmp_path / "figures" / "accuracy.png").stat().st_size > 10_000
