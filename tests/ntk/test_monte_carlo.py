"""Monte Carlo estimates of kernels: what is averaged, how estimates go on from each other, the limit, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.ntk.empirical_fn import empirical_kernel_fn
from aijax.ntk.monte_carlo import monte_carlo_kernel_fn

KEY = jax.random.key(1)
WIDTH = 64


def init_fn(key, shape):
    one, two = jax.random.split(key)
    params = (jax.random.normal(one, (shape[-1], WIDTH)), jax.random.normal(two, (WIDTH, 3)))
    return (shape[0], 3), params


def apply_fn(params, x):
    """A network whose infinite-width kernels are those of one hidden layer of relus, in the NTK parametrisation."""
    hidden = jax.nn.relu(x @ params[0] / x.shape[-1] ** 0.5)
    return hidden @ params[1] / WIDTH**0.5


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(0), 2)
    return jax.random.normal(keys[0], (6, 4)), jax.random.normal(keys[1], (4, 4))


def exact(x1, x2):
    """The NNGP and the NTK of infinite width, from the arc-cosine formulas."""
    k = x1 @ x2.T / x1.shape[-1]
    size = jnp.outer(jnp.linalg.norm(x1, axis=1), jnp.linalg.norm(x2, axis=1)) / x1.shape[-1]
    angle = jnp.arccos(k / size)
    step = (jnp.pi - angle) / (2 * jnp.pi)
    nngp = size * jnp.sin(angle) / (2 * jnp.pi) + k * step
    return nngp, nngp + k * step


def test_it_is_the_mean_of_empirical_kernels_at_its_keys(inputs):
    with jax.enable_x64(True):
        x1, x2 = (jnp.asarray(x, jnp.float64) for x in inputs)
        found = monte_carlo_kernel_fn(init_fn, apply_fn, KEY, 3)(x1, x2)
        kernel_fn, key, samples = empirical_kernel_fn(apply_fn), KEY, []
        for _ in range(3):
            key, sample_key = jax.random.split(key)
            params = init_fn(jax.random.split(sample_key)[0], x1.shape)[1]
            samples.append(kernel_fn(x1, x2, ("nngp", "ntk"), params))
        for name in ("nngp", "ntk"):
            expected = np.mean([getattr(sample, name) for sample in samples], 0)
            np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-12)


@pytest.mark.slow
def test_estimates_go_on_from_each_other_and_tend_to_infinite_width(inputs):
    x1, x2 = inputs
    generator = monte_carlo_kernel_fn(init_fn, apply_fn, KEY, [1, 200, 3], vmap_axes=0)
    estimates = list(generator(x1, x2, ("ntk", "nngp")))
    assert len(estimates) == 3
    for count, estimate in zip((1, 3), estimates, strict=False):
        alone = monte_carlo_kernel_fn(init_fn, apply_fn, KEY, count, vmap_axes=0)(x1, x2, "ntk")
        np.testing.assert_allclose(estimate.ntk, alone, rtol=1e-5, atol=1e-6)
    nngp, ntk = exact(x1, x2)
    errors = [jnp.linalg.norm(estimate.ntk - ntk) / jnp.linalg.norm(ntk) for estimate in estimates]
    assert errors[-1] < 0.05 < errors[0]
    # of 600 outputs the mean product has a relative deviation of sqrt((1 + participation ratio) / 600), about 0.08
    assert jnp.linalg.norm(estimates[-1].nngp - nngp) < 0.2 * jnp.linalg.norm(nngp)


@pytest.mark.parametrize("batch_size, device_count, store_on_device", [(2, 0, True), (3, 2, False)])
def test_blocks_and_devices_do_not_change_it(inputs, batch_size, device_count, store_on_device):
    x1, x2 = inputs
    plain = monte_carlo_kernel_fn(init_fn, apply_fn, KEY, 2, device_count=0)
    blocks = monte_carlo_kernel_fn(init_fn, apply_fn, KEY, 2, batch_size, device_count, store_on_device)
    for second in (x2, None):
        np.testing.assert_allclose(blocks(x1, second, "ntk"), plain(x1, second, "ntk"), rtol=1e-5, atol=1e-6)
    assert isinstance(blocks(x1, x2, "nngp"), jax.Array if store_on_device else np.ndarray)


def test_a_function_that_takes_a_key_gets_one_each_sample_and_other_words_are_passed_on(inputs):
    x1, _ = inputs

    def noisy(params, x, rng=None, scale=1.0):
        return scale * apply_fn(params, x) * jax.random.bernoulli(rng, 0.5, (x.shape[0], 1))

    found = monte_carlo_kernel_fn(init_fn, noisy, KEY, 8, device_count=0)(x1, None, "nngp", scale=jnp.array(2.0))
    plain = monte_carlo_kernel_fn(init_fn, apply_fn, KEY, 8, device_count=0)(x1, None, "nngp")
    assert 0.1 < found.trace() / (4 * plain.trace()) < 0.9


def test_raw_keys_serve_too(inputs):
    kernel_fn = monte_carlo_kernel_fn(init_fn, apply_fn, jax.random.PRNGKey(1), 2, device_count=0)
    expected = monte_carlo_kernel_fn(init_fn, apply_fn, KEY, 2, device_count=0)
    np.testing.assert_allclose(kernel_fn(*inputs, "ntk"), expected(*inputs, "ntk"), rtol=1e-6)


def test_refusals():
    for n_samples in (0, -1, True, 1.5, [1, 0], [], ["2"]):
        with pytest.raises(ConfigError, match="n_samples"):
            monte_carlo_kernel_fn(init_fn, apply_fn, KEY, n_samples)
    for arguments, words in (
        ((None, apply_fn, KEY), "init_fn: expected a function, got None"),
        ((init_fn, None, KEY), "apply_fn: expected a function, got None"),
        ((init_fn, apply_fn, 3), "key: expected a key of jax.random.key, got 3"),
    ):
        with pytest.raises(ConfigError, match=words):
            monte_carlo_kernel_fn(*arguments, 2)
    with pytest.raises(ConfigError, match="init_fn: expected a function that returns"):
        monte_carlo_kernel_fn(lambda key, shape: 3, apply_fn, KEY, 2, device_count=0)(jnp.ones((2, 3)), None, "ntk")
