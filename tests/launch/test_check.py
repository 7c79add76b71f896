"""`aijax check`: what it finds, also on a mesh that this machine has not, and that it trains nothing."""

import json

import pytest

CONFIG = '''"""A tiny ViT."""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        {
            "experiment": "train_classifier",
            "seed": 0,
            "batch_size": 64,
            "total_epochs": 2,
            "data": {"source": "digits"},
            "model": {"name": "vit", "patch_size": 2, "embed_dim": 64, "depth": 2, "num_heads": 2, "pool": "gap"},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "schedule": {"name": "cosine", "warmup_fraction": 0.1},
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
        }
    )
'''


@pytest.fixture(scope="module")
def check(start_aijax, tiny):
    """`check(*words) -> (status, output, errors)` of `aijax check` in the project folder."""

    def run(*words):
        process = start_aijax("check", "configs/tiny.py", *words, cwd=tiny)
        output, errors = process.communicate(timeout=300)
        return process.returncode, output, errors

    return run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "configs").mkdir()
    (folder / "configs" / "tiny.py").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def found(check, tiny):
    """What a check on 64 devices writes and prints."""
    status, output, errors = check("--devices", 64, "--config.mesh.fsdp=16", "--json", "found.json")
    assert status == 0, errors
    return json.loads((tiny / "found.json").read_text()), output


def test_it_finds_parameters_durations_and_data(found):
    facts, output = found
    patches, block = (4 * 64 + 64) + 16 * 64, 2 * 64 * 2 + 4 * (64 * 64 + 64) + (64 * 256 + 256) + (256 * 64 + 64)
    assert facts["parameter_count"] == patches + 2 * block + 2 * 64 + 64 * 10 + 10
    assert facts["durations"]["total_steps"] == 45
    assert facts["durations"]["warmup_steps"] == 4
    assert facts["data"]["train"]["length"] == 1437
    assert facts["config"]["mesh"]["fsdp"] == 16
    for word in ("encoder/block_*/mlp/up/kernel", "64 devices", "1,437 examples", "total_steps", "A tiny ViT."):
        assert word in output


def test_it_says_what_each_device_holds_and_does(found):
    facts, _ = found
    assert facts["mesh"] == {"data": 4, "fsdp": 16, "tensor": 1}
    kernel = next(p for p in facts["parameters"] if p["name"] == "encoder/block_0/mlp/up/kernel")
    assert (kernel["shape"], kernel["partition"]) == ([64, 256], [None, "fsdp"])
    assert kernel["bytes_per_device"] == 64 * 256 * 4 // 16
    counted = facts["flops_per_step"]
    assert counted["products_per_device"] * 64 == pytest.approx(counted["products"], rel=0.05)
    memory = facts["bytes_per_device"]
    assert memory["state"] == pytest.approx(facts["state_bytes"] / 16, rel=0.05)
    assert memory["activations"] > 0


def test_it_leaves_no_run_behind(found, tiny):
    assert sorted(path.name for path in tiny.iterdir() if not path.name.startswith("__")) == [
        "configs",
        "found.json",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--devices", "48"], "config.batch_size: 64 examples cannot be split"),
        (["--devices", "8", "--config.mesh.fsdp=3"], "config.mesh"),
        (["--config.model.patch_size=3"], "patches of 3 x 3 pixels do not divide an image of 8 x 8"),
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence(check, words, said):
    status, _, errors = check(*words)
    assert (status, len(errors.strip().splitlines())) == (2, 1)
    assert errors.startswith("aijax: ") and said in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "mesh", "example"),
    [
        ("i1k_s16", 22_122_472, {"data": 256, "fsdp": 1, "tensor": 1}, 27.5e9),
        ("i21k_b16", 103_184_209, {"data": 32, "fsdp": 8, "tensor": 1}, 98.2e9),
    ],
)
def test_recipes_for_accelerators_fit_256_devices(start_aijax, root, tmp_path, name, parameters, mesh, example):
    words = (f"configs/vit/{name}.py:synthetic", "--devices", 256, "--json", tmp_path / "found.json")
    process = start_aijax("check", *words, cwd=root)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    facts = json.loads((tmp_path / "found.json").read_text())
    assert (facts["parameter_count"], facts["mesh"]) == (parameters, mesh)
    counted, memory = facts["flops_per_step"], facts["bytes_per_device"]
    assert counted["products"] == pytest.approx(facts["config"]["batch_size"] * example, rel=0.01)
    assert counted["products_per_device"] * 256 == pytest.approx(counted["products"], rel=0.05)
    assert memory["state"] == pytest.approx(facts["state_bytes"] / mesh["fsdp"], rel=0.05)
    assert memory["state"] + memory["activations"] < 4 * 2**30
