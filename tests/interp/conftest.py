"""Small transformers of the reference: their weights, tokens and what was found in them."""

import json

import numpy as np
import pytest

from aijax.models.published.transformer_lens import from_hooked_transformer


@pytest.fixture(scope="session")
def hooked(golden):
    """Returns `read(name) -> (model, params, values of the case)`, in float64."""
    folder = golden / "science" / "interp"
    configs = json.loads((folder / "transformers.json").read_text())

    def read(name):
        with np.load(folder / f"{name}.npz") as stored:
            case = dict(stored)
        tensors = {key[2:]: value.astype(np.float64) for key, value in case.items() if key.startswith("w.")}
        return *from_hooked_transformer(configs[name], tensors), case

    return read
