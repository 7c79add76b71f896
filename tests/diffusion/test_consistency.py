"""Consistency losses, curricula and noise against reference values; the exact function has no loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aijax import models
from aijax.diffusion import (
    EDM,
    Consistency,
    consistency_distillation_loss,
    consistency_fn,
    consistency_ratios,
    consistency_training_loss,
    ratio_grid,
    sample,
    sliced_wasserstein,
)
from aijax.diffusion.consistency import (
    curriculum,
    doubling_curriculum,
    heun_step,
    lognormal_probabilities,
    target_decay,
)
from aijax.diffusion.mixture import denoiser, sample_mixture
from aijax.errors import ConfigError
from aijax.models.embeddings import sinusoidal_embedding
from aijax.train import init_state, make_step

KEY = jax.random.key(0)
WEIGHTS = np.array([[0.7, -0.3], [0.2, 0.9]])


@pytest.mark.golden("loss", where=lambda entry: entry["id"].startswith("ct-loss"))
def test_the_golden_losses(case, arrays):
    p = case.params
    process = EDM(p["eps"] / 2, 2 * p["sigma_max"])

    def toy(weights):
        network = lambda x, noise_level: jnp.tanh(x @ weights + 0.4 * noise_level.reshape(-1, 1))  # noqa: E731
        return consistency_fn(network, process, sigma_data=p["sigma_data"], ratio_min=p["eps"])

    ratios = consistency_ratios(p["N"], ratio_min=p["eps"], ratio_max=p["sigma_max"], rho=p["rho"])
    case.close(ratios[case["index"]], "sigma_lo")
    case.close(ratios[case["index"] + 1], "sigma_hi")
    model, target, x0 = toy(WEIGHTS), toy(0.97 * WEIGHTS), arrays["x0"]
    given = {"index": arrays["index"], "noise": arrays["noise"]}
    teacher = denoiser(case.mixture, process)

    @jax.jit
    def losses(x0):
        squared = {"distance": "l2", "weighting": "uniform"}
        low, high = jnp.asarray(ratios)[given["index"]], jnp.asarray(ratios)[given["index"] + 1]
        return {
            "ct_l2": consistency_training_loss(KEY, model, target, process, x0, ratios, **squared, **given),
            "ict_huber": consistency_training_loss(KEY, model, None, process, x0, ratios, **given),
            "cd_heun_l2": consistency_distillation_loss(KEY, model, target, teacher, process, x0, ratios, **given),
            "x_heun": heun_step(teacher, process, x0 + high[:, None] * given["noise"], high, low),
        }

    for name, value in losses(x0).items():
        case.close(value, name)


@pytest.mark.golden("consistency_schedule")
def test_the_golden_curricula(case):
    p = case.params
    if case.id.startswith("ct-"):
        case.close([curriculum(int(k), p["K"], p["s0"], p["s1"]) for k in case["k"]], "N")
        case.close([target_decay(int(k), p["K"], p["s0"], p["s1"], p["mu0"]) for k in case["k"]], "mu")
    elif case.id.startswith("ict-curriculum"):
        case.close([doubling_curriculum(int(k), p["K"], p["s0"], p["s1"]) for k in case["k"]], "N")
    else:
        ratios = consistency_ratios(p["N"])
        case.close(ratios, "sigmas")
        case.close(lognormal_probabilities(ratios, p["P_mean"], p["P_std"]), "prob")
        case.close(1 / np.diff(ratios), "weight")


def test_the_exact_function_of_a_gaussian_has_no_distillation_loss(float64):
    process, ratios = EDM(), consistency_ratios(400, ratio_min=0.01, ratio_max=5.0)
    exact = lambda x, t: x * (jnp.sqrt((1 + 0.01**2) / (1 + t**2)))[:, None]  # noqa: E731
    teacher = lambda x, t: x / (1 + t[:, None] ** 2)  # noqa: E731
    x0 = jax.random.normal(KEY, (64, 2))
    chosen = {"probabilities": lognormal_probabilities(ratios)}
    loss = jax.jit(lambda x0: consistency_distillation_loss(KEY, exact, None, teacher, process, x0, ratios, **chosen))
    assert float(loss(x0).max()) < 1e-8


def test_indices_are_drawn_by_their_probabilities_and_never_from_padding():
    ratios, probabilities = np.array([1.0, 2.0, 4.0, 8.0, 8.0]), np.array([0.5, 0.0, 1.5, 0.0])
    told = lambda x, t: jnp.broadcast_to(jnp.log2(t)[:, None], x.shape)  # noqa: E731

    @jax.jit
    def gaps(key):
        chosen = {"distance": "l2", "weighting": "inverse_gap", "probabilities": probabilities}
        return consistency_training_loss(key, told, None, EDM(), jnp.zeros((4000, 1)), ratios, **chosen)

    # one doubling has an error of 1, so that the loss is its weight
    values, counts = np.unique(gaps(KEY), return_counts=True)
    np.testing.assert_allclose(values, [0.25, 1.0])
    assert counts[1] / 4000 == pytest.approx(0.25, abs=0.03)
    given = {"distance": "l2", "weighting": "edm", "sigma_data": 1.0, "index": np.arange(3), "noise": jnp.zeros((3, 1))}
    loss = consistency_training_loss(KEY, told, None, EDM(), jnp.zeros((3, 1)), ratios, **given)
    np.testing.assert_allclose(loss, 1 + 1 / ratios[1:4] ** 2, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("distilled", [True, False])
def test_a_mixture_is_sampled_in_one_two_and_four_steps(g2, distilled):
    process, model = EDM(), models.build({"name": "mlp", "widths": (128,) * 4}, num_classes=2)
    stages = [40] * 6 if distilled else [doubling_curriculum(k, 8) for k in range(8)]
    length, most = 500, max(stages)
    schedule = optax.cosine_decay_schedule(1e-3, length * len(stages), 0.01)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def consistent(params, x, t):
        def network(y, c_noise):
            told = sinusoidal_embedding(jnp.broadcast_to(c_noise, len(y)), 16, max_period=16.0, scale=8.0)
            return model.apply({"params": params}, jnp.concatenate([y, told], 1))

        return consistency_fn(network, process, sigma_data=1.0)(x, t)

    def loss_fn(params, levels, key):
        data_key, key = jax.random.split(key)
        x0 = sample_mixture(data_key, g2, 1024)
        student = functools.partial(consistent, params)
        if distilled:
            chosen = {"weighting": "edm", "sigma_data": 1.0} | levels
            teacher = denoiser(g2, process)
            return consistency_distillation_loss(key, student, None, teacher, process, x0, **chosen).mean(), {}
        return consistency_training_loss(key, student, None, process, x0, distance="l2", **levels).mean(), {}

    step = make_step(loss_fn, optimizer, ema_decay=0.99)

    @jax.jit
    def run(state, levels):
        return jax.lax.scan(lambda state, _: (step(state, levels, KEY)[0], None), state, length=length)[0]

    state = init_state(models.init(KEY, model, jnp.zeros((1, 18))), optimizer, keep_ema=True)
    for count in stages:
        ratios, rest = consistency_ratios(count), most - count
        padded = np.pad(ratios, (0, rest), "edge"), np.pad(lognormal_probabilities(ratios), (0, rest))
        state = run(state, dict(zip(("ratios", "probabilities"), padded, strict=True)))
    line_key, exact_key, key = jax.random.split(jax.random.key(1), 3)
    exact = sample_mixture(exact_key, g2, 20_000)
    found = []
    for ratios in ((80.0,), (80.0, 1.5), (80.0, 4.0, 1.0, 0.3)):
        chosen = {"sampler": Consistency(process.t_min), "grid": ratio_grid(process, ratios)}
        x = sample(key, jax.tree_util.Partial(consistent, state.best_params), process, exact.shape, **chosen)
        found.append(float(sliced_wasserstein(line_key, exact, x)))
    assert all(distance <= bound for distance, bound in zip(found, (0.12, 0.08, 0.07), strict=True)), found


def test_mistakes_are_named():
    x0 = jnp.zeros((2, 1))
    with pytest.raises(ConfigError, match="count: expected at least 2, got 1"):
        consistency_ratios(1)
    with pytest.raises(ConfigError, match="total: expected a step for each of 8 values of N, got 7"):
        doubling_curriculum(0, 7)
    with pytest.raises(ConfigError, match="ratios: expected at least 2, got 1"):
        consistency_training_loss(KEY, lambda x, t: x, None, EDM(), x0, jnp.ones(1))
    with pytest.raises(ConfigError, match="distance: unknown value 'l1'; expected one of l2"):
        consistency_training_loss(KEY, lambda x, t: x, None, EDM(), x0, consistency_ratios(4), distance="l1")
