"""Fits: the optima of reference fits, SciPy's optimum, solvers, subsets, priors, bounds, transformations, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from aijax import gp, kernels
from aijax.errors import ConfigError, DataError
from aijax.lbfgs import OVERTAKEN, REASONS
from aijax.parameters import named_parameters


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(24, 1))
    return x, np.sin(3 * x[:, 0]) + 0.1 * rng.normal(size=24)


MODEL = gp.GP(kernels.RBF())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rbf_ard", "matern32_ard"])
def test_golden(golden, name):
    case = np.load(golden / "gp" / f"fit_diabetes_{name}.npz")
    kind = {"rbf_ard": kernels.RBF, "matern32_ard": kernels.Matern32}[name]
    start = gp.GP(kind(jnp.ones(10)), noise_variance=0.5)
    fitted = gp.fit(start, case["x"], case["y"], restarts=3, key=jax.random.key(0))
    assert (fitted.converged and "tolerance" in fitted.reason) or "no longer changes" in fitted.reason
    assert fitted.value > case["lml_best"] - 1e-3
    np.testing.assert_allclose(fitted.history[0, 0], case["lml_start"], rtol=1e-9)
    assert fitted.status.tolist().count(OVERTAKEN) == 1
    mean, std = gp.predict(fitted, case["z"], include_noise=True)
    z = (case["y_test"] - mean) / std
    np.testing.assert_allclose(jnp.sqrt(jnp.mean((case["y_test"] - mean) ** 2)), case["test_rmse"], rtol=1e-4)
    nlpd = jnp.mean(z**2 / 2 + jnp.log(std) + np.log(2 * np.pi) / 2)
    np.testing.assert_allclose(nlpd, case["test_nlpd"], rtol=1e-4)


def test_the_optimum_is_that_of_scipy_and_the_posterior_is_its(data):
    x, y = data
    fitted = gp.fit(MODEL, x, y)

    def loss(theta):
        variance, lengthscale, noise = np.exp(theta)
        k = variance * np.exp(-0.5 * (x - x.T) ** 2 / lengthscale**2) + noise * np.eye(len(x))
        return 0.5 * y @ np.linalg.solve(k, y) + 0.5 * np.linalg.slogdet(k)[1] + len(y) / 2 * np.log(2 * np.pi)

    best = minimize(loss, np.log([1.0, 1.0, 0.1]), method="L-BFGS-B", options={"ftol": 1e-14})
    np.testing.assert_allclose(fitted.value, -best.fun, atol=1e-6)
    found = [fitted.gp.kernel.variance, fitted.gp.kernel.lengthscale, fitted.gp.noise_variance]
    np.testing.assert_allclose(found, np.exp(best.x), rtol=2e-3)
    np.testing.assert_allclose(fitted.value, gp.log_marginal_likelihood(fitted.gp, x, y), rtol=1e-10)
    assert (jnp.diff(fitted.history[0]) >= 0).all() and fitted.history[0, -1] == fitted.value
    direct = gp.condition(fitted.gp, x, y)
    for ours, theirs in zip(gp.predict(fitted, x), gp.predict(direct, x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    draws = [gp.sample(jax.random.key(0), posterior, x[:3], 2) for posterior in (fitted, direct)]
    np.testing.assert_allclose(*draws, rtol=1e-6)
    assert fitted.reason in REASONS and fitted.converged and fitted.best == 0


@pytest.mark.slow
def test_restarts_escape_a_poor_start_and_the_first_is_the_model(data):
    x, y = data
    poor = gp.GP(kernels.RBF(30.0, 0.01), noise_variance=3.0)
    one, more = gp.fit(poor, x, y), gp.fit(poor, x, y, restarts=6, key=jax.random.key(1), finalists=None)
    np.testing.assert_allclose(more.values[0], one.value, rtol=1e-9)
    assert more.value > one.value + 1 or more.best == 0
    assert more.value == more.values.max() == more.values[more.best]
    together = gp.fit(poor, x, y, restarts=6, key=jax.random.key(1), finalists=None, together=False)
    np.testing.assert_allclose(together.values, more.values, atol=1e-4)


def test_what_is_left_out_stays_and_patterns_choose(data):
    x, y = data
    some = gp.fit(MODEL, x, y, trainable="kernel.*")
    assert some.gp.noise_variance == 0.1 and some.gp.kernel.lengthscale != 1.0
    by_name = gp.fit(MODEL, x, y, trainable=lambda name: name.startswith("kernel."))
    np.testing.assert_allclose(by_name.value, some.value)
    inducing = gp.fit(MODEL, x, y, solver=gp.SGPR(x[::4]), trainable=["kernel.lengthscale", "solver.inducing"])
    assert inducing.gp.kernel.variance == 1.0 and not np.allclose(inducing.solver.inducing, x[::4])


@pytest.mark.slow
def test_priors_and_bounds(data):
    x, y = data
    priors = {"kernel.*": gp.LogNormal(0.0, 0.1), "noise_variance": gp.Gamma(2.0, 10.0)}
    fitted = gp.fit(MODEL, x, y, priors=priors, restarts=2, key=jax.random.key(0), finalists=None)
    densities = {name: value for name, value, _ in named_parameters(fitted.gp)}
    total = sum(float(priors["kernel.*"].log_density(v)) for name, v in densities.items() if name.startswith("kernel"))
    total += float(priors["noise_variance"].log_density(densities["noise_variance"]))
    np.testing.assert_allclose(fitted.value, gp.log_marginal_likelihood(fitted.gp, x, y) + total, rtol=1e-8)
    np.testing.assert_allclose(fitted.values[0], fitted.values[1], atol=1e-5)

    free = gp.fit(MODEL, x, y)
    edge = float(free.gp.kernel.lengthscale) + 0.1
    held = gp.fit(MODEL, x, y, bounds={"kernel.lengthscale": (edge, 5.0)}, restarts=2, key=jax.random.key(0))
    np.testing.assert_allclose(held.gp.kernel.lengthscale, edge, rtol=1e-12)
    assert held.converged and held.value < free.value


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [optax.adam(0.1), optax.lbfgs(linesearch=None, learning_rate=0.05)])
def test_any_optax_optimiser(data, optimizer):
    x, y = data
    fitted = gp.fit(MODEL, x, y, optimizer=optimizer, max_steps=200, tolerance=1e-2, restarts=2, key=jax.random.key(0))
    assert fitted.value > gp.fit(MODEL, x, y).value - 1e-2


def features(params, x):
    return jnp.tanh(x @ params["weights"] + params["biases"])


CASES = {
    "deep": (
        gp.GP(kernels.Warped(kernels.RBF(), features, {"weights": np.array([[1.0, -2.0]]), "biases": np.zeros(2)})),
        {},
    ),
    "functions": (gp.GP(lambda a, b: jnp.exp(-jnp.sum((a - b) ** 2)), mean=lambda x: 0.1 * x[:, 0]), {}),
    "composite": (gp.GP(2.0 * kernels.Periodic() + kernels.Matern52() * kernels.Linear(), mean=0.3), {}),
    "state_space": (gp.GP(kernels.Matern32()), {"solver": gp.StateSpace()}),
    "iterative": (MODEL, {"solver": gp.Iterative(), "key": jax.random.key(0), "max_steps": 8}),
    "several_outputs": (MODEL, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_models_and_solvers(data, name):
    model, options = CASES[name]
    x, y = data
    if name == "state_space":
        x = x[:, 0]
    if name == "several_outputs":
        y = np.stack([y, y**2], 1)
    fitted = gp.fit(model, jnp.asarray(x), jnp.asarray(y), **options)
    assert fitted.value > fitted.history[0, 0] + 0.5
    mean, std = gp.predict(fitted, jnp.asarray(x[:4]))
    assert jnp.isfinite(mean).all() and (std > 0).all()


def test_classes_by_laplace(data):
    x, y = data
    fitted = gp.fit(
        gp.GP(kernels.RBF()), x, (y > 0).astype(int), solver=gp.Laplace(gp.Bernoulli()), trainable="kernel.*"
    )
    assert fitted.converged and fitted.value > fitted.history[0, 0]
    assert np.mean((np.asarray(gp.predict(fitted, x)[0]) > 0) == (y > 0)) > 0.9


@pytest.mark.slow
def test_inside_of_jit_and_vmap_and_in_float32(data):
    x, y = data
    targets = np.stack([y, 3 * y])
    values = jax.jit(jax.vmap(lambda y: gp.fit(MODEL, x, y).value))(targets)
    np.testing.assert_allclose(values, [gp.fit(MODEL, x, row).value for row in targets], atol=1e-6)
    single = gp.fit(MODEL, x.astype(np.float32), y.astype(np.float32))
    assert single.value.dtype == jnp.float32 and single.converged
    np.testing.assert_allclose(single.value, values[0], rtol=1e-4)
    hidden = np.where(np.arange(24) < 20, y, np.nan)
    part = gp.fit(MODEL, x, hidden, observed=np.arange(24) < 20)
    np.testing.assert_allclose(part.value, gp.fit(MODEL, x[:20], y[:20]).value, atol=1e-6)
    nowhere = jax.jit(lambda y: gp.fit(MODEL, x, y))(jnp.full(24, jnp.nan))
    assert nowhere.value == -jnp.inf and not nowhere.converged


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"trainable": "kernel.lengthscal"}, r"matches no parameter; did you mean 'kernel.lengthscale'"),
        ({"trainable": ()}, r"nothing to fit; the floating parameters are: kernel.lengthscale, kernel.variance"),
        ({"priors": {"variance": gp.Normal()}}, r"priors: 'variance' matches no parameter that is fitted"),
        ({"bounds": {"(": (0, 1)}}, r"expected a regular expression, got '\('"),
        ({"bounds": {"kernel.variance": (2.0, 3.0)}}, r"kernel.variance: expected a start within its bounds"),
        ({"bounds": {"kernel.variance": (3.0, 2.0)}}, r"bounds: expected \(lowest, highest\) for kernel.variance"),
        ({"restarts": 3}, r"key: 3 restarts are drawn at random; give a key"),
        ({"restarts": 0}, r"expected 1 or more, got 0"),
        ({"optimizer": "bfgs"}, r"expected 'lbfgs' or an optax transformation, got 'bfgs'"),
    ],
)
def test_mistakes_in_the_call(data, options, told):
    with pytest.raises(ConfigError, match=told):
        gp.fit(MODEL, *data, **options)


def test_mistakes_in_the_model_and_the_data(data):
    x, y = data
    with pytest.raises(ConfigError, match="noise_variance: 0 is the edge of where it may lie"):
        gp.fit(gp.GP(kernels.RBF(), noise_variance=0.0), x, y)
    with pytest.raises(DataError, match="y: row 3 has a value that is not finite"):
        gp.fit(MODEL, x, np.where(np.arange(24) == 3, np.nan, y))
    with pytest.raises(DataError, match="expected 23 points"):
        gp.fit(MODEL, x, y[1:])
    with pytest.raises(DataError, match="the evidence is finite at none of 1 starts"):
        gp.fit(gp.GP(lambda a, b: jnp.sum(a * b) * jnp.nan), x, y)
