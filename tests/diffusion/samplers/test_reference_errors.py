"""Errors against the exact flow of a mixture in the plane, beside those that reference implementations were measured
to make on the same grid: EDM from 80 to 0.002 by Karras's spacing, root mean square over 512 starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import diffusion
from aijax.diffusion import mixture

STARTS = 512


@pytest.fixture(scope="module")
def error():
    """`error(sampler, steps)` of the end points."""
    with jax.enable_x64(True):
        covariances = np.square([0.25, 0.35, 0.15])[:, None, None] * np.eye(2)
        means = np.array([[-1.2, 0.4], [0.9, 1.1], [0.3, -1.3]])
        truth = mixture.GaussianMixture(np.array([0.5, 0.3, 0.2]), means, covariances)
        process, key = diffusion.EDM(0.002, 80.0), jax.random.key(0)
        denoise = mixture.denoiser(truth, process)
        init = 80 * jax.random.normal(key, (STARTS, 2))

        def run(sampler, steps):
            grid = diffusion.make_grid(process, steps, "karras")
            return diffusion.sample(key, denoise, process, init.shape, sampler=sampler, grid=grid, init=init)

        exact = run(diffusion.Heun(), 2000)
        yield lambda sampler, steps: float(jnp.sqrt(jnp.mean((run(sampler, steps) - exact) ** 2)))


@pytest.mark.parametrize(
    ("sampler", "at_20", "at_80", "order"),
    [(diffusion.Multistep(2), 8.9e-2, 5.3e-3, 1.9), (diffusion.Heun(), 3.2e-2, 2.3e-3, 1.9)],
    ids=("multistep", "heun"),
)
def test_no_larger_than_the_reference(error, sampler, at_20, at_80, order):
    middle = error(sampler, 80)
    assert error(sampler, 20) <= at_20
    assert middle <= at_80
    assert np.log2(middle / error(sampler, 160)) > order
