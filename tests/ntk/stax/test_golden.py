"""Infinite-width kernels against reference values, in both precisions."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import build

CASES = {case["id"]: case for case in build.cases()}

LONG = ("myrtle", "wideresnet", "d50", "cntk_vanilla_d4", "cntk_vanilla_d7", "resize", "_d5", "downsample", "stride21")
LONG += ("cnn_1d_erf", "cnn_relu_valid", "sumpool", "stride2_circular", "biaslast", "cnn_gelu", "erf_x3", "mixed_d4")


def run(case: dict, dtype) -> tuple[dict, dict]:
    """The kernels of a case and their reference values."""
    reference = build.arrays(case)
    with jax.enable_x64(dtype == np.float64):
        # Tests run each program once, on little data: code that is made quickly serves best.
        options = {"xla_backend_optimization_level": 0}
        kernel_fn = jax.jit(build.network(case["layers"])[2], static_argnames="get", compiler_options=options)
        kwargs = {"mask_constant": case["inputs"]["mask"]} if "mask" in case["inputs"] else {}
        x1, x2 = (reference[name].astype(dtype) for name in ("x1", "x2"))
        got = {}
        for pair, second in (("12", x2), ("11", None)):
            if case["inputs"].get("pattern"):
                patterns = (reference["pattern1"], reference["pattern2" if pair == "12" else "pattern1"])
                kwargs["pattern"] = tuple(p.astype(dtype) for p in patterns)
            kernel = kernel_fn(x1, second, get=("nngp", "ntk"), **kwargs)
            got |= {f"{name}_{pair}": np.asarray(getattr(kernel, name)) for name in ("nngp", "ntk")}
    return got, reference


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if any(w in n for w in LONG) else n for n in CASES]
)
def test_kernels_equal_the_reference_values(name):
    case = CASES[name]
    got, reference = run(case, np.float64)
    for key, value in got.items():
        tolerance = case["tol"][key] if isinstance(case["tol"], dict) else case["tol"]
        assert value.shape == reference[key].shape
        assert np.abs(value - reference[key]).max() <= tolerance * np.abs(reference[key]).max(), key


QUICK = ("fcedge_relu_d2_bias", "cnn_relu_standard_flatten", "att_softmax_flatten")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
def test_single_precision_keeps_five_digits(name):
    got, reference = run(CASES[name], np.float32)
    for key, value in got.items():
        assert value.dtype == np.float32
        assert np.abs(value - reference[key]).max() <= 1e-5 * np.abs(reference[key]).max(), key
