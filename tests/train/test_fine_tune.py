import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.train import start_from

FRESH = {"encoder": {"w": jnp.zeros((2, 2))}, "head": {"kernel": jnp.zeros((2, 3))}}


def test_trained_parameters_take_their_places_and_a_fresh_head_stays():
    trained = {"encoder": {"w": np.ones((2, 2))}, "head": {"kernel": np.ones((2, 9))}}
    got = start_from(FRESH, trained, fresh_names=("head",))
    np.testing.assert_array_equal(got["encoder"]["w"], 1)
    np.testing.assert_array_equal(got["head"]["kernel"], 0)
    assert got["encoder"]["w"].dtype == jnp.float32
    headless = start_from(FRESH, {"encoder": trained["encoder"]}, fresh_names=("head",))
    np.testing.assert_array_equal(headless["encoder"]["w"], 1)


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        ({"head": {"kernel": np.ones((2, 3))}}, "config.pretrained: 'encoder/w' was not trained"),
        ({"encoder": {"w": np.ones((2, 3))}}, r"'encoder/w' has shape \(2, 3\), the model's \(2, 2\)"),
        ({"encoder": {"w": np.ones((2, 2)), "b": np.ones(2)}}, "'encoder/b' has no place in the model"),
    ],
)
def test_what_does_not_fit_is_listed(trained, message):
    with pytest.raises(ConfigError, match=message):
        start_from(FRESH, trained, fresh_names=("head",), where="config.pretrained")
