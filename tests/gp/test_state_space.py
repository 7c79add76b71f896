"""O(n) inference in time against reference values, dense algebra and exact inference."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from aijax import gp, kernels
from aijax.errors import ConfigError, DataError
from aijax.parallel import make_mesh

SOLVERS = {
    "blocks": gp.StateSpace(),
    "parallel": gp.StateSpace(parallel=True),
    "parallel blocks": gp.StateSpace(parallel=True, block_length=4),
}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


LONGER = ("matern12_s0", "matern12_s1", "matern52_s0")
CASES = ["matern32_s1", "sho_critical_like_s0", "sho_critical_like_s1", "sho_overdamped_s0", "sho_underdamped_s1",
         *(pytest.param(name, marks=pytest.mark.slow) for name in LONGER)]  # fmt: skip
MATERN = {0.5: kernels.Matern12, 1.5: kernels.Matern32, 2.5: kernels.Matern52}


@pytest.mark.parametrize("name", CASES)
def test_golden(golden, name):
    entry = json.loads((golden / "gp" / "temporal_cases.json").read_text())[f"temporal_{name}"]
    arrays = dict(np.load(golden / "gp" / f"temporal_{name}.npz"))
    params = entry["params"]
    order = params.get("theta_order", ["S0", "w0", "Q"])

    def model(theta):
        values = dict(zip(order, jnp.exp(theta), strict=True))
        if "nu" in params:
            return gp.GP(MATERN[params["nu"]](**values), noise_variance=arrays["noise"])
        s0, w0, q = (values[key] for key in ("S0", "w0", "Q"))
        return gp.GP(kernels.SHO(w0, q, s0 * w0 * q), noise_variance=arrays["noise"])

    def value(theta):
        return gp.log_marginal_likelihood(model(theta), arrays["x"], arrays["y"], solver=gp.StateSpace())

    def check(got, key):
        np.testing.assert_allclose(got, arrays[key], entry["rtol"], entry["atol"])

    theta = jnp.log(jnp.array([params[key] for key in order]))
    if "lml_grad" in arrays:
        lml, slope = jax.value_and_grad(value)(theta)
        check(slope, "lml_grad")
    else:
        lml = value(theta)
    check(lml, "lml")
    posterior = gp.condition(model(theta), arrays["x"], arrays["y"], solver=gp.StateSpace())
    mean, covariance = gp.predict(posterior, arrays["z"], full_covariance=True)
    check(mean, "mean")
    check(covariance, "cov")
    check(np.sqrt(np.diag(covariance)), "std")


def composite():
    """White noise in the kernel, noise that differs, missing targets, two outputs, times that repeat."""
    rng = np.random.default_rng(3)
    kernel = 0.7 * kernels.Matern12(3.0) + kernels.Linear(0.2)
    model = gp.GP(kernel + kernels.White(0.03), lambda x: 0.5 * x, jnp.asarray(rng.uniform(0.05, 0.5, 14)))
    times = rng.uniform(-2, 4, 14)
    times[[3, 8]] = times[5]
    x, observed = jnp.asarray(times), jnp.asarray(np.arange(14) % 5 != 2)
    y = jnp.where(observed[:, None], rng.normal(size=(14, 2)), jnp.nan)
    x_new = jnp.asarray(np.concatenate([rng.uniform(-5, 7, 5), times[[0, 5]], [9.0, 9.0]]))
    return model, x, y, observed, x_new


@pytest.fixture(scope="module")
def expected():
    with jax.enable_x64(True):
        model, x, y, observed, x_new = composite()
        posterior = gp.condition(model, x, y, observed=observed)
        value = gp.log_marginal_likelihood(model, x, y, observed=observed)
        return value, *gp.predict(posterior, x_new, full_covariance=True)


@pytest.mark.parametrize("name", ["blocks", "parallel", pytest.param("parallel blocks", marks=pytest.mark.slow)])
def test_every_cut_gives_exact_inference(expected, name):
    model, x, y, observed, x_new = composite()
    value, mean, covariance = expected
    evidence = gp.evidence(model, x, y, observed=observed, solver=SOLVERS[name])
    np.testing.assert_allclose(evidence.value, value, rtol=1e-12)
    assert evidence.converged
    posterior = gp.condition(model, x, y, observed=observed, solver=SOLVERS[name])
    if not SOLVERS[name].parallel:
        got_mean, std = gp.predict(posterior, x_new)
        np.testing.assert_allclose(got_mean, mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(std**2, np.diag(covariance), rtol=1e-10)
    got_mean, got = gp.predict(posterior, x_new, full_covariance=True)
    np.testing.assert_allclose(got_mean, mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got, covariance, rtol=1e-9, atol=1e-12)


def dense_log_likelihood(t, y, noise, lengthscale=0.8, variance=1.5):
    s = np.sqrt(5) * np.abs(t[:, None] - t) / lengthscale
    k = variance * (1 + s + s**2 / 3) * np.exp(-s) + noise * np.eye(len(t))
    return -(y @ np.linalg.solve(k, y) + np.linalg.slogdet(k)[1] + len(t) * np.log(2 * np.pi)) / 2


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(0, 20) | st.sampled_from([1.0, 1.0 + 1e-9, 2.0]), min_size=12, max_size=12),
    st.sampled_from([1e-3, 0.1, 2.0]),
    st.integers(0, 2**31),
)
def test_irregular_and_repeated_times(times, noise, seed):
    t, y = np.array(times), np.random.default_rng(seed).normal(size=12)
    model = gp.GP(kernels.Matern52(0.8, 1.5), noise_variance=noise)
    value = gp.log_marginal_likelihood(model, t, y, solver=gp.StateSpace())
    np.testing.assert_allclose(value, dense_log_likelihood(t, y, noise), rtol=1e-9)


@pytest.fixture(scope="module")
def small():
    """`value(theta, t, y, solver)` of a process of one number."""

    def value(theta, t, y, solver):
        model = gp.GP(kernels.Matern12(jnp.exp(theta[0]), jnp.exp(theta[1])), theta[3], jnp.exp(theta[2]))
        return gp.log_marginal_likelihood(model, t, y, solver=solver)

    rng = np.random.default_rng(0)
    return value, np.array([0.2, -0.3, -2.0, 0.4]), rng.uniform(0, 5, 10), rng.normal(size=10)


@pytest.mark.slow
def test_derivatives_of_all_orders_in_all_arguments(small):
    value, theta, t, y = small

    def derivatives(solver):
        def everything(theta, t, y):
            slopes = jax.grad(value, (0, 1, 2))(theta, t, y, solver)
            return *slopes, jax.jacfwd(jax.grad(value))(theta, t, y, solver)

        return jax.jit(everything)(theta, t, y)

    for got, want in zip(derivatives(gp.StateSpace()), derivatives(gp.Exact()), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9)


@pytest.mark.slow
def test_many_at_once_and_on_many_devices(small):
    value, theta, t, y = small
    solver = gp.StateSpace()
    ys = np.stack([y, 2 * y, y[::-1], -y, y + 1, y**2, y, y])
    ts = np.stack([t, t[::-1], *[np.sort(t)] * 6])
    each = [value(theta, t, y, solver) for t, y in zip(ts, ys, strict=True)]
    batched = jax.jit(jax.vmap(lambda t, y: value(theta, t, y, solver)))
    np.testing.assert_allclose(batched(ts, ys), each, rtol=1e-12)
    split = NamedSharding(make_mesh(), P("data"))
    np.testing.assert_allclose(batched(jax.device_put(ts, split), jax.device_put(ys, split)), each, rtol=1e-12)


@pytest.mark.slow
def test_samples_have_the_moments_of_the_posterior():
    rng = np.random.default_rng(1)
    x, y = jnp.asarray(rng.uniform(0, 4, 6)), jnp.asarray(rng.normal(size=(6, 2)))
    model = gp.GP(kernels.Matern12() + kernels.White(0.05), 3.0, 0.2)
    posterior = gp.condition(model, x, y, solver=gp.StateSpace())
    x_new = jnp.array([5.0, -1.0, 2.0, 2.0, float(x[0])])
    mean, covariance = gp.predict(posterior, x_new, full_covariance=True)
    draws = np.asarray(gp.sample(jax.random.key(0), posterior, x_new, 20000))
    assert draws.shape == (20000, 5, 2)
    spread = np.sqrt(np.diag(covariance) / 20000)
    assert (np.abs(draws.mean(0) - mean) < 5 * spread[:, None]).all()
    for output in range(2):
        np.testing.assert_allclose(np.cov(draws[..., output].T), covariance, atol=0.03)


def test_noise_free_data_are_interpolated_where_times_nearly_coincide():
    x = jnp.array([0.0, 1e-4, 2e-4, 1.0, 1.0 + 1e-5])
    y = jnp.sin(x)
    model = gp.GP(kernels.Matern32(2.0), noise_variance=0.0)
    posterior = gp.condition(model, x, y, solver=gp.StateSpace(block_length=5))
    mean, std = gp.predict(posterior, x)
    np.testing.assert_allclose(mean, y, atol=1e-12)
    np.testing.assert_allclose(std, 0, atol=1e-6)
    assert posterior.converged


def test_float32_is_close_to_float64():
    rng = np.random.default_rng(2)
    t, y, z = (a.astype(np.float32) for a in (rng.uniform(0, 50, 100), rng.normal(size=100), np.linspace(-3, 55, 40)))
    model = gp.GP(kernels.Matern12(1.3), noise_variance=0.1)
    posterior = gp.condition(model, t, y, solver=gp.StateSpace())
    single = gp.log_marginal_likelihood(model, t, y, solver=gp.StateSpace()), *gp.predict(posterior, z)
    assert {leaf.dtype for leaf in single} == {np.dtype(np.float32)}
    t, y, z = (a.astype(float) for a in (t, y, z))
    gram, cross = np.exp(-np.abs(t[:, None] - t) / 1.3) + 0.1 * np.eye(100), np.exp(-np.abs(z[:, None] - t) / 1.3)
    value = -(y @ np.linalg.solve(gram, y) + np.linalg.slogdet(gram)[1] + 100 * np.log(2 * np.pi)) / 2
    np.testing.assert_allclose(single[0], value, rtol=2e-5)
    np.testing.assert_allclose(single[1], cross @ np.linalg.solve(gram, y), atol=1e-4)
    told = np.sum(cross.T * np.linalg.solve(gram, cross.T), 0)
    np.testing.assert_allclose(single[2], np.sqrt(1 - told), atol=1e-4)


def test_mistakes_are_told():
    x, y = jnp.arange(3.0), jnp.ones(3)

    def condition(kernel=kernels.Matern32(), x=x, noise=0.1):  # noqa: B008
        return gp.condition(gp.GP(kernel, noise_variance=noise), x, y, solver=gp.StateSpace())

    with pytest.raises(ConfigError, match="kernel: RBF has no state-space form"):
        condition(kernels.Matern12() * kernels.RBF())
    with pytest.raises(ConfigError, match=r"x: StateSpace takes one coordinate, .* got an array of shape \(3, 2\)"):
        condition(x=jnp.zeros((3, 2)))
    with pytest.raises(ConfigError, match=r"x: expected floating times .* got int"):
        condition(x=jnp.arange(3))
    with pytest.raises(ConfigError, match="kernel: expected more than white noise"):
        condition(kernels.White())
    with pytest.raises(DataError, match=r"x: a target has no variance .* closest two times without noise are 0 apart"):
        condition(x=jnp.zeros(3), noise=0.0)
    with pytest.raises(ConfigError, match="block_length: expected a whole number of at least 1, got 0"):
        gp.StateSpace(block_length=0)
    told = jax.jit(lambda x: gp.evidence(gp.GP(kernels.Matern32(), noise_variance=0.0), x, y, solver=gp.StateSpace()))
    assert not told(jnp.zeros(3)).converged
