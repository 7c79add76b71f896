"""One network that denoises a mixture of Gaussians in the plane, sampled by every process and every sampler.

The network is trained once, at noise-to-signal ratios sigma / alpha from a log-normal distribution, with EDM's
preconditioning; a process is then only a way to scale it. Because the exact denoiser, density and samples are known,
everything that can go wrong is measured:

    excess_error      E w |D - D*|^2, D the network, D* the exact denoiser, w EDM's weight
    PROCESS_gap       ln p*(x) - ln p(x), nats, p by the probability-flow ODE with the exact divergence
    PROCESS_SAMPLER   sliced Wasserstein distance of samples to as many exact ones; `exact` is that of two exact sets
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from aijax import diffusion, models
from aijax.diffusion import build, mixture
from aijax.errors import choose
from aijax.models.embeddings import sinusoidal_embedding
from aijax.train import init_state, make_step


def main(config, folder):
    """Returns the metrics above; writes `figures/distances.png`, `samples.png` and `trajectories.png`."""
    truth = mixture.GaussianMixture(
        np.array(config.mixture.weights),
        np.array(config.mixture.means),
        np.array(config.mixture.stds)[:, None, None] ** 2 * np.eye(2),
    )
    began = time.perf_counter()
    apply_fn, params = jax.block_until_ready(train(config, truth))
    metrics = {"training_seconds": time.perf_counter() - began}
    # keys of their own: samples and exact points of one key would share random numbers and seem too close
    key, exact_key, second_key, line_key = jax.random.split(jax.random.key(config.seed + 1), 4)
    exact = mixture.sample_mixture(exact_key, truth, config.num_samples)
    distance = jax.jit(functools.partial(diffusion.sliced_wasserstein, line_key, exact))
    metrics["exact"] = distance(mixture.sample_mixture(second_key, truth, config.num_samples))
    distances, samples, paths = {}, {}, {}
    for name in config.processes:
        options = {"t_max": config.t_max[name]} if name in config.t_max else {}
        process = build.build_process({"name": name})
        denoise = jax.tree_util.Partial(denoiser(config, process, apply_fn), params)
        if name == "edm":
            metrics["excess_error"] = excess_error(config, key, truth, process, denoise, exact)
        x = exact[: config.num_likelihoods]
        likelihood = diffusion.log_likelihood(key, denoise, process, x, divergence="exact", **options)
        metrics[f"{name}_gap"] = (mixture.log_density(truth, x) - likelihood.log_prob).mean()
        for sampler_name in config.samplers:
            section = dict(choose(config.sampler.to_dict(), sampler_name, "config.samplers"))
            spacing = section.pop("spacing", config.spacing.get(name, "uniform"))
            grid = diffusion.make_grid(process, section.pop("steps"), spacing, **options)
            sampler = build.build_sampler(section, f"config.sampler.{sampler_name}")
            run = functools.partial(diffusion.sample, key, denoise, process, sampler=sampler, grid=grid)
            samples[name, sampler_name] = run((config.num_samples, 2))
            distances[name, sampler_name] = float(distance(samples[name, sampler_name]))
            if sampler_name in ("ancestral", "ddim"):
                paths[name, sampler_name] = run((40, 2), trajectory=True)[1]
    metrics |= {f"{name}_{sampler}": value for (name, sampler), value in distances.items()}
    draw_distances(folder / "figures" / "distances.png", distances, float(metrics["exact"]))
    draw_samples(folder / "figures" / "samples.png", samples, exact)
    draw_trajectories(folder / "figures" / "trajectories.png", paths)
    return {name: float(value) for name, value in metrics.items()}


def train(config, truth):
    """Returns the network as `apply_fn(params, y, c_noise)` and the average of its parameters over the training."""
    model = models.build(config.model, num_classes=2)
    process = diffusion.EDM()

    def apply_fn(params, y, c_noise):
        # c_noise = ln(rho) / 4 lies within -2 and 2
        told = sinusoidal_embedding(jnp.broadcast_to(c_noise, y.shape[:1]), 16, max_period=16.0, scale=8.0)
        return model.apply({"params": params}, jnp.concatenate([y, told], 1))

    denoise = denoiser(config, process, apply_fn)

    def loss_fn(params, batch, key):
        data_key, loss_key = jax.random.split(key)
        x0 = mixture.sample_mixture(data_key, truth, config.batch_size)
        options = {"mean": config.noise.mean, "std": config.noise.std, "sigma_data": config.sigma_data}
        return diffusion.edm_loss(loss_key, functools.partial(denoise, params), process, x0, **options).mean(), {}

    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps, 0.01))
    step = make_step(loss_fn, optimizer, ema_decay=config.ema_decay)

    @jax.jit
    def run(key):
        state = init_state(models.init(key, model, jnp.zeros((1, 18))), optimizer, keep_ema=True)
        return jax.lax.scan(lambda state, _: (step(state, {}, key)[0], None), state, length=config.steps)[0]

    return apply_fn, run(jax.random.key(config.seed)).best_params


def denoiser(config, process, apply_fn):
    """Returns `(params, x, t) -> E[x_0 given x]` under a process."""
    return lambda params, x, t: diffusion.edm_denoiser(
        functools.partial(apply_fn, params), process, sigma_data=config.sigma_data
    )(x, t)


def excess_error(config, key, truth, process, denoise, x0):
    ratio_key, noise_key = jax.random.split(key)
    ratio = jnp.exp(config.noise.mean + config.noise.std * jax.random.normal(ratio_key, (len(x0),)))
    t = jnp.clip(ratio, process.t_min, process.t_max)
    x = diffusion.add_noise(process, x0, t, jax.random.normal(noise_key, x0.shape))
    squares = (denoise(x, t) - mixture.denoiser(truth, process)(x, t)) ** 2
    return jnp.mean((1 / t**2 + 1 / config.sigma_data**2)[:, None] * squares)


def draw_distances(path, distances, floor):
    processes, samplers = (list(dict.fromkeys(names)) for names in zip(*distances, strict=True))
    values = np.array([[distances[process, sampler] for process in processes] for sampler in samplers])
    figure = Figure(figsize=(6.4, 0.32 * len(samplers) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.log(values), cmap="YlGnBu", vmin=np.log(floor), vmax=np.log(10 * floor), aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=8, color="k" if value < 0.06 else "w")
    axes.set_xticks(range(len(processes)), [name.replace("_", "-") for name in processes], fontsize=8)
    axes.set_yticks(range(len(samplers)), [name.replace("_", " ") for name in samplers], fontsize=8)
    axes.set_title(f"sliced Wasserstein distance to the truth; two exact sets: {floor:.3f}", fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    save(figure, path)


def draw_samples(path, samples, exact):
    first = next(iter(samples))[0]
    panels = {"exact": exact} | {sampler: x for (name, sampler), x in samples.items() if name == first}
    rows = -(-len(panels) // 5)
    figure = Figure(figsize=(9, 1.9 * rows), layout="constrained")
    for axes, (name, x) in zip(figure.subplots(rows, 5, squeeze=False).flat, panels.items(), strict=False):
        axes.hist2d(*np.asarray(x).T, bins=90, range=((-2.3, 2.3), (-2.3, 2.3)), cmap="magma")
        axes.set_title(name.replace("_", " "), fontsize=8)
    for axes in figure.axes:
        axes.set_axis_off()
        axes.set_aspect("equal")
    save(figure, path)


def draw_trajectories(path, paths):
    if not paths:
        return
    processes, samplers = (list(dict.fromkeys(names)) for names in zip(*paths, strict=True))
    figure = Figure(figsize=(2.2 * len(processes), 1.8 * len(samplers)), layout="constrained")
    grid = figure.subplots(len(samplers), len(processes), squeeze=False)
    for (process, sampler), path_of in paths.items():
        axes = grid[samplers.index(sampler), processes.index(process)]
        # y = x / sqrt(alpha^2 + sigma^2), so that all stages are of unit size
        scale = np.sqrt(np.asarray(path_of.alphas) ** 2 + np.asarray(path_of.sigmas) ** 2)
        states = np.asarray(path_of.inputs)[:, :, 0] / scale[:, None]
        axes.plot(np.linspace(0, 1, len(states)), states, linewidth=0.6, color="#4878a8", alpha=0.7)
        axes.set_title(f"{process.replace('_', '-')}, {sampler}", fontsize=8)
        axes.tick_params(labelsize=6)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def save(figure, path):
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
