"""Dual encoders of any two encoders: features, losses, gradients over a mesh."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import models
from aijax.errors import ConfigError
from aijax.losses import ring_softmax_contrastive_loss
from aijax.parallel import make_mesh


class Average(nn.Module):
    """The least of encoders: the mean of all."""

    width: int

    @nn.compact
    def __call__(self, x, *, mask=None, train=False):
        return nn.Dense(self.width)(x.reshape(len(x), -1).astype(jnp.float32))


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 4, 4, 1)).astype(np.float32), rng.integers(0, 9, (8, 5))


def test_the_dictionary_of_any_two_encoders(quick_jit, random_params, inputs):
    model = models.CLIP(Average(6), Average(7), embed_dim=3)
    params = random_params(model, *inputs)
    assert params["text_projection"]["kernel"].shape == (7, 3)
    params["log_scale"] = jnp.float32(1.5)
    found = quick_jit(model.apply)({"params": params}, *inputs)
    image, text = (np.float64(found[name]) for name in ("image_features", "text_features"))
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, rtol=1e-5)
    logits = np.exp(1.5) * image @ text.T
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-5)
    of_rows, of_columns = (np.log(np.exp(logits).sum(axis)) - np.diag(logits) for axis in (1, 0))
    np.testing.assert_allclose(found["loss"], (of_rows + of_columns).mean() / 2, rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"], (logits.argmax(1) == np.arange(8)).mean())
    raw = quick_jit(lambda x: model.apply({"params": params}, x, unit=False, method="encode_image"))(inputs[0])
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), image, rtol=1e-5, atol=1e-6)


def test_a_sigmoid_loss_has_a_bias_and_first_values_are_those_of_the_papers(quick_jit, inputs):
    for loss, scale, bias in (("softmax", 1 / 0.07, None), ("sigmoid", 10.0, -10.0)):
        model = models.CLIP(Average(6), Average(6), None, loss)
        found, variables = quick_jit(model.init_with_output)(jax.random.key(0), *inputs)
        assert set(variables["params"]) - {"logit_bias"} == {"log_scale", "vision_encoder", "text_encoder"}
        np.testing.assert_allclose(found["scale"], scale, rtol=1e-6)
        assert found.get("bias") == bias
    # fewer texts than images have logits and no loss
    found = jax.eval_shape(model.apply, variables, inputs[0], inputs[1][:3])
    assert found["logits"].shape == (8, 3)
    assert "loss" not in found


def test_the_loss_over_a_ring_of_devices_is_that_of_the_dictionary(quick_jit, random_params, inputs):
    model, mesh = models.CLIP(Average(6), Average(7), embed_dim=3), make_mesh(devices=jax.devices()[:4])
    params = random_params(model, *inputs)

    def over_ring(params):
        image, text = (
            model.apply({"params": params}, x, method=method)
            for x, method in zip(inputs, ("encode_image", "encode_text"), strict=True)
        )
        return ring_softmax_contrastive_loss(image, text, jnp.exp(params["log_scale"]), mesh=mesh)

    wanted = quick_jit(jax.value_and_grad(lambda p: model.apply({"params": p}, *inputs)["loss"]))(params)
    with jax.set_mesh(mesh):
        found = quick_jit(jax.value_and_grad(over_ring))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, wanted)


def test_an_unknown_loss_is_refused(inputs):
    with pytest.raises(ConfigError, match="loss: unknown value 'sigmod'; did you mean 'sigmoid'"):
        jax.eval_shape(models.CLIP(Average(6), Average(6), 3, "sigmod").init, jax.random.key(0), *inputs)
