"""Reference values of evaluations."""

import json

import numpy as np
import pytest


@pytest.fixture
def case(golden):
    """`read(name) -> (parameters, arrays)` of a golden case."""

    def read(name):
        folder = golden / "vision_text" / name
        return json.loads((folder / "case.json").read_text()), dict(np.load(folder / "data.npz"))

    return read
