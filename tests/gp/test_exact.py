"""Exact regression against reference values, dense algebra, itself with points left out, and what jit may not hide."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import checkify

from aijax import gp, kernels
from aijax.errors import DataError

CASES = json.loads((Path(__file__).parents[1] / "golden" / "gp" / "posterior_cases.json").read_text())
KERNELS = {
    "rbf": kernels.RBF, "matern12": kernels.Matern12, "matern32": kernels.Matern32, "matern52": kernels.Matern52,
}  # fmt: skip
condition = jax.jit(gp.condition)
evidence = jax.jit(gp.evidence)
covariance_of = jax.jit(lambda posterior, z: gp.predict(posterior, z, full_covariance=True))
predict = jax.jit(gp.predict)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 2))
    return x, np.sin(x[:, 0]) + 0.1 * rng.normal(size=12)


def build(name, log_theta, noise):
    """The model of a case from the logarithms of its parameters, in the order of the case."""
    theta = jnp.exp(log_theta)
    if "rq" in name:
        return gp.GP(kernels.RationalQuadratic(theta[2], theta[1], theta[0]), noise_variance=noise)
    lengthscale = theta[1] if len(theta) == 2 else theta[1:]
    return gp.GP(KERNELS[name.split("_")[1]](lengthscale, theta[0]), noise_variance=noise)


def log_theta(name, params):
    if "rq" in name:
        return jnp.log(jnp.array([params["variance"], params["rq"]["alpha"], params["rq"]["lengthscale"]]))
    return jnp.log(jnp.array([params["variance"], *params["lengthscale"]]))


@pytest.mark.parametrize("name", CASES)
def test_golden(golden, name):
    case, about = np.load(golden / "gp" / f"{name}.npz"), CASES[name]
    tolerance = {"rtol": about["rtol"], "atol": about["atol"]}
    x, y, z = case["x"], case["y"], case["z"]
    theta = log_theta(name, about["params"])

    @jax.jit
    def everything(theta, noise):
        def score(theta):
            return gp.log_marginal_likelihood(build(name, theta, noise), x, y)

        model = build(name, theta, noise)
        posterior = gp.condition(model, x, y)
        full = gp.predict(posterior, z, full_covariance=True)
        return jax.value_and_grad(score)(theta), full, gp.predict(posterior, z)[1], gp.leave_one_out(model, x, y)

    (value, slope), (mean, covariance), std, left_out = everything(theta, jnp.asarray(case["noise"]))
    found = {
        "lml": value, "lml_grad": slope, "mean": mean, "cov": covariance, "std": std, "loo_mean": left_out.mean,
        "loo_var": left_out.variance, "loo_lpd": left_out.log_density,
    }  # fmt: skip
    for part, array in found.items():
        np.testing.assert_allclose(array, case[part], err_msg=part, **tolerance)


def test_a_missing_target_is_as_if_it_were_not_there(data):
    x, y = data
    seen = np.arange(12) % 3 > 0
    model = gp.GP(kernels.RBF(), mean=0.3, noise_variance=jnp.linspace(0.1, 0.2, 12))
    fewer = gp.GP(kernels.RBF(), mean=0.3, noise_variance=jnp.linspace(0.1, 0.2, 12)[seen])
    holes = np.where(seen, y, np.nan)
    value = jax.jit(jax.value_and_grad(lambda y: gp.log_marginal_likelihood(model, x, y, observed=seen)))
    found, slope = value(jnp.asarray(holes))
    np.testing.assert_allclose(found, evidence(fewer, x[seen], y[seen]).value, rtol=1e-12)
    found, expected = condition(model, x, holes, observed=seen), condition(fewer, x[seen], y[seen])
    for a, b in zip(predict(found, x), predict(expected, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    assert jnp.isfinite(slope).all() and not slope[~seen].any()


@pytest.mark.slow
def test_outputs_share_the_kernel(data):
    x, y = data
    both = np.stack([y, y**2], 1)
    model = gp.GP(kernels.Matern32(), mean=lambda x: x @ jnp.array([[1.0, 0.0], [0.0, 2.0]]))
    alone = [gp.GP(kernels.Matern32(), mean=lambda x, k=k: (k + 1) * x[:, k]) for k in range(2)]
    values = [evidence(m, x, column).value for m, column in zip(alone, both.T, strict=True)]
    np.testing.assert_allclose(evidence(model, x, both).value, sum(values), rtol=1e-12)
    posterior = condition(model, x, both)
    mean, std = predict(posterior, x[:5])
    expected = [predict(condition(m, x, column), x[:5]) for m, column in zip(alone, both.T, strict=True)]
    np.testing.assert_allclose(mean, jnp.stack([m for m, _ in expected], 1), rtol=1e-10)
    np.testing.assert_allclose(std, expected[0][1], rtol=1e-10)
    assert gp.sample(jax.random.key(0), posterior, x[:5], 3).shape == (3, 5, 2)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16), st.floats(0.3, 3.0), st.floats(0.01, 1.0))
def test_order_does_not_matter_and_data_never_widen(seed, lengthscale, noise):
    rng = np.random.default_rng(seed)
    x, y, order = rng.normal(size=(9, 2)), rng.normal(size=9), rng.permutation(9)
    with jax.enable_x64(True):
        model = gp.GP(kernels.RBF(lengthscale), noise_variance=noise)
        there, here = condition(model, x, y), condition(model, x[order], y[order])
        z = rng.normal(size=(4, 2))
        for a, b in zip(predict(there, z), predict(here, z), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
        assert (predict(there, z)[1] <= 1).all() and (predict(there, x)[1] ** 2 <= noise + 1e-9).all()
        np.testing.assert_allclose(
            evidence(model, x, y).value, evidence(model, x[order], y[order]).value, rtol=1e-9, atol=1e-9
        )


def test_many_points_are_predicted_in_blocks(data):
    x, y = data
    posterior = condition(gp.GP(kernels.RBF()), x, y)
    z = np.random.default_rng(1).normal(size=(2500, 2))
    mean, std = predict(posterior, z)
    for part in (slice(0, 7), slice(1240, 1260), slice(2490, 2500)):
        few, spread = predict(posterior, z[part])
        np.testing.assert_allclose(mean[part], few, rtol=1e-12)
        np.testing.assert_allclose(std[part], spread, rtol=1e-12)
    program = predict.lower(posterior, jnp.zeros((200_000, 2))).compile()
    assert program.memory_analysis().temp_size_in_bytes < 5e7  # the matrix K* of all points is 19 MB a column of 12


def test_samples_have_the_moments_of_the_posterior_and_the_prior(data):
    x, y = data
    posterior = condition(gp.GP(kernels.RBF(), mean=1.0), x, y)
    z = x[:3] + 0.5
    mean, covariance = covariance_of(posterior, z)
    draws = jax.jit(gp.sample, static_argnums=3)(jax.random.key(0), posterior, z, 20_000)
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(jnp.cov(draws.T), covariance, atol=0.03)
    prior = jax.jit(gp.sample, static_argnums=3)(jax.random.key(1), posterior.gp, z, 20_000)
    np.testing.assert_allclose(prior.mean(0), jnp.ones(3), atol=0.03)
    np.testing.assert_allclose(jnp.cov(prior.T), kernels.RBF()(z), atol=0.04)


def test_without_noise_the_posterior_goes_through_the_data(data):
    x, y = data
    posterior = condition(gp.GP(kernels.Matern32(), noise_variance=0.0), x, y)
    mean, std = predict(posterior, x)
    np.testing.assert_allclose(mean, y, atol=1e-9)
    assert (std < 1e-6).all() and posterior.jitter == 0


def test_jitter_is_added_only_where_it_is_needed_and_is_told():
    x = jnp.linspace(0, 1, 40)
    model = gp.GP(kernels.RBF(2.0), noise_variance=0.0)
    found = evidence(model, x, jnp.sin(x))
    assert found.converged and 0 < found.jitter < 1e-10
    posterior = condition(model, x, jnp.sin(x))
    assert posterior.jitter == found.jitter
    np.testing.assert_allclose(predict(posterior, x + 0.01)[0], jnp.sin(x + 0.01), atol=1e-5)


def test_a_matrix_that_stays_indefinite_is_a_sentence_or_a_status(data):
    x, y = data
    model = gp.GP(2.0 * kernels.from_kernel_fn(lambda a, b: -jnp.sum((a - b) ** 2)))
    for attempt in (gp.evidence, gp.condition, jax.grad(gp.log_marginal_likelihood, allow_int=True)):
        with pytest.raises(DataError, match=r"Scaled\(FunctionKernel\).*smallest eigenvalue is -\d"):
            attempt(model, x, y)
    assert not evidence(model, x, y).converged
    assert not condition(model, x, y).converged
    error, _ = jax.jit(checkify.checkify(gp.log_marginal_likelihood))(model, x, y)
    assert "not positive definite" in error.get()


def test_a_batch_of_models_by_vmap(data):
    x, y = data

    def score(lengthscale):
        return gp.log_marginal_likelihood(gp.GP(kernels.RBF(lengthscale)), x, y)

    lengthscales = jnp.array([0.5, 1.0, 2.0])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(score)))(lengthscales)
    one = jax.jit(jax.value_and_grad(score))
    expected = [one(lengthscale) for lengthscale in lengthscales]
    np.testing.assert_allclose(values, [v for v, _ in expected], rtol=1e-11)
    np.testing.assert_allclose(slopes, [s for _, s in expected], rtol=1e-10)


def test_single_precision(data):
    x, y = (np.asarray(a, np.float32) for a in data)
    with jax.enable_x64(False):
        mean, std = predict(condition(gp.GP(kernels.RBF()), x, y), x[:4])
        assert mean.dtype == std.dtype == jnp.float32
    expected = predict(condition(gp.GP(kernels.RBF()), *data), data[0][:4])
    np.testing.assert_allclose(mean, expected[0], atol=1e-5)
    np.testing.assert_allclose(std, expected[1], atol=1e-5)


def test_compiled_code_may_close_over_a_posterior(data):
    posterior = gp.condition(gp.GP(kernels.RBF()), *data)
    row = jax.jit(lambda i: gp.predict(posterior, posterior.x[i][None])[0])(3)
    np.testing.assert_allclose(row, gp.predict(posterior, data[0][3:4])[0], rtol=1e-12)


def test_words_are_points_too():
    words, more = ["cat", "cart", "dog", "dot"], ["car", "dig"]
    kernel = kernels.from_kernel_fn(lambda a, b: float(len(set(a) & set(b))), objects=True)
    y = np.array([1.0, 1.0, -1.0, -1.0])
    posterior = gp.condition(gp.GP(kernel), words, y)
    mean, std = gp.predict(posterior, more)
    gram = np.array([[len(set(a) & set(b)) for b in words] for a in words + more], float)
    a = gram[:4] + 0.1 * np.eye(4)
    np.testing.assert_allclose(mean, gram[4:] @ np.linalg.solve(a, y), rtol=1e-10)
    np.testing.assert_allclose(std**2, 3 - np.sum(gram[4:].T * np.linalg.solve(a, gram[4:].T), 0), rtol=1e-10)
    with pytest.raises(DataError, match="x: expected 3 points"):
        gp.condition(gp.GP(kernel), words, y[:3])
