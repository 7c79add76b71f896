"""Predictors, correctors and whole predictor-corrector runs against reference updates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import (
    DDPM,
    VE,
    EulerMaruyama,
    Grid,
    Heun,
    PredictorCorrector,
    ReverseDiffusion,
    linear_table,
    make_grid,
    sample,
)
from aijax.diffusion.mixture import score
from aijax.diffusion.samplers.plan import combine, compact
from aijax.diffusion.samplers.predictor_corrector import annealed_langevin_step, langevin_step
from aijax.errors import ConfigError


def discrete_levels(case):
    """alpha and sigma of the discretised process, from no noise up."""
    p, count = case.params, case.params["N"]
    if p["sde"] == "vp":
        table = linear_table(count, p["beta_min"] / count, p["beta_max"] / count)
        ratios = np.append(0.0, table.ratio(np.arange(count)))
        return 1 / np.sqrt(1 + ratios**2), ratios / np.sqrt(1 + ratios**2)
    sigmas = np.exp(np.linspace(np.log(p["sigma_min"]), np.log(p["sigma_max"]), count))
    return np.ones(count + 1), np.append(0.0, sigmas)


@pytest.mark.golden("predictor_step")
def test_the_golden_predictors(case, float64):
    p, process = case.params, case.process
    flow = p["probability_flow"]
    in_time = p["predictor"] == "euler_maruyama" or p["sde"] == "subvp"
    alphas, sigmas = (None, None) if in_time else discrete_levels(case)
    for i, (t, index) in enumerate(zip(case["t"], case["index"], strict=True)):
        if in_time:
            times = np.array([t, t - 1 / p["N"]])
            inside = np.maximum(times, 1e-9)
            grid = Grid(times, process.alpha(inside), process.sigma(inside))
            sampler = EulerMaruyama(flow, noise_last=True)
        else:
            step = [index + 1, index]
            grid = Grid(np.zeros(2), alphas[step], sigmas[step])
            ancestral = DDPM("large" if p["sde"] == "vp" else "small", noise_last=True)
            diffusion = ReverseDiffusion(flow, noise_last=True)
            sampler = ancestral if p["predictor"] == "ancestral_sampling" else diffusion
        plan = compact(sampler.plan(process, grid), jnp.float64)
        row = jax.tree.map(lambda column: np.asarray(column)[0], plan.update)
        x, z = case["x"][i], case["noise"][i]
        eps = -grid.sigmas[0] * case["score"][i]
        x0 = (x - grid.sigmas[0] * eps) / grid.alphas[0]
        case.close(combine(row, x, None, (x0,), (eps,), z), case["x_next"][i])
        case.close(combine(row, x, None, (x0,), (eps,), 0 * z), case["x_mean"][i])


@pytest.mark.golden("corrector_step")
def test_the_golden_correctors(case, arrays):
    p, process, t = case.params, case.process, case["t"]
    shrink = 1.0
    if p["sde"] == "vp":
        index = np.floor(t * (p["N"] - 1) + 1e-9).astype(int)
        shrink = 1 - linear_table(p["N"], p["beta_min"] / p["N"], p["beta_max"] / p["N"]).betas[index]
    mixture, alpha, sigma = case.mixture, process.alpha(t), process.sigma(t)

    @jax.jit
    def correct(x, noise):
        for z in noise:
            slope = score(mixture, x, alpha, sigma)
            if p["corrector"] == "langevin":
                x, mean = langevin_step(x, slope, z, p["snr"], shrink)
            else:
                x, mean = annealed_langevin_step(x, slope, z, p["snr"], sigma, shrink)
        return x, mean

    x, mean = correct(arrays["x"], arrays["noise"])
    case.close(x, "x_next")
    case.close(mean, "x_mean")


@pytest.mark.golden("sampler_ve_pc")
def test_the_golden_runs(case, float64):
    p, config, count = case.params, case.params["config"], case.params["num_steps"]
    process = VE(config["sigma_min"], config["sigma_max"])
    times = np.linspace(1, config["sampling_eps"], count)
    levels = np.exp(np.linspace(np.log(process.sigma_min), np.log(process.sigma_max), count))
    sigmas = levels[(times * (count - 1)).astype(int)]
    shape = case["x"].shape[1:]
    _, seen = sample(
        jax.random.key(0),
        lambda x, t: score(case.mixture, x, 1.0, process.sigma(t)),
        process,
        shape,
        sampler=PredictorCorrector(ReverseDiffusion(noise_last=True), snr=config["snr"], corrections=p["ncorr"]),
        grid=Grid(np.append(times, 0), np.ones(count + 1), np.append(sigmas, 0)),
        prediction="score",
        init=jnp.asarray(case["x"][0]),
        noise=jnp.asarray(case["noise"].reshape(count, -1, *shape)),
        trajectory=True,
    )
    case.close(seen.states, case["x"][1:])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: PredictorCorrector(snr=0.0), "snr: expected a positive number"),
        (lambda: PredictorCorrector(corrections=0), "corrections: expected an integer of at least 1"),
        (lambda: PredictorCorrector(corrector="langwin"), "corrector: unknown value 'langwin'; did you mean"),
        (
            lambda: PredictorCorrector(Heun()).prepare(VE(), make_grid(VE(), 4), jnp.float32),
            "predictor: expected a sampler of one call a step",
        ),
    ],
)
def test_bad_correctors_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
