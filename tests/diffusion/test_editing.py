"""Inpainting, projections, image-to-image and interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import VP, Known, Linear, make_grid, repaint, sample, sdedit, spherical_interpolation
from aijax.diffusion.editing import last_steps, make_resampling
from aijax.diffusion.mixture import denoiser, ring
from aijax.errors import ConfigError


@pytest.mark.golden("interpolation")
def test_the_golden_interpolation(case, arrays):
    case.close(spherical_interpolation(arrays["a"], arrays["b"], arrays["t"]), "out")


def test_repaint_keeps_what_is_known_and_fills_in_the_rest():
    process, mixture = VP(), ring(4, radius=1.0, std=0.1)
    known = jnp.tile(jnp.array([[1.0, 0.0]]), (64, 1))
    x = repaint(
        jax.random.key(0), denoiser(mixture, process), process, known, jnp.array([1.0, 0.0]),
        steps=24, grid="log_snr", jump_length=4, jump_samples=4,
    )  # fmt: skip
    np.testing.assert_allclose(x[:, 0], 1.0, atol=1e-6)
    # of the four components only that at (1, 0) has this first coordinate
    assert float(jnp.abs(x[:, 1]).mean()) < 0.3


def test_the_way_back_is_the_forward_process():
    grid = make_grid(VP(), 8)
    found = make_resampling(grid, 2, 3)
    assert found.steps.tolist()[:6] == [0, 1, 0 + 2, 3, 2, 3]
    for call in np.flatnonzero(found.noises):
        end = found.steps[call] + 1
        variance = (found.scales[call] * grid.sigmas[end]) ** 2 + found.noises[call] ** 2
        np.testing.assert_allclose(variance, grid.sigmas[end - 2] ** 2)


def test_a_projection_holds_the_mean_of_pairs(g2):
    process = VP()
    mean = Linear(lambda x: x.mean(1, keepdims=True), lambda y: jnp.tile(y, (1, 2)), jnp.full((8, 1), 0.7))
    x = sample(jax.random.key(0), denoiser(g2, process), process, (8, 2), steps=10, constraint=mean)
    np.testing.assert_allclose(x.mean(1), 0.7, atol=1e-5)


def test_sdedit_of_little_strength_changes_little(g2):
    process, x = VP(), jnp.array([[0.9, 1.1], [-1.2, 0.4]])
    run = lambda strength: sdedit(  # noqa: E731
        jax.random.key(0), denoiser(g2, process), process, x, strength=strength, steps=20, grid="log_snr"
    )
    assert float(jnp.abs(run(0.2) - x).max()) < 0.05 < float(jnp.abs(run(1.0) - x).max())


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="strength: expected at most 1 and at least one of 10 steps"):
        last_steps(make_grid(VP(), 10), 0.05)
    with pytest.raises(ConfigError, match=r"values: expected a shape that broadcasts to \(1, 2\), got \(3, 2\)"):
        Known(jnp.ones((3, 2)), jnp.ones(2))(jnp.zeros((1, 2)))
    with pytest.raises(ConfigError, match="observed: expected the operator's shape"):
        Linear(lambda x: x[:, :1], lambda y: y, jnp.ones((1, 2)))(jnp.zeros((1, 2)))
    with pytest.raises(ConfigError, match="noise: expected shape"):
        repaint(
            jax.random.key(0), lambda x, t: x, VP(), jnp.zeros((1, 2)), jnp.ones(2), steps=4, noise=jnp.zeros((4, 1, 2))
        )
