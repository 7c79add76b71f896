"""Priors against SciPy's densities, and their draws against themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from aijax import gp
from aijax.errors import ConfigError

CASES = {
    "normal": (gp.Normal(0.5, 2.0), stats.norm(0.5, 2.0)),
    "log_normal": (gp.LogNormal(0.3, 0.7), stats.lognorm(0.7, scale=np.exp(0.3))),
    "half_normal": (gp.HalfNormal(1.5), stats.halfnorm(scale=1.5)),
    "gamma": (gp.Gamma(2.5, 4.0), stats.gamma(2.5, scale=0.25)),
    "uniform": (gp.Uniform(0.1, 0.6), stats.uniform(0.1, 0.5)),
}


@pytest.mark.parametrize("name", CASES)
def test_density_and_draws(name):
    prior, reference = CASES[name]
    with jax.enable_x64(True):
        x = jnp.asarray(reference.ppf(np.linspace(0.02, 0.98, 9)))
        np.testing.assert_allclose(prior.log_density(x), reference.logpdf(x), rtol=1e-10, atol=1e-12)
        draws = prior.sample(jax.random.key(0), (4000,))
        assert stats.kstest(np.asarray(draws), reference.cdf).pvalue > 1e-3
        slope = jax.grad(lambda value: prior.log_density(value))(x[4])
        step = 1e-6
        difference = (reference.logpdf(x[4] + step) - reference.logpdf(x[4] - step)) / (2 * step)
        np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-7)


def test_outside_of_the_support():
    assert gp.Uniform(0.0, 1.0).log_density(1.5) == -jnp.inf
    assert gp.HalfNormal(1.0).log_density(-0.1) == -jnp.inf
    with pytest.raises(ConfigError, match=r"expected a number above low = 2.0, got 1.0"):
        gp.Uniform(2.0, 1.0)
    with pytest.raises(ConfigError, match="scale: expected a positive number, got -1"):
        gp.LogNormal(0.0, -1)
