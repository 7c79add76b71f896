"""The one call: order of convergence, exact laws, sharded batches, transformations, noise, mistakes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import (
    DDIM,
    DDPM,
    DPM2,
    EDM,
    LMS,
    PNDM,
    VP,
    AdaptiveODE,
    Clip,
    DPMAdaptive,
    DPMpp2S,
    DPMppSDE,
    Euler,
    EulerMaruyama,
    Flow,
    Heun,
    Multistep,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseDiffusion,
    Singlestep,
    SubVP,
    UniPC,
    as_kind,
    linear_table,
    make_grid,
    reverse_grid,
    sample,
)
from aijax.diffusion.mixture import GaussianMixture, denoiser
from aijax.errors import ConfigError, DataError
from aijax.parallel import batch_sharding, make_mesh

ROUND = GaussianMixture(np.ones(1), np.array([[0.5, -1.0]]), 0.25 * np.eye(2)[None])


def denoise_round(x, t, alpha, sigma):
    """E[x_0 given x] of `ROUND`, in NumPy."""
    mean = ROUND.means[0]
    return mean + alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (x - alpha * mean)


def exact_flow(x, start, end):
    """The probability-flow map of `ROUND` between two ratios, in x = x_0 + rho n."""
    mean, variance = ROUND.means[0], 0.25
    return mean + (x - mean) * np.sqrt((variance + end**2) / (variance + start**2))


def order_of(follow, make, steps=96, low=0.1, high=2.0):
    """The order of convergence from `steps` steps to twice as many."""
    process, x = EDM(low, high), np.array([[1.0, 2.0], [-2.0, 0.3]])

    def error(steps):
        plan = make(steps).plan(process, make_grid(process, steps, "log_snr", final="min"))
        return np.abs(follow(plan, x, denoise_round) - exact_flow(x, high, low)).max()

    return np.log2(error(steps) / error(2 * steps))


def named(cases):
    return [pytest.param(make, least, id=f"{type(make(48)).__name__}-{i}") for i, (make, least) in enumerate(cases)]


@pytest.mark.parametrize(
    "make, least",
    named(
        [
            (lambda n: DDIM(), 0.9), (lambda n: Euler(), 0.9), (lambda n: ProbabilityFlow("euler"), 0.9),
            (lambda n: Heun(), 1.9), (lambda n: DPM2(), 1.9), (lambda n: DPMpp2S(0.0), 1.9),
            (lambda n: DPMppSDE(0.0), 1.9), (lambda n: Multistep(2), 1.9), (lambda n: Multistep(2, of="eps"), 1.9),
            (lambda n: Singlestep(2, orders=(1, 2) * (n // 2)), 1.9), (lambda n: UniPC(2), 1.9),
            (lambda n: LMS(2), 1.9), (lambda n: ProbabilityFlow("heun"), 1.9),
            (lambda n: ProbabilityFlow("midpoint"), 1.9), (lambda n: PNDM(), 1.9),
            (lambda n: ProbabilityFlow("rk4"), 3.8),
            (lambda n: Singlestep(3, rule="heun", orders=(1, 2, 3) * (n // 3)), 2.8),
            # these begin with a step of order 1, whose error is of order 2
            (lambda n: Multistep(3), 1.9), (lambda n: Multistep(3, rule="exact"), 1.9), (lambda n: LMS(4), 1.9),
            (lambda n: Multistep(3, of="eps", rule="exact"), 1.9), (lambda n: UniPC(3), 1.9),
        ]
    ),
)  # fmt: skip
def test_solvers_have_their_order(make, least, follow):
    assert order_of(follow, make) > least


@pytest.mark.parametrize("sampler", [AdaptiveODE(rtol=1e-9, atol=1e-9), DPMAdaptive(rtol=1e-6, atol=1e-6)])
def test_adaptive_solvers_follow_the_flow(sampler, float64):
    process, x = EDM(0.1, 2.0), jnp.array([[1.0, 2.0], [-2.0, 0.3]])
    grid = make_grid(process, 2, "log_snr", final="min")
    model = denoiser(ROUND, process)
    found = sample(jax.random.key(0), model, process, x.shape, sampler=sampler, grid=grid, init=x)
    np.testing.assert_allclose(found, exact_flow(np.asarray(x), 2.0, 0.1), atol=1e-5)


@pytest.mark.parametrize(
    "sampler",
    [
        DDIM(1.0), DDPM(), DDPM("large"), EulerMaruyama(), ReverseDiffusion(), Multistep(2, eta=1.0), DPMppSDE(),
        DPMpp2S(), DPM2(eta=1.0), Heun(churn=20.0), Singlestep(2, eta=1.0),
    ],
    ids=lambda sampler: type(sampler).__name__,
)  # fmt: skip
def test_stochastic_samplers_keep_the_moments_of_a_gaussian(sampler, follow):
    process, numbers = VP(), np.random.default_rng(0)
    plan = sampler.plan(process, make_grid(process, 240, "log_snr"))
    start = numbers.standard_normal((8192, 2))
    x = follow(plan, start, denoise_round, lambda i: numbers.standard_normal(start.shape))
    np.testing.assert_allclose(x.mean(0), ROUND.means[0], atol=0.03)
    np.testing.assert_allclose(x.std(0), 0.5, atol=0.03)


@pytest.mark.parametrize("make, least", named([
    (lambda n: Multistep(3, rule="exact"), 2.8), (lambda n: Multistep(3, of="eps", rule="exact"), 2.8),
    (lambda n: Multistep(4, rule="exact"), 3.7), (lambda n: LMS(4), 3.4),
]))  # fmt: skip
def test_multistep_solvers_have_their_order_after_an_exact_start(make, least, follow):
    """The first predictions are those of the exact path, so that the start costs no order."""
    process, x = EDM(0.1, 2.0), np.array([[1.0, 2.0]])

    def error(steps):
        grid = make_grid(process, steps, "log_snr", final="min")
        plan = make(steps).plan(process, grid)
        began = 4
        exact = [exact_flow(x, 2.0, rho) for rho in grid.ratios]
        calls = iter(range(steps))

        def asked(state, t, alpha, sigma):
            i = next(calls)
            return denoise_round(exact[i] if i <= began else state, t, alpha, sigma)

        return np.abs(follow(plan, x, asked, restart=(began, exact[began])) - exact[-1]).max()

    assert np.log2(error(96) / error(192)) > least


@pytest.mark.parametrize(
    "sampler, low, high",
    [
        pytest.param(sampler, low, high, id=f"{type(sampler).__name__}-{i}")
        for i, (sampler, low, high) in enumerate(
            [
                (DDIM(1.0), 0.8, 1.3), (DDPM(noise_last=True), 0.8, 1.3), (DDPM("large", noise_last=True), 0.8, 1.3),
                (EulerMaruyama(noise_last=True), 0.8, 1.3), (ReverseDiffusion(noise_last=True), 0.8, 1.3),
                (Multistep(1, eta=1.0), 0.8, 1.5), (Euler(churn=5.0), 0.8, 1.3),
                # its half step and its whole step draw noise of their own, which leaves order 1
                (DPMppSDE(), 0.8, 1.3),
                (DPMpp2S(), 1.8, 2.5), (DPM2(eta=1.0), 1.8, 2.5), (Heun(churn=5.0), 1.8, 2.5),
                (Multistep(2, eta=1.0, lower_final=False), 1.8, 2.5),
                (Multistep(2, eta=1.0, rule="heun", lower_final=False), 1.8, 2.5),
                (Multistep(2, of="eps", eta=1.0, lower_final=False), 1.8, 2.5),
                (Multistep(3, eta=1.0, rule="exact", lower_final=False), 1.8, 3.2),
            ]
        )
    ],
)  # fmt: skip
def test_the_weak_order_of_sde_solvers(follow, sampler, low, high):
    """The law of x stays Gaussian, so that its variance is followed exactly and its error is the solver's alone."""
    process = EDM(0.05, 5.0)

    def shrunk(x, t, alpha, sigma):
        return 0.25 / (0.25 + sigma**2) * x

    def error(steps):
        plan = sampler.plan(process, make_grid(process, steps, "log_snr", final="min"))
        # x is linear in the start and in each noise: its response to each, one a row
        start, each = follow(plan, np.ones((1, 1)), shrunk), np.eye(len(plan.times))
        moved = follow(plan, 0 * each[:, :1], shrunk, lambda i: each[:, i : i + 1])
        return abs(25.25 * start[0, 0] ** 2 + np.sum(moved**2) - (0.25 + 0.05**2))

    assert low < np.log2(error(20) / error(40)) < high


@pytest.mark.parametrize("sampler", [EulerMaruyama(noise_last=True), ReverseDiffusion(noise_last=True)])
def test_the_strong_order_of_sde_solvers(follow, sampler):
    """Along one Brownian path, whose long steps are sums of short ones; noise is additive, so that the order is 1
    (Kloeden and Platen 1992, section 10.2)."""
    process, fine = EDM(0.5, 5.0), 1024
    z = np.random.default_rng(0).normal(size=(fine, 100, 2))
    start = 5.0 * np.random.default_rng(1).normal(size=(100, 2))

    def end(steps):
        plan = sampler.plan(process, make_grid(process, steps, "uniform", final="min"))
        summed = z.reshape(steps, fine // steps, 100, 2).sum(1) * np.sqrt(steps / fine)
        return follow(plan, start, denoise_round, lambda i: summed[i])

    errors = [np.abs(end(steps) - end(fine)).mean() for steps in (32, 64, 128)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((orders > 0.8) & (orders < 1.4)), orders


def test_equivalent_samplers_agree(follow):
    process = VP()
    grid = make_grid(process, 8, "log_snr")
    x, noise = np.array([[1.0, -0.5]]), np.random.default_rng(0).standard_normal((8, 1, 2))
    run = lambda sampler: follow(sampler.plan(process, grid), x, denoise_round, lambda i: noise[i])  # noqa: E731
    for sampler in (Euler(), Multistep(1), Multistep(1, of="eps"), UniPC(1, uncorrected=tuple(range(8)))):
        np.testing.assert_allclose(run(sampler), run(DDIM()), rtol=1e-9)
    for sampler in (DDIM(1.0), Multistep(1, eta=1.0)):
        np.testing.assert_allclose(run(sampler), run(DDPM()), rtol=1e-9)


@pytest.mark.parametrize("kind", ["eps", "F"])
def test_a_network_may_predict_anything(kind, g2, float64):
    process = SubVP()
    run = functools.partial(sample, jax.random.key(0), process=process, shape=(3, 2), steps=5, sampler=Multistep(2))
    exact = denoiser(g2, process)
    found = run(as_kind(exact, process, "x0", kind), prediction=kind)
    np.testing.assert_allclose(found, run(exact), rtol=1e-8, atol=1e-9)


def test_rectified_flow_starts_from_noise_alone(follow):
    process, x = Flow(), np.random.default_rng(0).standard_normal((4096, 2))
    for sampler in (DDIM(), Multistep(2), Multistep(3), UniPC(3)):
        found = follow(sampler.plan(process, make_grid(process, 40)), x, denoise_round)
        np.testing.assert_allclose(found.std(0), 0.5, atol=0.05)
    found = sample(jax.random.key(0), denoiser(ROUND, process), process, (2048, 2), sampler=AdaptiveODE())
    np.testing.assert_allclose(found.std(0), 0.5, atol=0.03)
    with pytest.raises(ConfigError, match="grid: Heun steps in sigma / alpha and needs alpha > 0"):
        Heun().plan(process, make_grid(process, 5))
    with pytest.raises(ConfigError, match="grid: the sampler has a pole at time 1"):
        EulerMaruyama().prepare(process, make_grid(process, 5), jnp.float32)


def test_inversion_comes_back(follow):
    process, sampler, x = VP(), Multistep(3, rule="exact"), np.array([[1.0, 0.5], [-1.2, 0.3]])
    grid = make_grid(process, 200, "log_snr", final="min")
    code = follow(sampler.plan(process, reverse_grid(grid)), x, denoise_round)
    np.testing.assert_allclose(follow(sampler.plan(process, grid), code, denoise_round), x, atol=1e-3)


def test_a_sharded_batch_gives_the_same_samples(g2, float64):
    process, mesh = VP(), make_mesh()
    run = functools.partial(sample, jax.random.key(0), denoiser(g2, process), process, (16, 2), steps=3)
    for sampler in (DDPM(), PredictorCorrector()):
        whole, cut = run(sampler=sampler), run(sampler=sampler, sharding=batch_sharding(mesh))
        assert len(cut.sharding.device_set) == 8
        np.testing.assert_allclose(cut, whole, rtol=1e-9, atol=1e-9)


def test_sampling_goes_through_transformations():
    process = VP()
    grid = make_grid(process, 4)

    def mean(scale, key):
        denoise = lambda x, t: scale * x  # noqa: E731
        return sample(key, denoise, process, (2, 3), grid=grid, sampler=Multistep(2)).mean()

    keys = jax.random.split(jax.random.key(0), 3)
    batched = jax.jit(jax.vmap(mean, (None, 0)))(0.5, keys)
    np.testing.assert_allclose(batched[1], mean(0.5, keys[1]), rtol=1e-5)
    step = (mean(0.5 + 1e-3, keys[0]) - mean(0.5 - 1e-3, keys[0])) / 2e-3
    np.testing.assert_allclose(jax.grad(mean)(0.5, keys[0]), step, rtol=1e-2)


def test_the_same_function_compiles_once():
    traces = []

    def denoise(x, t):
        traces.append(x.shape)
        return 0 * x

    for seed in range(3):
        sample(jax.random.key(seed), denoise, VP(), (2, 3), steps=3, sampler=Multistep(2), constraint=Clip())
    shapes_checked, compiled = 3, 1
    assert len(traces) <= shapes_checked + 2 * compiled


def test_calls_are_reported():
    seen = []
    sample(jax.random.key(0), lambda x, t: 0 * x, VP(), (2, 3), steps=5, on_call=lambda n: seen.append(int(n)))
    jax.effects_barrier()
    assert sorted(seen) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"steps": 0}, ConfigError, "steps: expected an integer of at least 1, got 0"),
        ({"sampler": "ddim"}, ConfigError, "sampler: expected a noun such as DDIM"),
        ({"process": 3}, ConfigError, "process: expected a process such as VP"),
        ({"shape": (-1, 3)}, ConfigError, r"shape: expected sizes \(n, ...\) of at least 1, got \(-1, 3\)"),
        ({"shape": 3}, ConfigError, "shape: expected sizes"),
        ({"prediction": "epsilon"}, ConfigError, "prediction: unknown value 'epsilon'; did you mean 'eps'"),
        ({"noise": jnp.zeros((5, 2, 3))}, ConfigError, "noise: expected no noise"),
        ({"noise": jnp.zeros((4, 2, 3)), "sampler": DDPM()}, ConfigError, "noise: expected shape .5, 2, 3."),
        ({"init": jnp.zeros((2, 2))}, ConfigError, "init: expected shape .2, 3., got .2, 2."),
        ({"denoise_fn": lambda x, t: x[:1]}, ConfigError, "denoise_fn: expected an array of the shape of x"),
        ({"denoise_fn": lambda x, t: x, "sampler": DDPM("learned")}, ConfigError, "expected .prediction, v."),
        ({"denoise_fn": lambda x, t: jnp.nan * x}, DataError, "denoise_fn: the samples are not finite"),
        ({"sampler": AdaptiveODE(max_steps=2)}, DataError, "sampler: the end was not reached within max_steps"),
        ({"process": Flow(), "prediction": "eps"}, ConfigError, "prediction: 'eps' says nothing of x_0"),
    ],
)
def test_mistakes_are_named(options, error, message):
    chosen = {"denoise_fn": lambda x, t: 0.9 * x, "process": VP(), "shape": (2, 3), "steps": 5} | options
    with pytest.raises(error, match=message):
        sample(jax.random.key(0), **chosen)


def test_a_traced_process_is_refused():
    with pytest.raises(ConfigError, match="process: a sampler needs its parameters as numbers"):
        jax.jit(lambda p: sample(jax.random.key(0), lambda x, t: x, p, (2, 3)))(linear_table(10))


def test_a_learned_variance_lies_between_both_in_the_logarithm(float64):
    table, x = linear_table(100), jnp.array([[0.3, -1.1]])
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(4, 1, 2)))

    def run(sampler, fraction=None):
        def denoise(x, t):
            eps = jnp.tanh(x)
            return eps if fraction is None else (eps, jnp.full_like(x, fraction))

        return sample(jax.random.key(0), denoise, table, (1, 2), sampler=sampler, steps=4, init=x, noise=noise)

    learned = DDPM("learned")
    np.testing.assert_allclose(run(learned, 1.0), run(DDPM("large")), rtol=1e-9)
    np.testing.assert_allclose(run(learned, -1.0), run(DDPM("small")), rtol=1e-9)
