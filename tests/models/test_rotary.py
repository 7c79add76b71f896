"""Frequencies of rotary positions against those of a reference, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.models.rotary import rotary_angles, rotate, scaled_frequencies

LONG = {
    "rope_type": "longrope", "factor": 4.0, "short_factor": [1.0, 1.2, 1.3, 1.5], "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 16,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
OTHER_YARN = {
    "rope_type": "yarn", "factor": 4.0, "beta_fast": 8.0, "beta_slow": 2.0, "mscale": 0.7, "mscale_all_dim": 1.2,
    "truncate": False, "original_max_position_embeddings": 1000,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}  # fmt: skip
REFERENCE = (
    (None, 500.0, 1, [1.0, 0.2114742398262024, 0.04472136124968529, 0.009457415901124477], 1.0),
    ({"rope_type": "linear", "factor": 4.0}, 1e4, 1, [0.25, 0.025, 0.0025, 0.00025], 1.0),
    (
        {"rope_type": "dynamic", "factor": 4.0}, 1e4, 100,
        [1.0, 0.06751064211130142, 0.0045576863922178745, 0.00030769233126193285], 1.0,
    ),
    ({"rope_type": "dynamic", "factor": 4.0}, 1e4, 64, [1.0, 0.1, 0.01, 0.001], 1.0),
    (YARN, 1e4, 1, [1.0, 0.025, 0.0025, 0.00025], 1.138629436111989),
    (OTHER_YARN, 1e4, 1, [1.0, 0.1, 0.0025, 0.00025], 0.9405715251010841),
    (YARN | {"attention_factor": 1.3}, 1e4, 1, [1.0, 0.025, 0.0025, 0.00025], 1.3),
    (LLAMA3, 1e4, 1, [1.0, 0.1, 0.003086760640144348, 0.000125], 1.0),
    (LONG, 1e4, 8, [1.0, 0.0833333358168602, 0.007692307699471712, 0.0006666666595265269], 1.224744871391589),
    (LONG, 1e4, 17, [0.5, 0.03333333507180214, 0.0025, 0.0002], 1.224744871391589),
)  # fmt: skip


@pytest.mark.parametrize(("scaling", "base", "length", "wanted", "factor"), REFERENCE)
def test_frequencies_of_long_texts_are_those_of_the_reference(scaling, base, length, wanted, factor):
    found, found_factor = scaled_frequencies(8, base, scaling, context_length=64, length=length)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=3e-7)
    assert found_factor == pytest.approx(factor)


def test_channels_without_an_angle_and_tokens_of_angle_zero_are_left_alone():
    x = np.random.default_rng(0).normal(size=(2, 3, 1, 6)).astype("f")
    angles = rotary_angles(jnp.array([0, 1, 2]), [0.5, 0.1])
    y = np.asarray(rotate(x, angles))
    np.testing.assert_array_equal(y[:, 0], x[:, 0])
    np.testing.assert_array_equal(y[..., 4:], x[..., 4:])
    turned = (x[:, 2, 0, :2] + 1j * x[:, 2, 0, 2:4]) * np.exp(1j * np.array([1.0, 0.2]))
    np.testing.assert_allclose(y[:, 2, 0, :2] + 1j * y[:, 2, 0, 2:4], turned, rtol=1e-5)


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        ({"rope_type": "lineer"}, "rope_type: unknown value 'lineer'; did you mean 'linear'"),
        ({"rope_type": "llama3", "factor": 2.0}, "llama3 needs 'low_freq_factor'"),
        (LONG | {"short_factor": [1.0]}, "expected a factor for each of 4 pairs"),
    ],
)
def test_scalings_that_cannot_be_are_refused(scaling, said):
    with pytest.raises(ConfigError, match=said):
        scaled_frequencies(8, 1e4, scaling, context_length=64)


def test_more_angles_than_a_head_has_pairs_are_refused():
    with pytest.raises(ConfigError, match="at most 2 a position for heads of width 4, got 3"):
        rotate(jnp.ones((1, 1, 4)), jnp.ones((1, 3)))
