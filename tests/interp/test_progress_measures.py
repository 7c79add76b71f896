"""Progress measures of modular addition: values of three trained networks, properties, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import models
from aijax.errors import ConfigError, DataError
from aijax.interp import capture
from aijax.interp import progress_measures as pm

CASES = [
    "grok_p47_step1000",
    *(pytest.param(f"grok_{name}", marks=pytest.mark.slow) for name in ("p47_step6000", "p53_step1000")),
]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def published(w):
    """The one-layer transformer of the reference, as our language model: its answer to "=" has one logit more."""
    heads = lambda name: {"kernel": np.concatenate(list(w[f"w.W_{name}"]), axis=1)}  # noqa: E731
    attention = {"query": heads("Q"), "key": heads("K"), "value": heads("V")}
    attention["out"] = {"kernel": w["w.W_O"].reshape(-1, w["w.W_O"].shape[-1])}
    mlp = {name: {"kernel": w[f"w.W_{key}"], "bias": w[f"w.b_{key}"]} for name, key in (("up", "in"), ("down", "out"))}
    model = models.LanguageModel(
        vocab_size=len(w["w.W_E"]), context_length=3, width=64, depth=1, num_heads=4, mlp_width=192, norm="none",
        activation="relu", biases=("up", "down"), tied=False,
    )  # fmt: skip
    params = {
        "embedding": {"embedding": w["w.W_E"]}, "positions": w["w.W_pos"],
        "decoder": {"block_0": {"attention": attention, "mlp": mlp}},
        "head": {"kernel": np.pad(w["w.W_U"], ((0, 0), (0, 1)))},
    }  # fmt: skip
    return model, jax.tree.map(lambda leaf: jnp.asarray(leaf, float), params)


@pytest.mark.parametrize("name", CASES)
def test_measures_are_those_of_the_reference(golden, name):
    case = dict(np.load(golden / f"science/interp/{name}.npz"))
    p = case["w.W_U"].shape[1]
    model, params = published(case)
    a, b, total = pm.modular_pairs(p)
    tokens = np.stack([a, b, np.full_like(a, p)], axis=1)

    def apply_fn(params):
        return model.apply({"params": params}, tokens)[:, -1, :p]

    @jax.jit
    def measure(params, trained):
        logits, values = capture(apply_fn, "decoder/block_0/mlp/hidden")(params)
        embedding = params["embedding"]["embedding"][:p]
        to_logits = params["decoder"]["block_0"]["mlp"]["down"]["kernel"] @ params["head"]["kernel"][:, :p]
        norms = pm.fourier_norms(embedding), pm.fourier_norms(to_logits.T)
        neurons = pm.neuron_frequencies(values["decoder/block_0/mlp/hidden"][:, -1])
        ginis = [pm.gini(norm[1:]) for norm in norms]
        return logits, pm.measure_progress(logits, trained), norms, ginis, neurons, pm.sum_of_squared_weights(params)

    trained = np.zeros(p * p, bool)
    trained[case["train_idx"]] = True
    logits, found, norms, ginis, (frequency, share), squares = jax.device_get(measure(params, trained))

    def check(value, expected):
        np.testing.assert_allclose(value, case[expected], rtol=1e-5, atol=1e-7, err_msg=expected)

    check(logits[:50], "logits_first50")
    check(found.logit_power, "logit_power")
    np.testing.assert_array_equal(found.key_frequencies, case["key_freqs"])
    for ours, theirs in {
        "train_loss": "train_loss", "test_loss": "test_loss", "train_accuracy": "train_acc",
        "test_accuracy": "test_acc", "restricted_loss": "restricted_loss_all",
        "excluded_train_loss": "excluded_loss_train", "excluded_loss": "excluded_loss_all",
        "key_fraction": "trig_fraction_variance",
    }.items():  # fmt: skip
        check(getattr(found, ours), theirs)
    for values, name in zip((*norms, *ginis), ("embed", "neuron_logit") * 2, strict=True):
        check(values, f"{name}_fourier_norms" if np.ndim(values) else f"gini_{name}")
    np.testing.assert_array_equal(frequency, case["neuron_best_freq"])
    check(share, "neuron_best_share")
    check(np.mean(share > 0.85), "frac_neurons_over_85")
    check(squares, "sum_sq_weights")
    accuracy = np.sum(logits.argmax(-1) == total) / p**2
    assert accuracy == pytest.approx(
        np.average([case["train_acc"], case["test_acc"]], weights=[trained.sum(), (~trained).sum()])
    )


@pytest.mark.parametrize(("p", "frequency"), [(5, 2), (6, 3)])
def test_components_are_projections(p, frequency):
    logits = np.random.default_rng(p).normal(size=(p * p, p))
    a, b, total = pm.modular_pairs(p)
    waves = np.stack([np.cos(2 * np.pi * frequency * total / p), np.sin(2 * np.pi * frequency * total / p)])
    waves = waves[np.linalg.norm(waves, axis=1) > 1e-9]
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    component = waves.T @ (waves @ logits)
    neurons = np.stack([np.cos(2 * np.pi * frequency * a / p), np.full(p * p, 3.0), (a == 1) * b], axis=1)

    @jax.jit
    def measure(logits, neurons):
        tables = [change(logits, jnp.array([frequency])) for change in (pm.excluded_logits, pm.restricted_logits)]
        return *tables, pm.logit_power(logits), pm.fourier_basis(p), *pm.neuron_frequencies(neurons)

    excluded, restricted, power, basis, found, share = measure(logits, neurons)
    np.testing.assert_allclose(excluded, logits - component, atol=1e-12)
    np.testing.assert_allclose(restricted, component + (logits - component).mean(0), atol=1e-12)
    assert power[frequency - 1] == pytest.approx(np.sum(component**2))
    np.testing.assert_allclose(basis @ basis.T, np.eye(p), atol=1e-12)
    assert found[0] == frequency and share[0] == pytest.approx(1)
    assert share[1] == 0 and 0 < share[2] < 1  # a neuron that is constant has no frequency


def test_they_are_mapped_compiled_and_differentiated():
    tables = jax.random.normal(jax.random.key(0), (2, 25, 5), jnp.float32)

    def excluded(table):
        found = pm.measure_progress(table, np.arange(25) < 10, 2)
        return found.excluded_loss, found

    (_, found), slopes = jax.jit(jax.vmap(jax.value_and_grad(excluded, has_aux=True)))(tables)
    exact = pm.restricted_logits(tables[1], found.key_frequencies[1])
    _, _, total = pm.modular_pairs(5)
    expected = -jax.nn.log_softmax(exact)[np.arange(25), total].mean()
    assert found.restricted_loss.dtype == jnp.float32 and found.restricted_loss[1] == pytest.approx(
        float(expected), rel=1e-5
    )
    assert np.isfinite(slopes).all() and np.abs(slopes).max() > 0


def test_what_is_no_table_of_all_pairs_is_told():
    with pytest.raises(DataError, match=r"logits: expected a table of all pairs, \[p\^2, p\], got \[24, 5\]"):
        pm.logit_power(jnp.ones((24, 5)))
    with pytest.raises(
        DataError, match=r"activations: expected a table of all pairs, \[p\^2, neurons\], got \[24, 5\]"
    ):
        pm.neuron_frequencies(jnp.ones((24, 5)))
    with pytest.raises(DataError, match=r"trained: expected one boolean a pair, \[25\], got \[3\]"):
        pm.measure_progress(jnp.ones((25, 5)), np.ones(3, bool), 2)
    with pytest.raises(ConfigError, match="count: expected 1 to 2 frequencies, got 3"):
        pm.measure_progress(jnp.ones((25, 5)), np.ones(25, bool), 3)
    with pytest.raises(ConfigError, match=r"frequencies: expected 1 to 2, got \[0, 1\]"):
        pm.restricted_logits(jnp.ones((25, 5)), jnp.array([0, 1]))
    assert np.isnan(jax.jit(pm.excluded_logits)(jnp.ones((25, 5)), jnp.array([0]))).all()
