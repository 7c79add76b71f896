"""Models by name from a config section."""

import jax
import jax.numpy as jnp
import pytest

from aijax import models
from aijax.errors import ConfigError


@pytest.mark.parametrize(
    ("section", "shape"),
    [
        ({"name": "mlp", "widths": (8, 4)}, (2, 3)),
        ({"name": "cnn", "widths": (8, 16), "convolutions": 2}, (2, 8, 8, 3)),
        ({"name": "cnn", "widths": (6,), "norm": "none", "dropout_rate": 0.1}, (2, 8, 8, 3)),
        ({"name": "vit", "variant": "mu/4", "pool": "gap"}, (2, 8, 8, 3)),
    ],
)
def test_a_section_makes_a_classifier(section, shape):
    model = models.build(section, num_classes=7)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert jax.eval_shape(model.init_with_output, jax.random.key(0), x)[0].shape == (2, 7)


def test_a_language_model_takes_its_vocabulary_from_the_caller():
    section = {"name": "lm", "context_length": 4, "width": 8, "depth": 1, "num_heads": 2}
    assert models.build(section, vocab_size=9).vocab_size == 9


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, "config.model.name: missing"),
        ({"name": "vitt"}, "did you mean 'vit'"),
        ({"name": "vit", "variant": "Bi/16"}, "config.model.variant: unknown value 'Bi'"),
        ({"name": "mlp", "variant": "B/16"}, "config.model.variant: mlp has no named sizes"),
        ({"name": "vit", "variant": "B/16", "dept": 3}, "config.model.dept: unknown field; did you mean 'depth'"),
        ({"name": "vit"}, "config.model.patch_size: missing"),
        (
            {"name": "vit", "variant": "mu/4", "pool": "avg"},
            "config.model.pool: expected one of 'cls', 'gap', .*, got 'avg'",
        ),
        ({"name": "mlp", "widths": (8, "4")}, "config.model.widths: expected"),
        ({"name": "mlp", "num_classes": 3}, "config.model.num_classes: unknown field"),
    ],
)
def test_a_mistake_is_a_sentence_that_names_the_field(section, said):
    with pytest.raises(ConfigError, match=said):
        models.build(section, num_classes=7)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (models.CNN(widths=(8, 8, 8, 8, 8), num_classes=3), "halve an image of 8 x 8 to nothing"),
        (models.CNN(widths=(12,), num_classes=3), "num_groups: expected a divisor of the width 12, got 8"),
        (models.MLP(activation="rellu"), "did you mean 'relu'"),
    ],
)
def test_a_model_refuses_what_it_cannot_be(model, said):
    with pytest.raises(ConfigError, match=said):
        jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 8, 8, 1)))
