import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import evaluation
from aijax.errors import ConfigError


def test_head_and_accuracy_are_the_references(case):
    about, arrays = case("zero_shot/z0")
    with jax.enable_x64(True):
        weights = evaluation.class_weights(jnp.asarray(arrays["template_text_features"]))
        np.testing.assert_allclose(weights, arrays["class_weights"], atol=1e-12)
        scores = jax.jit(evaluation.zero_shot_scores)(jnp.asarray(arrays["image_features"]), weights)
        np.testing.assert_allclose(scores, arrays["scores"], atol=1e-12)
        labels = jnp.asarray(arrays["labels"])
        for k in (1, 5):
            np.testing.assert_allclose(evaluation.top_k_accuracy(scores, labels, k), about[f"top{k}"], atol=1e-12)


def test_recall_is_the_references(case):
    about, arrays = case("zero_shot/z0")
    with jax.enable_x64(True):
        image, text, index = (
            jnp.asarray(arrays[key]) for key in ("image_features", "text_features", "text_to_image_index")
        )
        recall = jax.jit(evaluation.retrieval_recall)(image, text, index)
        for k in (1, 5, 10):
            np.testing.assert_allclose(recall[f"image_to_text_r{k}"], about[f"i2t_r{k}"], atol=1e-12)
            np.testing.assert_allclose(recall[f"text_to_image_r{k}"], about[f"t2i_r{k}"], atol=1e-12)


def test_ranks_are_those_of_sorting():
    rng = np.random.default_rng(0)
    image, text, index = rng.normal(size=(7, 4)), rng.normal(size=(15, 4)), rng.integers(0, 6, 15)
    scores = image @ text.T / np.linalg.norm(image, axis=1)[:, None] / np.linalg.norm(text, axis=1)
    ranks = evaluation.retrieval_ranks(jnp.asarray(image), jnp.asarray(text), jnp.asarray(index))
    for i in range(7):
        order = index[np.argsort(-scores[i])]
        assert ranks.image_to_text[i] == (np.flatnonzero(order == i)[0] if i in index else -1)
    for j in range(15):
        assert ranks.text_to_image[j] == np.flatnonzero(np.argsort(-scores[:, j]) == index[j])[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluation.fill_templates(["cat"], ["a photo"]), r"expected '\{\}' once"),
        (lambda: evaluation.fill_templates(["cat"], []), "templates: expected at least one"),
        (lambda: evaluation.top_k_accuracy(jnp.ones((1, 3)), jnp.zeros(1, int), 4), "k: expected 1 to 3"),
        (lambda: evaluation.retrieval_recall(jnp.ones((1, 3)), jnp.ones((2, 3)), jnp.zeros(1, int)), "of n texts"),
    ],
)
def test_mistakes_are_told(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
