"""Inputs that excite a unit most: optima of references, images that show what is asked for, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.interp import activation_maximization as am
from aijax.taps import tap


@pytest.mark.parametrize("name", ["actmax_1", pytest.param("actmax_2", marks=pytest.mark.slow)])
def test_in_a_ball_it_reaches_the_optimum_of_the_reference(golden, name):
    case = dict(np.load(golden / f"science/interp/{name}.npz"))
    radius, dimension = case["radius"], len(case["linear"])

    inside = np.arange(dimension) / 10

    def activation(weights, x):  # all units as one program, and one whose maximum is within
        units = (
            case["a"] @ jnp.tanh(case["W"] @ x + case["b"]),
            case["linear"] @ x,
            x @ case["Q"] @ x,
            -jnp.sum((x - inside) ** 2),
        )
        return weights @ jnp.stack(units)

    with jax.enable_x64(True):

        @jax.jit
        @jax.vmap
        def run(weights):
            unit = functools.partial(activation, weights)
            return am.maximize_in_ball(jax.random.key(0), unit, (dimension,), radius, restarts=16)

        found = jax.device_get(run(jnp.eye(4)))
    assert found.value[0, 0] >= case["tanh_best_value"] - 1e-6
    np.testing.assert_allclose(found.value[1:3, 0], [case["linear_best"], case["quad_best"]], rtol=1e-6)
    np.testing.assert_allclose(found.x[1, 0], case["linear_best_x"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.x[3, 0], inside, atol=1e-6)
    assert np.linalg.norm(found.x, axis=-1).max() <= radius * (1 + 1e-12)
    assert (np.diff(found.value) <= 0).all() and found.converged[:, 0].all()


@pytest.mark.slow
def test_on_the_sphere_and_in_a_box():
    def bowl(x):
        return -jnp.sum((x - jnp.array([0.5, 0.0])) ** 2)

    sphere = am.maximize_in_ball(jax.random.key(0), bowl, (2,), 2.0, restarts=4, on_sphere=True)
    np.testing.assert_allclose(sphere.x[0], [2.0, 0.0], atol=1e-3)
    box = am.maximize_in_box(jax.random.key(0), bowl, jnp.array([-1.0, 1.0]), jnp.array([0.25, 2.0]), restarts=4)
    np.testing.assert_allclose(box.x[0], [0.25, 1.0], atol=1e-6)


@pytest.mark.parametrize("parametrization", ["fourier", pytest.param("pixels", marks=pytest.mark.slow)])
def test_an_image_shows_what_excites(parametrization):
    template = np.zeros((8, 8, 2), np.float32)
    template[2:6, 1:3, 0] = 1
    view = functools.partial(am.random_view, jitter=0.5, scale=0.05, degrees=5.0)
    options = {"view": view, "l2": 1.0, "total_variation": 0.1, "restarts": 2, "steps": 60, "learning_rate": 0.1}
    factor = jnp.array([[1.0, 0.0], [0.5, 0.5]])

    def activation(x):
        return jnp.mean(x[template > 0]) - jnp.mean(x[..., 0])

    found = jax.jit(lambda key: am.maximize_image(
        key, activation, (8, 8, 2), parametrization=parametrization, colour_factor=factor, **options
    ))(jax.random.key(0))  # fmt: skip
    assert found.value[0] >= found.value[1] > 0.3
    image = np.asarray(found.x[0, ..., 0])
    assert np.corrcoef(image.ravel(), template[..., 0].ravel())[0, 1] > 0.6
    assert 0 <= image.min() <= image.max() <= 1


def test_a_view_without_options_is_the_image_and_a_move_moves_it():
    image = jnp.broadcast_to(jnp.arange(7.0)[:, None], (5, 7, 1))
    still = {"jitter": 0.0, "scale": 0.0, "degrees": 0.0}
    view = jax.jit(lambda key, options: am.random_view(key, image, **options))
    np.testing.assert_allclose(view(jax.random.key(1), still), image, atol=1e-6)
    moved = view(jax.random.key(1), still | {"jitter": 2.0})
    assert 0 < abs(moved[2, 3, 0] - 3) <= 2
    turned = view(jax.random.key(2), still | {"degrees": 90.0})
    assert np.ptp(turned[:, 3]) > 0.1  # what did not change along a column


def test_colours_of_the_factor_covary_as_those_of_the_images():
    images = jax.random.normal(jax.random.key(0), (4, 5, 5, 3)) @ jnp.array([[1.0, 0.5, 0.0], [0, 1, 0], [0, 0, 2]])
    factor = am.colour_factor(images)
    covariance = np.cov(np.asarray(images).reshape(-1, 3).T)
    np.testing.assert_allclose(factor @ factor.T, covariance / np.linalg.eigvalsh(covariance)[-1], atol=1e-5)


def test_what_cannot_be_is_told():
    key = jax.random.key(0)
    with pytest.raises(ConfigError, match="radius: expected more than 0, got -1"):
        am.maximize_in_ball(key, jnp.sum, (2,), -1.0)
    with pytest.raises(ConfigError, match=r"activation: expected a floating scalar, got float32\[2\]"):
        am.maximize_in_ball(key, jnp.sin, (2,), 1.0)
    with pytest.raises(ConfigError, match="neuron: expected 0 to 2 of hidden, got 3"):
        am.neuron_activation(lambda w, x: tap("hidden", w * x), 1.0, "hidden", 3)(jnp.ones(3))
    with pytest.raises(ConfigError, match="restarts: expected 1 or more, got 0"):
        am.maximize_image(key, jnp.sum, (8, 8, 1), restarts=0)
    with pytest.raises(ConfigError, match=r"shape: expected height, width and channels, got \(8, 8\)"):
        am.maximize_image(key, jnp.sum, (8, 8))
    with pytest.raises(ConfigError, match="parametrization: unknown value 'fourrier'; did you mean 'fourier'"):
        am.maximize_image(key, jnp.sum, (8, 8, 1), parametrization="fourrier")
    with pytest.raises(ConfigError, match="high: expected more than low in each entry"):
        am.maximize_in_box(key, jnp.sum, jnp.zeros(2), jnp.array([1.0, 0.0]))
    with pytest.raises(ConfigError, match=r"high: expected the shape of low, \[2\], got \[3\]"):
        am.maximize_in_box(key, jnp.sum, jnp.zeros(2), jnp.ones(3))
