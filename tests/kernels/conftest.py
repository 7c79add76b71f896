"""What tests of kernels share: float64, and the reference cases."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def case(golden):
    """`case(name)`: the parameters, the points x and z, and `check(result, array)` at the stated tolerance."""

    def load(name):
        entry = json.loads((golden / "gp" / "kernel_cases.json").read_text())[name]
        arrays = dict(np.load(golden / "gp" / f"{name}.npz"))

        def check(result, array, where=...):
            np.testing.assert_allclose(result[where], arrays[array][where], entry["rtol"], entry["atol"])

        return SimpleNamespace(params=entry["params"], x=arrays["x"], z=arrays["z"], check=check)

    return load
