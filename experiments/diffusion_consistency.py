"""Distils a class-conditional diffusion model into a consistency model and measures its samples beside the teacher's.

The student begins as the teacher. Over stages of so many noise levels it learns to give the same x_0 at both ends of a
Heun step of the teacher's ODE (Song et al. 2023, algorithm 2, without an averaged target), at log-normal levels, the
square of the difference weighted as EDM weighs its own. As the steps are of second order, as many levels as the teacher
takes to sample suffice, and each more is one more that errors are handed down. `one_step`, `two_step` and `teacher` are
measured as in `train_diffusion`.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import aijax
from aijax import diffusion
from aijax.data import load_source
from aijax.diffusion.build import build_process
from aijax.diffusion.consistency import lognormal_probabilities
from aijax.diffusion.figures import draw_pictures
from aijax.diffusion.images import as_levels, on_levels
from aijax.train import init_state, make_step
from experiments.train_diffusion import all_of, bind_judge, sample_options


def main(config, folder):
    """Returns accuracies and distances of the three kinds of samples; writes `figures/samples.png`."""
    teacher = aijax.open_run(config.teacher)
    levels, classes = teacher.config.objective.levels, len(teacher.classes)
    process = build_process(teacher.config.process)
    sources = {split: load_source(teacher.config.data, split) for split in ("train", "test")}

    def consistent_fn(params, labels, x, t):
        def network(y, c_noise):
            return teacher.model.apply({"params": params}, y, c_noise, labels)

        options = {"sigma_data": teacher.config.objective.sigma_data, "ratio_min": process.t_min}
        return diffusion.consistency_fn(network, process, **options)(x, t)

    began = time.perf_counter()
    params = distil(config, teacher, consistent_fn, process, sources["train"], levels)
    seconds = time.perf_counter() - began

    grids = {
        "one_step": diffusion.ratio_grid(process, (process.t_max,)),
        "two_step": diffusion.ratio_grid(process, (process.t_max, config.second_ratio)),
    }
    student = jax.tree_util.Partial(consistent_fn, params)
    theirs = sample_options(**teacher.config.sample) | {"guidance": 1.0}
    make = functools.partial(
        diffusion.sample_images, jax.random.key(config.seed), process=process, classes=classes, levels=levels,
        shape=sources["train"].spec["image"].shape,
    )  # fmt: skip
    given = {"count": config.num_samples, "block": config.num_samples}
    pictures = {
        name: make(student, sampler=diffusion.Consistency(process.t_min), grid=grid, **given)
        for name, grid in grids.items()
    }
    pictures["teacher"] = make(jax.tree_util.Partial(teacher.apply_fn, teacher.params), **theirs | given)
    data = {split: on_levels(all_of(source)["image"], levels) for split, source in sources.items()}
    judge = bind_judge(config, sources["train"])
    metrics = diffusion.compare_images(pictures, data, classes=classes, classifier=judge())
    draw_pictures(folder / "figures" / "samples.png", pictures, columns=classes)
    return {name: float(value) for name, value in metrics.items()} | {"distillation_seconds": seconds}


def distil(config, teacher, consistent_fn, process, source, levels):
    """Returns the average of the student's parameters after all stages."""
    batch = all_of(source)
    images, labels = as_levels(batch["image"], levels), jnp.asarray(batch["label"])
    schedule = optax.cosine_decay_schedule(config.learning_rate, len(config.stages) * config.steps, 0.01)
    optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(schedule))

    def loss_fn(params, noise_levels, key):
        row_key, level_key, loss_key = jax.random.split(key, 3)
        rows = jax.random.randint(row_key, (config.batch_size,), 0, len(images))
        x0 = diffusion.dequantise(level_key, images[rows], levels=levels)
        student, taught = (
            functools.partial(function, values, labels[rows])
            for function, values in ((consistent_fn, params), (teacher.apply_fn, teacher.params))
        )
        return diffusion.consistency_distillation_loss(
            loss_key, student, None, taught, process, x0, distance="l2", weighting="edm",
            sigma_data=teacher.config.objective.sigma_data, **noise_levels,
        ).mean(), {}  # fmt: skip

    step = make_step(loss_fn, optimizer, ema_decay=config.ema_decay)

    @jax.jit
    def run_stage(state, noise_levels, key):
        return jax.lax.scan(lambda state, _: (step(state, noise_levels, key)[0], None), state, length=config.steps)[0]

    state, key = init_state(teacher.params, optimizer, keep_ema=True), jax.random.key(config.seed)
    for count in config.stages:
        ratios = diffusion.consistency_ratios(count, ratio_min=process.t_min, ratio_max=process.t_max)
        probabilities, rest = lognormal_probabilities(ratios), max(config.stages) - count
        padded = {"ratios": np.pad(ratios, (0, rest), "edge"), "probabilities": np.pad(probabilities, (0, rest))}
        state = run_stage(state, padded, key)
    return jax.block_until_ready(state.best_params)
