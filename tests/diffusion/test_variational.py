"""The variational bound against reference terms; its decoder; its total for a known density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from aijax.diffusion import hybrid_loss, linear_table, variational_bound, variational_loss
from aijax.diffusion.variational import discretised_log_likelihood, prior_bits, step_distribution

KEY = jax.random.key(0)
DECODER = jax.jit(discretised_log_likelihood)


@pytest.mark.golden("loss", where=lambda entry: entry["id"].startswith("vlb"))
def test_the_golden_terms(case, arrays):
    p = case.params
    table = linear_table(p["num_train_timesteps"], p["beta_start"], p["beta_end"])
    model = lambda x, t: (arrays["eps"], arrays["v"])  # noqa: E731
    step = jax.jit(lambda x, t: step_distribution(model, table, x, t))
    mean, log_variance = step(arrays["xt"], arrays["t"].astype(float))
    case.close(mean, "mean")
    case.close(log_variance, "log_variance")
    terms = jax.jit(lambda x0, t, z: variational_loss(KEY, model, table, x0, t=t, noise=z))
    case.close(terms(arrays["x0"], arrays["t"], arrays["noise"]), "term")
    case.close(prior_bits(table, arrays["x0"]), "prior_bpd")
    # further terms of the reference are of no use where t > 0, and it bounds their logarithms
    decoder = -DECODER(arrays["x0"], arrays["mean"], arrays["log_variance"] / 2)
    first = case["t"] == 0
    case.close((decoder.mean(1) / np.log(2))[first], case["decoder_nll_bpd"][first])


def test_the_decoder_is_a_distribution_with_accurate_tails(float64):
    values = jnp.arange(256) / 127.5 - 1
    mass = jnp.exp(DECODER(values, jnp.asarray(0.3), jnp.log(0.2)))
    np.testing.assert_allclose(mass.sum(), 1.0, rtol=1e-12)
    far = DECODER(jnp.full(256, 0.5), jnp.asarray(-0.9), jnp.log(0.01))[0]
    density = stats.norm.logpdf(1.4 - 1 / 255, scale=0.01)
    assert far < -9000 and abs(far - density) < 10
    tails = jax.jit(jax.grad(lambda m: discretised_log_likelihood(values, m, jnp.log(0.01)).sum()))(-0.9)
    assert np.isfinite(tails)


def test_the_bound_of_a_point_is_small_for_the_right_model():
    table = linear_table(50, 2e-3, 0.4)
    x0 = jnp.round(jax.random.uniform(KEY, (16, 4)) * 255) / 127.5 - 1

    def knowing(x, t):
        return x0, jnp.zeros_like(x)

    bound = jax.jit(lambda key: variational_bound(key, knowing, table, x0, prediction="x0"))(KEY)
    assert bound.terms.shape == (50, 16)
    np.testing.assert_allclose(bound.total, bound.prior + bound.terms.sum(0), rtol=1e-6)
    assert (bound.total < 8).all()


def test_the_hybrid_loss_trains_the_variance_alone_by_the_bound():
    table, x0 = linear_table(20, 1e-3, 0.3), jnp.zeros((8, 2))

    def loss(parameters, weight):
        model = lambda x, t: (parameters[0] * x, parameters[1] + 0 * x)  # noqa: E731
        return hybrid_loss(KEY, model, table, x0, weight=weight).mean()

    gradient = jax.jit(jax.grad(loss))
    small, large = gradient(jnp.array([0.5, 0.1]), 1e-3), gradient(jnp.array([0.5, 0.1]), 1.0)
    np.testing.assert_allclose(small[0], large[0], rtol=1e-5)
    assert abs(large[1]) > 100 * abs(small[1]) > 0
