"""What the peers do with the problems of `gp_cases`: a function returns one that runs the case."""

import numpy as np
from gp_cases import dense_problem, diabetes, in_double_precision, repeated, step_problem, time_problem


def tinygp_dense(size):
    jax = in_double_precision()
    import tinygp

    x, y, log_params = dense_problem(int(size))
    x, y = jax.device_put((x, y))

    def loss(log_params):
        values = jax.numpy.exp(log_params)
        kernel = values[-2] * tinygp.transforms.Linear(1 / values[:-2], tinygp.kernels.ExpSquared())
        return -tinygp.GaussianProcess(kernel, x, diag=values[-1]).log_probability(y)

    return repeated(jax, jax.value_and_grad(loss), log_params)


def tinygp_markov(switch=""):
    if switch:
        return loop_switch(tinygp_markov)
    jax = in_double_precision()
    import tinygp

    t, y, log_params = time_problem()
    t, y = jax.device_put((t, y))

    def loss(log_params):
        lengthscale, variance, noise = jax.numpy.exp(log_params)
        kernel = tinygp.kernels.quasisep.Matern32(scale=lengthscale, sigma=jax.numpy.sqrt(variance))
        return -tinygp.GaussianProcess(kernel, t, diag=noise, assume_sorted=True).log_probability(y)

    return repeated(jax, jax.value_and_grad(loss), log_params)


def gpjax_model(jax, gpx, log_params, jitter=0.0):
    values = jax.numpy.exp(log_params)
    kernel = gpx.kernels.RBF(lengthscale=values[:-2], variance=values[-2])
    prior = gpx.Prior(mean_function=gpx.mean_functions.Zero(), kernel=kernel, jitter=jitter)
    return prior * gpx.likelihoods.Gaussian(obs_stddev=jax.numpy.sqrt(values[-1]))


def gpjax_dense(size):
    jax = in_double_precision()
    import gpjax as gpx

    x, y, log_params = dense_problem(int(size))
    data = gpx.Dataset(X=jax.numpy.asarray(x), y=jax.numpy.asarray(y)[:, None])

    def loss(log_params):
        return -gpx.objectives.conjugate_mll(gpjax_model(jax, gpx, log_params), data)

    return repeated(jax, jax.value_and_grad(loss), log_params)


def gpjax_sgpr():
    jax = in_double_precision()
    import gpjax as gpx

    x, y, log_params = dense_problem(20_000)
    data = gpx.Dataset(X=jax.numpy.asarray(x), y=jax.numpy.asarray(y)[:, None])

    def loss(log_params, inducing):
        family = gpx.variational_families.CollapsedVariationalGaussian(
            model=gpjax_model(jax, gpx, log_params, 1e-6), inducing_inputs=inducing
        )
        return -gpx.objectives.collapsed_elbo(family, data)

    return repeated(jax, jax.value_and_grad(loss, argnums=(0, 1)), log_params, x[:512])


def gpjax_markov(switch=""):
    if switch:
        return loop_switch(gpjax_markov)
    jax = in_double_precision()
    import gpjax as gpx

    t, y, log_params = time_problem()
    data = gpx.Dataset(X=jax.numpy.asarray(t)[:, None], y=jax.numpy.asarray(y)[:, None])

    def loss(log_params):
        lengthscale, variance, noise = jax.numpy.exp(log_params)
        kernel = gpx.kernels.Matern32(lengthscale=lengthscale, variance=variance, n_dims=1)
        prior = gpx.state_space.StateSpacePrior(mean_function=gpx.mean_functions.Zero(), kernel=kernel, jitter=0.0)
        likelihood = gpx.likelihoods.Gaussian(obs_stddev=jax.numpy.sqrt(noise))
        return -gpx.state_space.state_space_mll(prior * likelihood, data)

    return repeated(jax, jax.value_and_grad(loss), log_params)


def loop_switch(make):
    """Returns `make()` with the same switch of the compiler that aijax sets."""
    import os

    os.environ["XLA_FLAGS"] = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000"
    return make()


def celerite2_markov(switch=""):
    """The value alone: the gradient needs bindings of its own."""
    import celerite2

    t, y, log_params = time_problem()
    lengthscale, variance, noise = np.exp(log_params)
    kernel = celerite2.terms.Matern32Term(sigma=np.sqrt(variance), rho=lengthscale)

    def run():
        model = celerite2.GaussianProcess(kernel, mean=0.0)
        model.compute(t, diag=np.full(len(t), noise), quiet=True)
        return -model.log_likelihood(y), None

    return run


def sklearn_kernel(lengthscale, variance, noise):
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    return ConstantKernel(variance) * RBF(lengthscale) + WhiteKernel(noise)


def sklearn_dense(size):
    from sklearn.gaussian_process import GaussianProcessRegressor

    x, y, log_params = dense_problem(int(size))
    values = np.exp(log_params)
    kernel = sklearn_kernel(values[:-2], values[-2], values[-1])
    model = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None)
    # what `fit` sets; it would predict besides
    model.kernel_, model.X_train_, model.y_train_ = kernel, x, y

    def run():
        value, slope = model.log_marginal_likelihood(kernel.theta, eval_gradient=True)
        return -value, -np.concatenate([slope[1:-1], slope[:1], slope[-1:]])

    return run


def sklearn_fit():
    """One start."""
    from sklearn.gaussian_process import GaussianProcessRegressor

    x, y = diabetes()
    model = GaussianProcessRegressor(sklearn_kernel(np.ones(10), 1.0, 0.5), alpha=0.0)
    return lambda: (model.fit(x, y).log_marginal_likelihood_value_, None)


def gpytorch_model(x, y, log_params, inducing=None):
    import gpytorch
    import torch

    torch.set_default_dtype(torch.float64)
    x, y, values = torch.as_tensor(x), torch.as_tensor(y), np.exp(log_params)
    likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=gpytorch.constraints.Positive())
    base = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=x.shape[1]))
    whole = base
    if inducing is not None:
        points = torch.as_tensor(inducing)
        whole = gpytorch.kernels.InducingPointKernel(base, inducing_points=points, likelihood=likelihood)

    class Model(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(x, y, likelihood)
            self.mean, self.covariance = gpytorch.means.ZeroMean(), whole

        def forward(self, points):
            return gpytorch.distributions.MultivariateNormal(self.mean(points), self.covariance(points))

    model = Model().double().train()
    base.base_kernel.lengthscale, base.outputscale = torch.as_tensor(values[:-2]), float(values[-2])
    likelihood.noise = float(values[-1])
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    raw = [base.base_kernel.raw_lengthscale, base.raw_outputscale, likelihood.noise_covar.raw_noise]

    def run():
        model.zero_grad()
        loss = -objective(model(x), y) * len(y)
        loss.backward()
        # raw parameters pass a softplus
        slopes = [(p.grad / torch.sigmoid(p.detach())).numpy().ravel() for p in raw]
        return loss.item(), np.concatenate(slopes) * values

    return run


def gpytorch_dense(size):
    import gpytorch

    run = gpytorch_model(*dense_problem(int(size)))

    def exactly():
        with gpytorch.settings.fast_computations(False, False, False):
            return run()

    return exactly


def gpytorch_iterative():
    return gpytorch_model(*dense_problem(4000))


def gpytorch_sgpr():
    x, y, log_params = dense_problem(20_000)
    return gpytorch_model(x, y, log_params, x[:512].copy())


def botorch_bayesopt():
    import torch
    from botorch.acquisition import LogExpectedImprovement
    from botorch.models import SingleTaskGP
    from botorch.optim import optimize_acqf
    from gpytorch.kernels import MaternKernel
    from gpytorch.means import ZeroMean

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    x, y = (torch.as_tensor(a) for a in step_problem())
    kernel = MaternKernel(nu=2.5, ard_num_dims=6)
    kernel.lengthscale = 0.5
    model = SingleTaskGP(
        x, y[:, None], train_Yvar=torch.full_like(y, 0.01)[:, None], covar_module=kernel, mean_module=ZeroMean(),
        outcome_transform=None,
    ).eval()  # fmt: skip
    best = model.posterior(x).mean.max().item()
    bounds = torch.tensor([[0.0] * 6, [1.0] * 6])

    def run():
        acquisition = LogExpectedImprovement(model, best_f=best)
        _, value = optimize_acqf(acquisition, bounds, q=1, num_restarts=20, raw_samples=512)
        return value.item(), None

    return run


PROGRAMS = {
    "tinygp": {"dense": tinygp_dense, "markov": tinygp_markov},
    "gpjax": {"dense": gpjax_dense, "markov": gpjax_markov, "sgpr": gpjax_sgpr},
    "celerite2": {"markov": celerite2_markov},
    "sklearn": {"dense": sklearn_dense, "fit": sklearn_fit},
    "gpytorch": {"dense": gpytorch_dense, "iterative": gpytorch_iterative, "sgpr": gpytorch_sgpr},
    "botorch": {"bayesopt": botorch_bayesopt},
}
