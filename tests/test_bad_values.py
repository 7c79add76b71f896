"""Values that a config may well hold and no run can use: each is told in one sentence, before any device work."""

import pytest

from aijax.errors import ConfigError, UserError
from aijax.launch.config import load
from aijax.launch.projects import import_experiment
from aijax.train import prepare

BAD = {
    "vit/digits": [
        "model.depth=-1", "model.depth=0", "model.width=63", "model.width=0", "model.num_heads=0", "model.num_heads=-2",
        "model.patch_size=3", "model.patch_size=0", "model.patch_size=-2", "model.mlp_ratio=-1.0", "model.pool=max",
        "model.stem_widths=0", "model.stem_widths=(-3,)", "model.name=None", "model.name=resnet", "batch_size=0",
        "batch_size=-8", "total_epochs=-1", "total_epochs=0", "seed=-1", "augment.translate=-1", "augment.mixup=-0.5",
        "optimizer.weight_decay=-0.1", "optimizer.clip_norm=-1.0", "optimizer.learning_rate=-1.0",
        "optimizer.name=adma", "schedule.warmup_fraction=2.0", "schedule.warmup_fraction=-0.1", "schedule.name=cos",
        "checkpoint.keep_last=0", "checkpoint.every_fraction=1.5", "mesh.data=0", "mesh.fsdp=-2", "mesh.tensor=3",
        "ema_decay=1.5", "evaluate_every_epochs=-1", "log_every_steps=-5", "data.source=digit",
    ],
    "lm/chars": [
        "data.length=0", "data.length=10000000", "data.validation_fraction=1.0", "data.validation_fraction=-0.1",
        "data.validation_fraction=0.0", "data.tokenizer=words", "data.path=nowhere.txt", "model.width=130",
        "model.positions=absolute", "sample.length=-1", "sample.temperature=-1.0",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def ready(root):
    def build(config, override):
        loaded = load(str(root / "configs" / f"{config}.py"), [tuple(override.split("=", 1))])
        module = import_experiment(loaded.experiment, loaded.project)
        return prepare(module.build(loaded.config, module.load(loaded.config)), loaded.config)

    return build


@pytest.mark.parametrize(("config", "override"), [(config, text) for config in BAD for text in BAD[config]])
def test_it_is_told_in_one_sentence(ready, config, override):
    with pytest.raises(UserError) as caught:
        ready(config, override)
    told = str(caught.value)
    assert len(told.splitlines()) == 1
    assert caught.value.exit_status == 2
    assert override.split("=")[0].split(".")[-1] in told


def test_the_error_of_a_config_is_a_value_error():
    assert issubclass(ConfigError, ValueError)
