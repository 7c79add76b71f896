"""What a model makes of a whole set: all rows, in order, where the last batch is not full."""

import jax.numpy as jnp
import numpy as np

from aijax.data.source import ArraySource
from aijax.train import outputs


def test_outputs_are_of_every_example_once():
    source = ArraySource({"x": np.arange(14, dtype=np.float32).reshape(7, 2), "y": np.arange(7)})
    total, label = outputs(lambda batch: (jnp.sum(batch["x"], axis=1), batch["y"]), source, batch_size=3)
    np.testing.assert_array_equal(total, source.arrays["x"].sum(axis=1))
    np.testing.assert_array_equal(label, np.arange(7))
