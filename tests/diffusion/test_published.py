"""Whole trajectories of published samplers, call by call, from their own configs and the exact mixture."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import Known, classifier_free, linear_table, repaint, sample, zero_terminal_snr
from aijax.diffusion.mixture import GaussianMixture, posterior_mean
from aijax.diffusion.predictions import consistency_fn, from_x0, to_x0
from aijax.diffusion.published import repaint_resampling, scheduler
from aijax.diffusion.samplers.plan import compact, run_plan, uses_noise
from aijax.diffusion.samplers.sample import Predict
from aijax.errors import ConfigError

IN_SIGMA = ("Euler", "EulerAncestral", "Heun", "KDPM2", "KDPM2Ancestral", "LMS")
QUICK = {
    "ddpm-lin-20-large", "ddim-sd-20-eta1", "ddim-lin-20-clip", "ddpm-lin-10-dynthr", "dpmsolver++-3-15",
    "sde-dpmsolver++-2-15", "dpmsolver-singlestep-3-21", "unipc-3-bh1-10", "unipc-2-nocorr01-10", "deis-3-15",
    "pndm-prk-20", "pndm-plms-20", "lms-12-karras", "eulera-20", "cfg-rescale-ddim-15", "cfg-euler-12-w2",
}  # fmt: skip


def coordinates(name, plan, calls):
    """What the published x is multiplied by to give x here, after each call and before the first."""
    if name.removesuffix("Discrete") in IN_SIGMA:
        return np.append(plan.alphas[:1], plan.end_alphas)
    return np.ones(calls + 1)


def spread_noise(case, calls):
    """The listed noise, in the place of the calls that use it."""
    noise, used = np.zeros((calls, *case["x"].shape[1:])), 0
    for call, count in enumerate(case["n_noise"]):
        if count:
            noise[call] = case["noise"][used + count - 1]
            used += count
    return noise


def exact_model(mixture, kind, alphas, sigmas):
    """The mixture's prediction at the levels of each call, by its number."""

    def predict(x, number):
        alpha, sigma = alphas[number.astype(int)], sigmas[number.astype(int)]
        return from_x0(kind, posterior_mean(mixture, x, alpha, sigma), x, alpha, sigma)

    return predict


def trajectory(case, dtype):
    """The states after each call, from the config alone; the model is asked at the levels that the plan gives."""
    p = case.params
    found = scheduler(p["algorithm"], p["config"], p["num_steps"], **p["step_options"])
    plan = found.sampler.plan(found.process, found.grid)
    calls = len(plan.times)
    assert calls == len(case["x"]) - 1
    case.close(plan.sigmas / plan.alphas, "ratio")
    scale = coordinates(p["algorithm"], plan, calls)
    alphas, sigmas = jnp.asarray(plan.alphas, dtype), jnp.asarray(plan.sigmas, dtype)
    model = exact_model(case.mixture, found.prediction, alphas, sigmas)
    if "guided" in p:
        wanted = GaussianMixture(np.array(p["guided"]["cond_w"]), case.mixture.means, case.mixture.covariances)
        condition = exact_model(wanted, found.prediction, alphas, sigmas)
        model = classifier_free(condition, model, p["guided"]["scale"], rescale=p["guided"].get("rescale", 0.0))
    prepared = compact(dataclasses.replace(plan, times=np.arange(calls, dtype=float)), dtype)
    predict = Predict(
        model, found.prediction, constraint=found.constraint, reuse_eps=getattr(found.sampler, "reuse_eps", False)
    )
    start = jnp.asarray(case["x"][0] * scale[0], dtype)
    noise = jnp.asarray(spread_noise(case, calls), dtype) if uses_noise(prepared) else None
    _, seen = run_plan(None, predict, prepared, start, noise=noise, record=True)
    return np.asarray(seen.states) / scale[1:, None, None].astype(dtype)


@pytest.mark.golden("sampler_table", "guidance", where=lambda e: "algorithm" in e["params"] and e["id"] in QUICK)
def test_the_golden_trajectories(case, float64):
    case.close(trajectory(case, jnp.float64), case["x"][1:])


@pytest.mark.slow
@pytest.mark.golden("sampler_table", "guidance", where=lambda e: "algorithm" in e["params"] and e["id"] not in QUICK)
def test_the_other_golden_trajectories(case, float64):
    case.close(trajectory(case, jnp.float64), case["x"][1:])


@pytest.mark.slow
@pytest.mark.golden("sampler_table", "guidance", where=lambda e: "algorithm" in e["params"])
def test_the_golden_trajectories_in_float32(case):
    found = trajectory(case, jnp.float32)
    assert found.dtype == np.float32
    case.close(found, case["x"][1:])


@pytest.mark.golden("sampler_edm", "sampler_flow")
def test_the_golden_edm_and_flow_trajectories(case, float64):
    p = case.params
    found = scheduler(p["algorithm"], p["config"], p["num_steps"], **p["step_options"])
    case.close(found.grid.sigmas, "sigmas")
    model = exact_model(case.mixture, "x0", jnp.asarray(found.grid.alphas), jnp.asarray(found.grid.sigmas))
    numbered = dataclasses.replace(found.grid, times=np.arange(found.grid.steps + 1.0))
    _, seen = sample(
        jax.random.key(0),
        model,
        found.process,
        case["x"].shape[1:],
        sampler=found.sampler,
        grid=numbered,
        init=jnp.asarray(case["x"][0]),
        noise=jnp.asarray(case["noise"]) if "noise" in case else None,
        trajectory=True,
    )
    case.close(seen.states, case["x"][1:])


@pytest.mark.golden("sampler_consistency")
def test_the_golden_consistency_samples(case, float64):
    p = case.params
    given = p["set_timesteps"].get("timesteps")
    options = {} if given is None else {"timesteps": given}
    count = p["set_timesteps"].get("num_inference_steps") or len(given)
    found = scheduler("CMStochasticIterative", p["config"], count, **options)
    case.close(found.grid.ratios, "sigmas")
    weights = jnp.array([[0.7, -0.3], [0.2, 0.9]])
    function = consistency_fn(
        lambda x, noise_level: jnp.tanh(x @ weights + 0.4 * noise_level),
        found.process,
        sigma_data=found.sigma_data,
        ratio_min=p["config"]["sigma_min"],
    )
    _, seen = sample(
        jax.random.key(0),
        function,
        found.process,
        case["x"].shape[1:],
        sampler=found.sampler,
        grid=found.grid,
        constraint=found.constraint,
        init=jnp.asarray(case["x"][0]),
        noise=jnp.asarray(case["noise"]),
        trajectory=True,
    )
    case.close(seen.states, case["x"][1:])


@pytest.mark.golden("inpainting")
def test_the_golden_inpainting(case, float64):
    p = case.params
    table, grid, resampling = repaint_resampling(p["config"], p["num_steps"], p["jump_length"], p["jump_n_sample"])
    noise = np.zeros((len(resampling.steps), 2, *case["x0"].shape))
    call, used = -1, 0
    for time, operation in zip(case["timesteps"], case["ops"], strict=True):
        if operation > 0:
            call, index = call + 1, int(time)
            noise[call, 0], used = case["noise"][used], used + 1
            continue
        # single steps back, put together
        for beta in table.betas[index : index - operation]:
            noise[call, 1] = np.sqrt(1 - beta) * noise[call, 1] + np.sqrt(beta) * case["noise"][used]
            used += 1
        index -= operation
    noise[:, 1] /= np.where(resampling.noises > 0, resampling.noises, 1)[:, None, None]
    levels = jnp.asarray(grid.alphas), jnp.asarray(grid.sigmas)
    number = {float(time): i for i, time in enumerate(grid.times[:-1])}
    numbered = dataclasses.replace(grid, times=np.array([*number.values(), grid.steps], float))
    found = repaint(
        jax.random.key(0),
        exact_model(case.mixture, "x0", *levels),
        table,
        jnp.asarray(case["x0"]),
        jnp.asarray(case["mask"]),
        grid=numbered,
        resampling=resampling,
        eta=p["eta"],
        init=jnp.asarray(case["x"][0]),
        noise=jnp.asarray(noise),
    )
    case.close(found, case["x"][-1])


def given(output, x, t):
    return output


@pytest.mark.golden("single_step")
def test_the_golden_single_steps(case, float64):
    p, config = case.params, case.params["config"]
    found = scheduler(p["algorithm"], config, 1, **p["step_options"])
    back = 1 if p["algorithm"] == "DDPM" else 10
    for i, t in enumerate(case["t"]):
        last = float(found.process.ratio(t - back)) if t >= back else 0.0
        ratios = np.array([float(found.process.ratio(t)), last])
        grid = dataclasses.replace(
            found.grid, times=[t, 0], alphas=(1 + ratios**2) ** -0.5, sigmas=ratios * (1 + ratios**2) ** -0.5
        )
        sampler = dataclasses.replace(found.sampler, noise_last=bool(t > 0)) if back == 1 else found.sampler
        output = jnp.asarray(case["model_out"][i])
        output = (output, jnp.asarray(case["v"][i])) if "v" in case else output
        noise = jnp.asarray(case["noise"][i])[None] if np.any(sampler.plan(found.process, grid).update.noise) else None
        x, seen = sample(
            jax.random.key(0),
            jax.tree_util.Partial(given, output),
            found.process,
            case["x"].shape[1:],
            sampler=sampler,
            grid=grid,
            prediction=found.prediction,
            init=jnp.asarray(case["x"][i]),
            noise=noise,
            trajectory=True,
        )
        case.close(x, case["prev"][i])
        case.close(seen.x0[0], case["pred_x0"][i])


def test_a_known_part_is_kept_by_any_sampler(g2, float64):
    found = scheduler("DPMSolverMultistep", {}, 10)
    known = Known(jnp.array([1.5, 0.0]), jnp.array([1.0, 0.0]))
    model = lambda x, t: posterior_mean(g2, x, found.process.alpha(t), found.process.sigma(t))  # noqa: E731
    x = sample(
        jax.random.key(0), model, found.process, (5, 2), sampler=found.sampler, grid=found.grid, constraint=known
    )
    np.testing.assert_allclose(x[:, 0], 1.5, atol=1e-6)


@pytest.mark.parametrize(
    "name, config, message",
    [
        ("DDIMM", {}, "_class_name: unknown value 'DDIMM'; did you mean 'DDIM'"),
        ("DDIM", {"prediction_type": "eps"}, "prediction_type: unknown value 'eps'"),
        ("UniPCMultistep", {"solver_type": "bh3"}, "variant: unknown value 'bh3'"),
    ],
)
def test_bad_configs_are_named(name, config, message):
    with pytest.raises(ConfigError, match=message):
        scheduler(name, config, 5)


def test_levels_at_quantiles_of_a_beta_distribution():
    made = scheduler("EulerDiscreteScheduler", {"use_beta_sigmas": True, "final_sigmas_type": "zero"}, 3)
    ends = made.process.ratio(np.array([999, 0]))
    # Beta(0.6, 0.6) is symmetric, so that its median is 1/2
    np.testing.assert_allclose(made.grid.ratios, [ends[0], ends.mean(), ends[1], 0], rtol=1e-12)


@pytest.mark.parametrize(
    "name, field, value",
    [
        ("DPMSolverMultistep", "use_lu_lambdas", True), ("UniPCMultistep", "use_flow_sigmas", True),
        ("EulerDiscrete", "interpolation_type", "log_linear"), ("EulerDiscrete", "sigma_max", 50.0),
        ("FlowMatchEulerDiscrete", "use_karras_sigmas", True),
    ],
)  # fmt: skip
def test_fields_that_are_not_followed_are_refused(name, field, value):
    with pytest.raises(ConfigError, match=field):
        scheduler(name, {field: value}, 4)


def test_a_saved_config_of_deis_names_its_rule():
    saved = {"solver_type": "logrho", "algorithm_type": "deis"}
    assert scheduler("DEISMultistep", saved, 4).sampler.orders == scheduler("DEISMultistep", {}, 4).sampler.orders


def test_edm_with_the_sign_of_a_v_prediction():
    one, other = (scheduler("EDMEuler", {"prediction_type": kind}, 2) for kind in ("epsilon", "v_prediction"))
    x, network = np.ones((1, 3)), np.full((1, 3), 0.3)
    found = [from_x0(one.prediction, x, 2 * x, 1.0, 2.0), -from_x0(other.prediction, x, 2 * x, 1.0, 2.0)]
    np.testing.assert_allclose(*found)
    told = to_x0(one.prediction, network, x, 1.0, 2.0), to_x0(other.prediction, -network, x, 1.0, 2.0)
    np.testing.assert_allclose(*told)


def test_zero_terminal_snr_of_linear_betas_ends_above_the_level_before():
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    made = scheduler("EulerDiscrete", zero, 10)
    before = zero_terminal_snr(linear_table()).alpha_bars()
    np.testing.assert_allclose(made.process.alpha_bars(), np.append(before[:-1], 2.0**-24), rtol=1e-9)
    np.testing.assert_allclose(made.grid.ratios[0], np.sqrt(2.0**24 - 1), rtol=1e-9)


def test_one_step_of_edm_ends_where_each_class_does():
    for name, end in (("EDMDPMSolverMultistep", 0.002), ("EDMEuler", 80.0)):
        made = scheduler(name, {"final_sigmas_type": "sigma_min"}, 1)
        np.testing.assert_allclose(made.grid.sigmas, [80.0, end])


def test_the_larger_variance_adds_noise_wherever_the_last_index_is_not_zero():
    for spacing, noisy in (("leading", False), ("trailing", True)):
        made = scheduler("DDPM", {"variance_type": "fixed_large", "timestep_spacing": spacing}, 5)
        assert (made.sampler.plan(made.process, made.grid).update.noise[-1] > 0) == noisy


def test_trajectory_consistency_steps(follow):
    config = {"num_train_timesteps": 100, "beta_schedule": "linear"}
    made = scheduler("TCD", config, 3, eta=0.4, original_inference_steps=10)
    bars, indices = np.cumprod(1 - np.linspace(0.00085, 0.012, 100)), [99, 69, 39, 0]
    x, noises = np.array([0.4, -1.3]), np.random.default_rng(0).normal(size=(3, 2))
    plan = made.sampler.plan(made.process, made.grid)
    found = follow(plan, x, lambda x, t, a, s: (x - s * np.tanh(x)) / a, noise=lambda i: noises[i])
    for i, (now, after) in enumerate(itertools.pairwise(indices)):
        below = bars[int(0.6 * after)]
        x0 = (x - np.sqrt(1 - bars[now]) * np.tanh(x)) / np.sqrt(bars[now])
        middle = np.sqrt(below) * x0 + np.sqrt(1 - below) * np.tanh(x)
        share = bars[after] / below
        x = np.sqrt(share) * middle + np.sqrt(1 - share) * noises[i]
    np.testing.assert_allclose(found, x, rtol=1e-10)


def test_flow_matching_by_consistency_draws_all_noise_anew():
    made, other = (
        scheduler("FlowMatchLCM", {}, 4),
        scheduler("FlowMatchEulerDiscrete", {"stochastic_sampling": True}, 4),
    )
    assert made.sampler.floor == other.sampler.floor == 0
    np.testing.assert_array_equal(made.grid.times, other.grid.times)
