"""Activation patching and ablation against transformer-lens', and attribution patching against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError, DataError
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


@pytest.fixture(scope="module", params=["gpt2", "llama", "3l"])
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
    names = {"resid_pre": "residual", "attn_out": "branch_attention", "mlp_out": "branch_mlp"}
    sites = {f".*/{site}": (1,) for site in names.values()} | {".*/heads": (2,)}
    found = run(attribution, sites, "corrupted", "clean")
    for name, site in (names | {"head_z": "attention/heads"}).items():
        wanted = case[f"attrib.{name}"]
        np.testing.assert_allclose(stacked(found.values, site, depth), wanted, rtol=1e-6, atol=3e-7, err_msg=name)
