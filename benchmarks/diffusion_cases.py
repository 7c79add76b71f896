"""The problems that `diffusion.py` sets, and what each side does with them: a function returns one that runs the case.

The plane's density is a mixture of three round Gaussians, whose score is in closed form; the process is the linear
table of 1000 levels. `flax` is the plain loop that one would write without a library.
"""

import numpy as np

WEIGHTS, MEANS, STDS = [0.5, 0.3, 0.2], [[-1.2, 0.4], [0.9, 1.1], [0.3, -1.3]], [0.25, 0.35, 0.15]
LEVELS = 1000


def aijax_plane(points, steps, sampler):
    """Samples of the mixture by `steps` steps, whole call compiled."""
    import jax

    from aijax import diffusion
    from aijax.diffusion import mixture

    process = diffusion.linear_table(LEVELS)
    covariances = np.square(STDS)[:, None, None] * np.eye(2)
    truth = mixture.GaussianMixture(np.array(WEIGHTS), np.array(MEANS), covariances)
    denoise = mixture.denoiser(truth, process)
    options = {"sampler": getattr(diffusion, sampler)(), "steps": steps, "grid": "leading"}
    run = jax.jit(lambda key: diffusion.sample(key, denoise, process, (points, 2), **options))
    return lambda: run(jax.random.key(1)).block_until_ready()


def flax_plane(points, steps, sampler):
    import jax
    import jax.numpy as jnp

    weights, means, variances = jnp.array(WEIGHTS), jnp.array(MEANS), jnp.square(jnp.array(STDS))
    betas = jnp.linspace(1e-4, 0.02, LEVELS)
    kept = jnp.cumprod(1 - betas)
    index = jnp.arange(steps)[::-1] * (LEVELS // steps)
    before = jnp.where(index > 0, kept[jnp.maximum(index - LEVELS // steps, 0)], 1.0)

    def eps(x, kept):
        spread = kept * variances + 1 - kept
        apart = x[:, None] - jnp.sqrt(kept) * means
        logits = jnp.log(weights) - jnp.log(spread) - jnp.sum(apart**2, -1) / (2 * spread)
        return jnp.sqrt(1 - kept) * jnp.sum((jax.nn.softmax(logits) / spread)[..., None] * apart, 1)

    def ancestral(carry, level):
        (x, key), (kept, before) = carry, level
        key, noise_key = jax.random.split(key)
        beta = 1 - kept / before
        mean = (x - beta / jnp.sqrt(1 - kept) * eps(x, kept)) / jnp.sqrt(1 - beta)
        std = jnp.sqrt(beta * (1 - before) / (1 - kept))
        return (mean + std * jax.random.normal(noise_key, x.shape), key), None

    def implicit(carry, level):
        (x, key), (kept, before) = carry, level
        noise = eps(x, kept)
        x0 = (x - jnp.sqrt(1 - kept) * noise) / jnp.sqrt(kept)
        return (jnp.sqrt(before) * x0 + jnp.sqrt(1 - before) * noise, key), None

    step = {"DDPM": ancestral, "DDIM": implicit}[sampler]

    @jax.jit
    def run(key):
        start_key, key = jax.random.split(key)
        return jax.lax.scan(step, (jax.random.normal(start_key, (points, 2)), key), (kept[index], before))[0][0]

    return lambda: run(jax.random.key(1)).block_until_ready()


def diffusers_plane(points, steps, sampler):
    import diffusers
    import torch

    weights, means, variances = torch.tensor(WEIGHTS), torch.tensor(MEANS), torch.tensor(STDS) ** 2
    scheduler = getattr(diffusers, f"{sampler}Scheduler")(clip_sample=False)
    kept = scheduler.alphas_cumprod

    def eps(x, kept):
        spread = kept * variances + 1 - kept
        apart = x[:, None] - kept.sqrt() * means
        logits = weights.log() - spread.log() - (apart**2).sum(-1) / (2 * spread)
        return (1 - kept).sqrt() * ((torch.softmax(logits, -1) / spread)[..., None] * apart).sum(1)

    @torch.no_grad()
    def run():
        x = torch.randn(points, 2)
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            x = scheduler.step(eps(x, kept[t]), t, x).prev_sample

    return run


PROGRAMS = {"aijax": aijax_plane, "flax": flax_plane, "diffusers": diffusers_plane}

CASES = {
    "points": ("10^4 points of the plane, 1000 ancestral steps, analytic score", (10_000, 1000, "DDPM")),
    "step": ("fixed cost of a step: one point, 50 steps of DDIM", (1, 50, "DDIM")),
}
