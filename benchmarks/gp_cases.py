"""The problems that `gp.py` sets, and what aijax does with them: a function returns one that runs the case.

Parameters are logarithms of (lengthscales, variance, noise).
"""

import numpy as np


def dense_problem(n, d=8):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    lengthscale = np.linspace(1.0, 3.0, d)
    y = np.sin(x @ (1 / lengthscale)) + 0.3 * rng.normal(size=n)
    return x, y, np.log([*lengthscale, 1.3, 0.1])


def time_problem(n=100_000):
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0, n / 10, n))
    return t, np.sin(t) + 0.3 * rng.normal(size=n), np.log([1.7, 0.9, 0.09])


def dense_gradient(x, y, log_params):
    """The gradient of the negative log marginal likelihood, by plain NumPy."""
    *lengthscale, variance, noise = np.exp(log_params)
    z = x / np.array(lengthscale)
    squares = (z**2).sum(1)
    signal = variance * np.exp(z @ z.T - (squares[:, None] + squares) / 2)
    inverse = np.linalg.inv(signal + noise * np.eye(len(y)))
    solution = inverse @ y
    weights = (inverse - np.outer(solution, solution)) / 2
    product = weights * signal
    rows = product.sum(1)
    scales = 2 * (rows @ z**2 - np.sum(z * (product @ z), 0))
    return np.array([*scales, rows.sum(), noise * np.trace(weights)])


def diabetes():
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    train = np.sort(np.random.default_rng(0).permutation(442)[:353])
    x, y = data.data[train], data.target[train]
    return (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()


def step_problem():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(100, 6))
    return x, np.sin(3 * x).sum(1) + 0.05 * rng.normal(size=100)


def in_double_precision():
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def repeated(jax, function, *arguments):
    """Returns a function that runs `function`, compiled, and waits for it."""
    compiled, arguments = jax.jit(function), jax.device_put(arguments)
    return lambda: jax.block_until_ready(compiled(*arguments))


def aijax_model(kernels, gp, jax, log_params):
    values = jax.numpy.exp(log_params)
    return gp.GP(kernels.RBF(values[:-2], values[-2]), noise_variance=values[-1])


def aijax_dense(size):
    jax = in_double_precision()
    from aijax import gp, kernels

    x, y, log_params = dense_problem(int(size))
    x, y = jax.device_put((x, y))

    def loss(log_params):
        return -gp.log_marginal_likelihood(aijax_model(kernels, gp, jax, log_params), x, y)

    return repeated(jax, jax.value_and_grad(loss), log_params)


def aijax_markov(switch=""):
    from aijax.backend import fast_small_loops

    if switch:
        fast_small_loops()
    jax = in_double_precision()
    from aijax import gp, kernels

    t, y, log_params = time_problem()
    t, y = jax.device_put((t, y))

    def loss(log_params):
        lengthscale, variance, noise = jax.numpy.exp(log_params)
        model = gp.GP(kernels.Matern32(lengthscale, variance), noise_variance=noise)
        return -gp.log_marginal_likelihood(model, t, y, solver=gp.StateSpace())

    return repeated(jax, jax.value_and_grad(loss), log_params)


def aijax_sgpr():
    jax = in_double_precision()
    from aijax import gp, kernels

    x, y, log_params = dense_problem(20_000)
    x, y = jax.device_put((x, y))

    def loss(log_params, inducing):
        model = aijax_model(kernels, gp, jax, log_params)
        return -gp.log_marginal_likelihood(model, x, y, solver=gp.SGPR(inducing))

    return repeated(jax, jax.value_and_grad(loss, argnums=(0, 1)), log_params, x[:512])


def aijax_fit():
    jax = in_double_precision()
    from aijax import gp, kernels

    x, y = diabetes()
    model = gp.GP(kernels.RBF(lengthscale=np.ones(10)), noise_variance=0.5)
    return lambda: (gp.fit(model, x, y, restarts=12, key=jax.random.key(0)).value, None)


def aijax_bayesopt():
    jax = in_double_precision()
    from aijax import gp, kernels

    x, y = step_problem()
    posterior = gp.condition(gp.GP(kernels.Matern52(np.full(6, 0.5)), noise_variance=0.01), x, y)
    bounds = jax.numpy.array([[0.0, 1.0]] * 6)
    step = jax.jit(lambda key: gp.suggest(key, posterior, bounds, restarts=20))
    return lambda: (jax.block_until_ready(step(jax.random.key(0))).value, None)


def aijax_iterative():
    jax = in_double_precision()
    from aijax import gp, kernels

    x, y, log_params = dense_problem(4000)
    model = aijax_model(kernels, gp, jax, log_params)

    def run():
        evidence, estimate = gp.evidence_and_gradient(jax.random.key(0), model, x, y, solver=gp.Iterative())
        slopes = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(estimate.gradient)])
        return -evidence.value, -slopes * np.exp(log_params)

    return run


PROGRAMS = {
    "dense": aijax_dense, "markov": aijax_markov, "sgpr": aijax_sgpr, "fit": aijax_fit, "bayesopt": aijax_bayesopt,
    "iterative": aijax_iterative,
}  # fmt: skip
