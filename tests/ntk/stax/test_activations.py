"""Activation layers: what they apply, that their names take neural-tangents' arguments, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.ntk import stax

X = jnp.linspace(-2, 2, 9).reshape(3, 3)
LAYERS = {
    "relu": (stax.Relu(), lambda x: np.maximum(x, 0)),
    "abrelu": (stax.ABRelu(-0.5, 1.5), lambda x: np.where(x > 0, 1.5 * x, -0.5 * x)),
    "leaky": (stax.LeakyRelu(0.1, do_stabilize=True), lambda x: np.where(x > 0, x, 0.1 * x)),
    "abs": (stax.Abs(), np.abs),
    "sign": (stax.Sign(), np.sign),
    "rectified": (stax.RectifiedMonomial(2), lambda x: np.where(x > 0, x**2, 0)),
    "erf": (stax.Erf(2.0, 0.5, 0.1), lambda x: 2 * jax.scipy.special.erf(0.5 * x) + 0.1),
    "sigmoid": (stax.Sigmoid_like(), lambda x: 0.5 + jax.scipy.special.erf(x / 2.4020563531719796) / 2),
    "gelu": (stax.Gelu(), lambda x: jax.nn.gelu(x, approximate=False)),
    "sin": (stax.Sin(2.0, 3.0, 0.5), lambda x: 2 * np.sin(3 * x + 0.5)),
    "cos": (stax.Cos(2.0, 3.0, 0.5), lambda x: 2 * np.cos(3 * x + 0.5)),
    "rbf": (stax.Rbf(0.5), lambda x: np.sqrt(2) * np.sin(x + np.pi / 4)),
    "exp": (stax.Exp(2.0, 0.5), lambda x: 2 * np.exp(0.5 * x)),
    "gaussian": (stax.Gaussian(), lambda x: np.exp(-(x**2))),
    "gabor": (stax.Gabor(), lambda x: np.exp(-(x**2)) * np.sin(x)),
    "hermite": (stax.Hermite(2), lambda x: (x**2 - 1) / np.sqrt(2)),
    "monomial": (stax.Monomial(3), lambda x: x**3),
    "polynomial": (stax.Polynomial((1.0, 0.0, 2.0)), lambda x: 1 + 2 * x**2),
    "elementwise": (stax.Elementwise(jnp.tanh), np.tanh),
    "numerical": (stax.ElementwiseNumerical(jnp.tanh, deg=10), np.tanh),
}


@pytest.mark.parametrize("name", list(LAYERS))
def test_apply_is_the_function(name):
    (init_fn, apply_fn, _), expected = LAYERS[name]
    shape, params = init_fn(jax.random.key(0), X.shape)
    assert shape == X.shape
    np.testing.assert_allclose(apply_fn(params, X), expected(np.asarray(X)), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_any_function_gets_the_kernel_of_its_closed_form():
    _, _, exact = stax.serial(stax.Dense(1, 1.5, 0.1), stax.Erf(), stax.Dense(1))
    _, _, numerical = stax.serial(stax.Dense(1, 1.5, 0.1), stax.Elementwise(jax.scipy.special.erf), stax.Dense(1))
    for get in ("nngp", "ntk"):
        np.testing.assert_allclose(numerical(X, None, get), exact(X, None, get), rtol=1e-5, atol=1e-6)


def test_a_layer_known_by_its_kernel_has_no_finite_network():
    for layer in (stax.ExpNormalized(), stax.Elementwise(nngp_fn=lambda k, q1, q2: k)):
        with pytest.raises(NotImplementedError):
            layer[1]((), X)


def test_what_cannot_be_made_is_refused():
    for make, argument in (
        (lambda: stax.Elementwise(), "nngp_fn"),
        (lambda: stax.Elementwise(jnp.tanh, d_nngp_fn=lambda k, q1, q2: k), "nngp_fn"),
        (lambda: stax.ElementwiseNumerical(jnp.tanh, 0), "deg"),
        (lambda: stax.Rbf(-1.0), "gamma"),
        (lambda: stax.Hermite(-1), "degree"),
        (lambda: stax.LeakyRelu("0.1"), "LeakyRelu: alpha='0.1', expected a number"),
        (lambda: stax.Dense(3, W_std=None), "Dense: W_std=None, expected a number"),
    ):
        with pytest.raises(ConfigError, match=argument):
            make()
