"""Activation patching and ablation against transformer-lens', and attribution patching against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError, DataError, UnsupportedError
from aijax.interp import tap
from aijax.interp.patching import attribution, sweep

PATCHES = {
    "resid_pre": ("residual", (1,)),
    "resid_mid": ("residual_attention", (1,)),
    "attn_out": ("branch_attention", (1,)),
    "mlp_out": ("branch_mlp", (1,)),
    "head_z_by_pos": ("attention/heads", (1, 2)),
    "head_q_all_pos": ("attention/queries", (2,)),
    "head_v_all_pos": ("attention/values", (2,)),
    "head_pattern_all_pos": ("attention/weights", (1,)),
}


SLOWER = [pytest.param(name, marks=pytest.mark.slow) for name in ("llama", "3l")]


@pytest.fixture(scope="module", params=["gpt2", *SLOWER])
def patched(request, hooked):
    """Returns the case, its number of layers, and a function that runs `sweep` or another on it."""
    with jax.enable_x64(True):
        model, params, case = hooked(f"tl_patch_{request.param}")

    def metric(logits):
        last, rows = logits[:, -1], jnp.arange(len(case["answer"]))
        return jnp.mean(last[rows, case["answer"]] - last[rows, case["wrong"]])

    def run(transform, sites, inputs, source=None, **options):
        with jax.enable_x64(True):
            program = transform(
                lambda params, tokens: model.apply({"params": params}, tokens), metric, sites, **options
            )
            inputs, source = (None if x is None else jnp.asarray(case[x]) for x in (inputs, source))
            return jax.jit(program)(params, inputs, source)

    return case, model.depth, run


def stacked(values, site, depth):
    return np.stack([values[f"decoder/block_{i}/{site}"] for i in range(depth)])


def test_denoising_is_that_of_the_reference(patched):
    case, depth, run = patched
    wanted = {name: what for name, what in PATCHES.items() if f"patch.{name}" in case}
    sites = {f"decoder/block_\\d/{site}": axes for site, axes in wanted.values()}
    found = run(sweep, sites, "corrupted", "clean", batch_size=16)
    for name, (site, _) in wanted.items():
        np.testing.assert_allclose(
            stacked(found.values, site, depth), case[f"patch.{name}"], rtol=1e-6, atol=3e-7, err_msg=name
        )
    np.testing.assert_allclose(found.unpatched, case["metric_corrupted"], rtol=1e-6)
    np.testing.assert_allclose(found.source, case["metric_clean"], rtol=1e-6)


@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
def test_ablating_heads_is_that_of_the_reference(patched, ablation):
    case, depth, run = patched
    source = "corrupted" if ablation == "resample" else None
    found = run(sweep, {".*/heads": (2,)}, "clean", source, ablation=ablation)
    np.testing.assert_allclose(
        stacked(found.values, "attention/heads", depth), case[f"{ablation}_ablation_head"], rtol=1e-6, atol=3e-7
    )


def test_attribution_is_that_of_the_reference(patched):
    case, depth, run = patched
    names = {
        "resid_pre": "residual",
        "attn_out": "branch_attention",
        "mlp_out": "branch_mlp",
        "head_z": "attention/heads",
    }
    names = {name: site for name, site in names.items() if f"attrib.{name}" in case}
    sites = {f".*/{site}": (2,) if site.endswith("heads") else (1,) for site in names.values()}
    found = run(attribution, sites, "corrupted", "clean")
    for name, site in names.items():
        wanted = case[f"attrib.{name}"]
        np.testing.assert_allclose(stacked(found.values, site, depth), wanted, rtol=1e-6, atol=3e-7, err_msg=name)


def layer(x, w):
    return x + tap("branch", jnp.tanh(tap("inner", x @ w)))


def scanned(weights, x):
    return jax.lax.scan(lambda x, w: (layer(x, w), None), x, weights)[0]


WEIGHTS = 0.5 * np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
INPUTS, SOURCE = np.random.default_rng(1).normal(size=(2, 2, 5, 4)).astype(np.float32)


def by_hand(place):
    """The sum of outputs where `inner` at (layer, position) is that of the source."""
    x, other = INPUTS, SOURCE
    for number, w in enumerate(WEIGHTS):
        inner, put = x @ w, other @ w
        if number == place[0]:
            inner = inner.copy()
            inner[:, place[1]] = put[:, place[1]]
        x, other = x + np.tanh(inner), other + np.tanh(put)
    return x.sum()


def test_layers_of_a_scan_are_patched_one_at_a_time():
    run = sweep(scanned, jnp.sum, {"inner": (1,)}, batch_size=4)
    found = jax.jit(run)(WEIGHTS, INPUTS, SOURCE)
    wanted = [[by_hand((number, position)) for position in range(5)] for number in range(3)]
    np.testing.assert_allclose(found.values["inner"], wanted, rtol=1e-5)
    devices = jax.device_put(INPUTS, jax.sharding.NamedSharding(jax.make_mesh((2,), ("data",)), jax.P("data")))
    np.testing.assert_allclose(jax.jit(run)(WEIGHTS, devices, SOURCE).values["inner"], wanted, rtol=1e-5)


def test_negative_axes_whole_values_and_several_at_once():
    sites = {"inner": (-2,), "branch": ()}
    found = sweep(scanned, jnp.sum, sites, batch_size=100)(WEIGHTS, INPUTS, SOURCE).values
    inner, branch = found["inner"], found["branch"]
    np.testing.assert_allclose(inner[1, 2], by_hand((1, 2)), rtol=1e-5)
    zero = sweep(scanned, jnp.sum, {"branch": ()}, ablation="zero")(WEIGHTS, INPUTS, SOURCE)
    np.testing.assert_allclose(zero.source, scanned(WEIGHTS, SOURCE).sum(), rtol=1e-5)
    np.testing.assert_allclose(zero.values["branch"][2], scanned(WEIGHTS[:2], INPUTS).sum(), rtol=1e-5)
    assert inner.shape == (3, 5) and branch.shape == (3,)


def test_sweeps_are_differentiated_and_mapped():
    @jax.jit
    def slope(scale):
        found = sweep(scanned, jnp.sum, {"inner": (1,)}, ablation="zero")(scale * WEIGHTS, INPUTS)
        return found.values["inner"][1, 2]

    step = 1e-2
    numeric = (slope(1 + step) - slope(1 - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(slope))(1.0), numeric, rtol=1e-2)
    many = jax.jit(jax.vmap(slope))(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(many[1], slope(1.0), rtol=1e-5)


def twice(weights, x):
    return layer(layer(x, weights[0]), weights[1])


@pytest.mark.parametrize(
    ("sites", "metric", "error", "told"),
    [
        ({"iner": (1,)}, jnp.sum, ConfigError, "names: 'iner' matches no value of the function; did you mean 'inner'"),
        (
            {"inner": (3,)},
            jnp.sum,
            ConfigError,
            r"sites\['inner'\]: expected different axes of a value of rank 3, got \[3\]",
        ),
        ({"inner": (1, -2)}, jnp.sum, ConfigError, r"sites\['inner'\]: expected different axes of a value of rank 3"),
        (
            {"inner": (1,)},
            lambda y: y,
            ConfigError,
            r"metric: expected a scalar of the output, got the shape \[2, 5, 4\]",
        ),
        ({"inner": (1,)}, lambda y: 1.0 + 0 * INPUTS.sum(), ConfigError, "metric: it does not depend on 'inner'"),
    ],
)
def test_sites_and_metrics_that_will_not_do_are_told(sites, metric, error, told):
    with pytest.raises(error, match=told):
        sweep(scanned, metric, sites)(WEIGHTS, INPUTS, SOURCE)
    with pytest.raises(error, match=told):
        attribution(scanned, metric, sites)(WEIGHTS, INPUTS, SOURCE)


def test_runs_that_will_not_do_are_told():
    with pytest.raises(DataError, match="source: ablation 'resample' takes values of a run of it, got None"):
        sweep(scanned, jnp.sum, {"inner": (1,)})(WEIGHTS, INPUTS)
    with pytest.raises(DataError, match=r"source: inner is \[3, 2, 5, 4\] in a run of inputs and \[3, 2, 4, 4\]"):
        sweep(scanned, jnp.sum, {"inner": (1,)})(WEIGHTS, INPUTS, SOURCE[:, :4])
    with pytest.raises(ConfigError, match="ablation: unknown value 'zeros'; did you mean 'zero'"):
        sweep(scanned, jnp.sum, {"inner": (1,)}, ablation="zeros")(WEIGHTS, INPUTS)
    with pytest.raises(ConfigError, match="batch_size: expected 1 or more, got 0"):
        sweep(scanned, jnp.sum, {"inner": (1,)}, batch_size=0)
    with pytest.raises(ConfigError, match=r"mean_over: inner has no such axes, got \[3\]"):
        sweep(scanned, jnp.sum, {"inner": (1,)}, ablation="mean", mean_over=(3,))(WEIGHTS, INPUTS)
    with pytest.raises(UnsupportedError, match="inner: it is made 2 times"):
        sweep(twice, jnp.sum, {"inner": (1,)}, ablation="zero")(WEIGHTS, INPUTS)
