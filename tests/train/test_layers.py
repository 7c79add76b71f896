import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aijax import models
from aijax.errors import ConfigError
from aijax.train import layer_multipliers, make_optimizer
from aijax.trees import named_leaves


@pytest.fixture(scope="module")
def shapes():
    model = models.ViT(patch_size=4, embed_dim=8, depth=3, num_heads=2, num_classes=5, stem_widths=(4,))
    image = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    return jax.eval_shape(lambda key: models.init(key, model, image), jax.random.key(0))


def test_each_layer_of_a_vit_has_its_rate(shapes):
    rates = named_leaves(layer_multipliers(shapes, 0.5))
    for name, rate in rates.items():
        first = name.split("/")[0]
        if first in ("embedding", "stem_0", "class_token", "positions"):
            assert rate == 0.5**4, name
        elif "block_" in name:
            assert rate == 0.5 ** (3 - int(name.split("block_")[1][0])), name
        else:
            assert rate == 1, name
    assert {"head/kernel", "encoder/norm/scale"} <= {name for name, rate in rates.items() if rate == 1}


def test_stacked_blocks_learn_as_looped_ones_do():
    looped = {"block_0": {"w": jnp.ones(2)}, "block_1": {"w": jnp.ones(2)}, "head": jnp.ones(2)}
    stacked = models.stack_blocks(looped)
    section = {"name": "adamw", "weight_decay": 0.1, "layer_decay": 0.5, "weight_decay_rules": ((".*", 1.0),)}

    def stepped(params):
        optimizer, _ = make_optimizer(section, lambda step: 0.1, params)
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    jax.tree.map(np.testing.assert_allclose, stepped(stacked), models.stack_blocks(stepped(looped)))
    fall = 1 - stepped(looped)["head"]
    np.testing.assert_allclose(1 - stepped(looped)["block_0"]["w"], 0.25 * fall, rtol=1e-5)


@pytest.mark.parametrize(
    ("decay", "tree", "message"),
    [
        (0.0, {"block_0": {"w": jnp.ones(2)}}, "config.optimizer.layer_decay: expected a number above 0 and up to 1"),
        (0.5, {"dense": jnp.ones(2)}, "config.optimizer.layer_decay: the model has no blocks"),
    ],
)
def test_mistakes_are_told(decay, tree, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer({"layer_decay": decay}, lambda step: 0.1, tree)
