"""The networks that `diffusion.py` sets: two UNets of published kinds with random weights, made by each side.

`unet32` is a `UNet2DModel` of 6.47 M parameters, 16 images of 32 x 32 x 3, attention at 16 x 16; `unetc16` a
`UNet2DConditionModel` of 4.46 M, 8 latents of 16 x 16 x 4 and a context of 16 vectors. "train" is a train step (noise,
loss, gradient, AdamW), "loop" several of them in one loop, which is compiled where it can be, "sample" a step of DDIM,
guided by a scale of 7.5 where there is a context.
"""

NETWORKS = {
    "unet32": {
        "in_channels": 3, "out_channels": 3, "block_out_channels": (64, 128, 128), "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "unetc16": {
        "in_channels": 4, "out_channels": 4, "block_out_channels": (64, 128), "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 128,
    },
}  # fmt: skip
SHAPES = {"unet32": (16, 32, 32, 3), "unetc16": (8, 16, 16, 4)}
CONTEXT = (16, 128)
LEVELS, STEPS, SCALE, LOOP = 1000, 50, 7.5, 4


def aijax_network(name, steps, what):
    import jax
    import jax.numpy as jnp
    import optax

    from aijax import diffusion, models
    from aijax.models.unet_config import unet_from_config

    model, shape = unet_from_config(NETWORKS[name]), SHAPES[name]
    x0 = jax.random.normal(jax.random.key(0), shape)
    context = jax.random.normal(jax.random.key(1), (shape[0], *CONTEXT)) if name == "unetc16" else None
    inputs = [x0, jnp.zeros(shape[0])] + ([] if context is None else [None, context])
    params = jax.jit(lambda key: models.init(key, model, *inputs))(jax.random.key(2))
    process = diffusion.linear_table(LEVELS)

    def step(carry, key):
        params, state = carry

        def loss(params):
            def eps(x, t):
                return model.apply({"params": params}, x, t, context=context)

            noise_key, time_key = jax.random.split(key)
            t = jax.random.randint(time_key, shape[:1], 0, LEVELS)
            noise = jax.random.normal(noise_key, shape)
            alpha, sigma = (of(t)[:, None, None, None] for of in (process.alpha, process.sigma))
            return jnp.mean((eps(alpha * x0 + sigma * noise, t) - noise) ** 2)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    optimizer = optax.adamw(1e-4, weight_decay=0.01)
    if what == "sample":

        def denoise(params, x, t):
            if context is None:
                return model.apply({"params": params}, x, t)
            both = jnp.concatenate([jnp.zeros_like(context), context])
            plain, told = jnp.split(model.apply({"params": params}, jnp.concatenate([x, x]), t, context=both), 2)
            return plain + SCALE * (told - plain)

        @jax.jit
        def ddim(params, x, t, before):
            eps = denoise(params, x, t)
            x_0 = (x - process.sigma(t) * eps) / process.alpha(t)
            return process.alpha(before) * x_0 + process.sigma(before) * eps

        t = LEVELS - 11 * (LEVELS // STEPS)
        return lambda: ddim(params, x0, t, t - LEVELS // STEPS).block_until_ready()
    body = step if what == "train" else lambda carry, key: jax.lax.scan(step, carry, jax.random.split(key, steps))
    run, carry = jax.jit(body, donate_argnums=0), [(params, optimizer.init(params))]

    def train():
        carry[0], value = run(carry[0], jax.random.key(3))
        value.block_until_ready()

    return train


def diffusers_network(name, steps, what):
    import os

    import diffusers
    import torch

    threads = int(os.environ.get("OMP_NUM_THREADS", 0))
    if threads:
        torch.set_num_threads(threads)
    kind = diffusers.UNet2DModel if name == "unet32" else diffusers.UNet2DConditionModel
    batch, h, w, c = SHAPES[name]
    model, x0 = kind(sample_size=h, **NETWORKS[name]), torch.randn(batch, c, h, w)
    context = (torch.randn(batch, *CONTEXT),) if name == "unetc16" else ()
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(STEPS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)

    def train():
        noise, t = torch.randn_like(x0), torch.randint(0, LEVELS, (batch,))
        eps = model(scheduler.add_noise(x0, noise, t), t, *context).sample
        optimizer.zero_grad(set_to_none=True)
        ((eps - noise) ** 2).mean().backward()
        optimizer.step()

    @torch.no_grad()
    def sample():
        t = scheduler.timesteps[10]
        if context:
            both = torch.cat([torch.zeros_like(context[0]), context[0]])
            plain, told = model(torch.cat([x0, x0]), t, both).sample.chunk(2)
            eps = plain + SCALE * (told - plain)
        else:
            eps = model(x0, t).sample
        scheduler.step(eps, t, x0)

    def loop():
        for _ in range(steps):
            train()

    return {"train": train, "sample": sample, "loop": loop}[what]


PROGRAMS = {"aijax": aijax_network, "diffusers": diffusers_network}

CASES = {
    f"{name}:{what}": (f"{name}, {title}", (name, LOOP if what == "loop" else 1, what))
    for name in NETWORKS
    for what, title in (
        ("train", "a train step"),
        ("loop", "train steps in a compiled loop"),
        ("sample", "a guided step of DDIM" if name == "unetc16" else "a step of DDIM"),
    )
}
