"""Activation patterns of neurons: brute force, streams, devices, layers of a scan, and what is refused."""

import jax
import numpy as np
import pytest

from aijax import models, parallel
from aijax.errors import ConfigError, DataError
from aijax.interp import capture, compute_neuron_activation_patterns
from aijax.taps import tap

EXAMPLES, POSITIONS, NEURONS, CLASSES = 30, 3, 4, 5


def apply_fn(w, x):
    return tap("layer/hidden", jax.nn.relu(x @ w)).sum(1)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(2, NEURONS))
    w[:, 3] = 0  # dead
    labels = rng.integers(0, CLASSES - 1, EXAMPLES)  # the last class has no example
    return w, rng.normal(size=(EXAMPLES, POSITIONS, 2)), labels


def test_all_measures_are_those_of_the_whole_set_at_once(data):
    w, x, labels = data
    with jax.enable_x64(True):
        batches = iter([x[:12], x[12:24], x[24:]])  # the last is shorter
        found = compute_neuron_activation_patterns(
            apply_fn, w, batches, ".*/hidden", labels=labels, num_classes=CLASSES, top_k=7, threshold=0.2
        )
    found = jax.device_get(found)
    values = np.maximum(x @ w, 0)
    flat = values.reshape(-1, NEURONS)
    np.testing.assert_allclose(found.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.variance, flat.var(0), rtol=1e-12)
    np.testing.assert_allclose(found.active_fraction, (flat > 0.2).mean(0))
    density = flat[:, :3].mean(0) ** 2 / (flat[:, :3] ** 2).mean(0)
    np.testing.assert_allclose(found.sparseness, [*(1 - density) / (1 - 1 / len(flat)), 0], rtol=1e-12)
    order = np.argsort(-values.max(1), axis=0, kind="stable")[:7].T
    np.testing.assert_array_equal(found.top_examples, order)
    for neuron in range(NEURONS):
        best = values[order[neuron], :, neuron]
        np.testing.assert_allclose(found.top_values[neuron], best.max(1))
        np.testing.assert_array_equal(found.top_positions[neuron], best.argmax(1))

    told = found.classes
    means = np.stack([values[labels == c].mean((0, 1)) for c in range(CLASSES - 1)], axis=1)
    np.testing.assert_allclose(told.means[:, :-1], means, rtol=1e-12)
    assert np.isnan(told.means[:, -1]).all()
    np.testing.assert_array_equal(told.preferred, means.argmax(1))
    best, others = means.max(1), (means.sum(1) - means.max(1)) / (CLASSES - 2)
    np.testing.assert_allclose(told.selectivity[:3], (best[:3] - others[:3]) / (best[:3] + others[:3]), rtol=1e-10)
    counts = np.bincount(labels, minlength=CLASSES - 1) * POSITIONS
    between = (counts * (means - flat.mean(0)[:, None]) ** 2).sum(1)
    np.testing.assert_allclose(told.explained_variance[:3], between[:3] / (flat[:, :3].var(0) * len(flat)), rtol=1e-10)
    shares = means[:3] / means[:3].sum(1, keepdims=True)
    np.testing.assert_allclose(told.effective_classes[:3], np.exp(-(shares * np.log(shares)).sum(1)), rtol=1e-10)
    for measure in (told.selectivity, told.explained_variance, told.effective_classes):
        assert measure[3] == 0
    purity = [np.bincount(labels[row]).max() / 7 for row in order]
    np.testing.assert_allclose(told.top_purity, purity)
    directions = means - means.mean(1, keepdims=True)
    for c in range(CLASSES - 1):
        length = np.linalg.norm(directions[:, c])
        share = length**2 / np.sum((directions[:, c] @ directions / length) ** 2)
        assert told.dimensionality[c] == pytest.approx(share)
    assert told.dimensionality[-1] == 0


def test_on_many_devices_and_compiled_it_is_the_same(data):
    w, x, labels = (np.asarray(part, np.float32 if part.dtype == float else np.int32) for part in data)
    x, labels = x[:24], labels[:24]

    def run(w, x):
        return compute_neuron_activation_patterns(apply_fn, w, [x[:16], x[16:]], "layer/hidden", labels=labels, top_k=3)

    mesh = parallel.make_mesh(data=8)
    spread = run(jax.device_put(w, parallel.replicated(mesh)), jax.device_put(x, parallel.batch_sharding(mesh)))
    for ours, theirs in zip(jax.tree.leaves(spread), jax.tree.leaves(jax.jit(run)(w, x)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_layer_of_a_scan_and_a_module_by_its_path(random_params):
    model = models.LanguageModel(vocab_size=7, context_length=4, width=8, depth=2, num_heads=2, scan=True)
    tokens = np.arange(24).reshape(6, 4) % 7
    params = random_params(model, tokens)

    def apply_fn(params, tokens):
        return model.apply({"params": params}, tokens)

    whole = {"layer_name": "decoder/blocks/mlp/up", "top_k": 2}
    found = compute_neuron_activation_patterns(apply_fn, params, tokens, layer=1, **whole)
    assert found.classes is None
    _, values = jax.jit(capture(apply_fn, "decoder/blocks/mlp/up"))(params, tokens)
    np.testing.assert_allclose(found.mean, values["decoder/blocks/mlp/up"][1].mean((0, 1)), rtol=1e-4, atol=1e-6)
    with pytest.raises(DataError, match=r"decoder/blocks/mlp/up is \[2, 6, 4, 32\]; of a scan over layers, `layer`"):
        compute_neuron_activation_patterns(apply_fn, params, tokens, **whole)
    with pytest.raises(ConfigError, match="layer: expected 0 to 1 of decoder/blocks/mlp/up, got 2"):
        compute_neuron_activation_patterns(apply_fn, params, tokens, layer=2, **whole)


@pytest.mark.parametrize(
    ("how", "error", "told"),
    [
        ({"layer_name": "layer/hiden"}, ConfigError, "'layer/hiden' matches no value.*'layer/hidden'"),
        ({"layer_name": ".*", "batches": "two"}, ConfigError, "layer_name: expected the name of one value"),
        ({"top_k": 0}, ConfigError, "top_k: expected 1 example or more, got 0"),
        ({"top_k": 31}, DataError, "top_k: expected at most the 30 examples that there are, got 31"),
        ({"batches": []}, DataError, "batches: expected one or more, got none"),
        ({"labels": np.zeros(29, int)}, ConfigError, "num_classes: expected 2 or more to tell apart, got 1"),
        ({"labels": np.arange(29) % 2}, DataError, "labels: expected one for each example"),
        ({"labels": np.arange(31) % 2}, DataError, "labels: expected one for each example, got 31 for 30 examples"),
        ({"labels": np.arange(30), "num_classes": 9}, ConfigError, "labels: expected numbers from 0 to 8, got 29"),
    ],
)
def test_what_cannot_be_is_told(data, how, error, told):
    w, x, _ = data
    how = {"batches": [x], "layer_name": "layer/hidden"} | how
    function = apply_fn
    if how["batches"] == "two":
        how["batches"], function = [x], lambda w, x: tap("second", apply_fn(w, x))
    with pytest.raises(error, match=told):
        compute_neuron_activation_patterns(function, w, how.pop("batches"), how.pop("layer_name"), **how)
