"""Changing given data: inpainting, inverse problems by projection, image-to-image, interpolation.

Two ways to hold a part of x_0 fixed. As a constraint of any sampler, each prediction is replaced by

    x_0 <- x_0 + A^+ (y - A x_0)

(`Known`, `Linear`; Wang et al. 2022, DDNM, equation 13). And `repaint`, which replaces the known part of x by a noisy
copy after each step and goes back and forth in time so that both parts agree (Lugmayr et al. 2022, algorithm 1).
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from aijax.diffusion.grids import Grid, check_steps, make_grid
from aijax.diffusion.likelihood import decode, encode
from aijax.diffusion.process import Process
from aijax.diffusion.samplers.one_step import Step, check_share
from aijax.diffusion.samplers.sample import Predict, sample
from aijax.errors import ConfigError
from aijax.parameters import noun, parameter
from aijax.typing import Any, Array, Callable, PRNGKey


@noun
class Known:
    """A constraint for `sample`: where `mask` is 1, x_0 is known.

    Args:
      values: the known x_0; what lies where `mask` is 0 does not matter.
      mask: 1 where known, 0 elsewhere; both broadcast to the samples.

    >>> Known(jnp.ones(2), jnp.array([1.0, 0.0]))(jnp.zeros((1, 2))).tolist()
    [[1.0, 0.0]]
    """

    values: Any = parameter()
    mask: Any = parameter()

    consistent = True

    def __call__(self, x0: Array) -> Array:
        for name, part in (("values", self.values), ("mask", self.mask)):
            shape = jnp.shape(part)
            if len(shape) > x0.ndim or any(a not in (1, b) for a, b in zip(shape[::-1], x0.shape[::-1], strict=False)):
                raise ConfigError(f"{name}: expected a shape that broadcasts to {x0.shape}, got {shape}")
        return self.mask * self.values + (1 - self.mask) * x0


@dataclass(frozen=True)
class Linear:
    """A constraint for `sample`: A x_0 = y, by the projection of x_0 along the range of A^+.

    Args:
      operator: A, `x_0 [n, ...] -> y [n, ...]`.
      pseudo_inverse: A^+, with A A^+ A = A.
      observed: y.

    For super-resolution A is a mean over blocks and A^+ their repetition; for colourisation A is the mean over
    channels.
    """

    operator: Callable[[Array], Array]
    pseudo_inverse: Callable[[Array], Array]
    observed: Array

    consistent = True

    def __call__(self, x0: Array) -> Array:
        seen = self.operator(x0)
        if seen.shape != self.observed.shape:
            raise ConfigError(f"observed: expected the operator's shape, {seen.shape}, got {self.observed.shape}")
        return x0 + self.pseudo_inverse(self.observed - seen)


@dataclass(frozen=True)
class Resampling:
    """How `repaint` goes back and forth over a grid of N steps.

    Args:
      steps: the step of the grid that each call takes, `[C]`.
      scales, noises: x <- scale x + noise z after each call, `[C]`: 1 and 0 where it goes on, else the way back.
    """

    steps: np.ndarray
    scales: np.ndarray
    noises: np.ndarray


def repaint(
    key: PRNGKey,
    denoise_fn: Callable[[Array, Array], Array],
    process: Process,
    known: Array,
    mask: Array,
    *,
    steps: int = 250,
    grid: str | Grid = "uniform",
    resampling: Resampling | None = None,
    jump_length: int = 10,
    jump_samples: int = 10,
    eta: float = 1.0,
    prediction: str = "x0",
    constraint: Callable | None = None,
    init: Array | None = None,
    noise: Array | None = None,
) -> Array:
    """Returns samples of the unknown part of data, with the known part as given.

    Each call does a `DDIM(eta)` step, then sets the known part to alpha' known + sigma' z with the z of the step.

    Args:
      key: of the start and the noise.
      denoise_fn: `(x, t scalar) -> prediction`.
      process: any process with known parameters.
      known: the data, `[n, ...]`; what lies where the mask is 0 does not matter.
      mask: 1 where known, broadcast to `known`.
      steps, grid: the levels, as of `sample`; default 250, "uniform".
      resampling: the way over them; default `make_resampling(grid, jump_length, jump_samples)`.
      jump_length: steps gone back at a time, default 10.
      jump_samples: how often each stretch is passed, default 10.
      eta: default 1.
      prediction: what `denoise_fn` predicts, default "x0".
      constraint: what is done to each prediction of x_0.
      init: the start in place of a draw of the prior.
      noise: `[C, 2, *known.shape]`: of each step, and of the way back after it.

    Raises:
      ConfigError: arguments that cannot be used.

    Source: Lugmayr et al. 2022, RePaint, algorithm 1.
    """
    check_share("eta", eta)
    grid = make_grid(process, steps, grid) if isinstance(grid, str) else grid
    resampling = make_resampling(grid, jump_length, jump_samples) if resampling is None else resampling
    step, taken = Step(grid), resampling.steps
    fresh = step.sigma_next * eta * np.sqrt(step.fresh)
    # the last step of the grid adds no noise, as nothing follows that would take it away
    drawn = np.append(fresh[:-1], 0.0)
    columns = {
        "t": step.times,
        "alpha": step.alpha,
        "sigma": step.sigma,
        "alpha_next": step.alpha_next,
        "sigma_next": step.sigma_next,
        "eps": np.sqrt(step.sigma_next**2 - fresh**2),
        "noise": drawn,
    }
    rows = {name: jnp.asarray(column[taken], known.dtype) for name, column in columns.items()}
    rows |= {"scale": jnp.asarray(resampling.scales, known.dtype), "back": jnp.asarray(resampling.noises, known.dtype)}
    shape = (len(taken), 2, *known.shape)
    if noise is not None and noise.shape != shape:
        raise ConfigError(f"noise: expected shape {shape}, got {noise.shape}")
    predict = Predict(denoise_fn, prediction, constraint=constraint, reuse_eps=True)
    start_key, noise_key = jax.random.split(key)
    x = process.prior.sample(start_key, known.shape, known.dtype) if init is None else init

    def call(carry, inputs):
        x, before = carry
        row, number, z = inputs
        if z is None:
            z = jax.random.normal(jax.random.fold_in(noise_key, number), (2, *x.shape), x.dtype)
        x0, eps, _ = predict(x, row["t"], row["alpha"], row["sigma"], *before)
        unknown = row["alpha_next"] * x0 + row["eps"] * eps + row["noise"] * z[0]
        kept = row["alpha_next"] * known + row["sigma_next"] * z[0]
        x = mask * kept + (1 - mask) * unknown
        return (row["scale"] * x + row["back"] * z[1], (x0,)[: predict.remembers]), None

    start = x, (jnp.zeros_like(x),)[: predict.remembers]
    return jax.lax.scan(call, start, (rows, jnp.arange(len(taken)), noise))[0][0]


def make_resampling(grid: Grid, jump_length: int = 10, jump_samples: int = 10) -> Resampling:
    """Returns the way over a grid in which each stretch of `jump_length` steps is passed `jump_samples` times.

    The way back from level j to level i < j is the forward process: x <- alpha_i/alpha_j x + noise.

    >>> from aijax.diffusion import VP
    >>> make_resampling(make_grid(VP(), 4), 2, 2).steps.tolist()
    [0, 1, 2, 3, 2, 3]
    """
    check_steps(jump_length, "jump_length")
    check_steps(jump_samples, "jump_samples")
    steps, back = resampling_steps(grid.steps, jump_length, jump_samples)
    scales, noises = np.ones(len(steps)), np.zeros(len(steps))
    for call, levels in enumerate(back):
        if levels:
            end = steps[call] + 1
            start = end - levels
            scales[call] = grid.alphas[start] / grid.alphas[end]
            noises[call] = np.sqrt(grid.sigmas[start] ** 2 - (scales[call] * grid.sigmas[end]) ** 2)
    return Resampling(np.array(steps), scales, noises)


def resampling_steps(count: int, jump_length: int, jump_samples: int) -> tuple[list[int], list[int]]:
    """Returns the step of each call over a grid of `count` steps, and how many levels are gone back after it."""
    # a stretch begins where `jump_length` steps, or a multiple, are left; the last of the grid is never left
    left = dict.fromkeys(range(0, count - jump_length, jump_length), jump_samples - 1)
    steps, back, remaining = [], [], count
    while remaining >= 1:
        remaining -= 1
        steps.append(count - 1 - remaining)
        back.append(0)
        if left.get(remaining, 0) > 0:
            left[remaining] -= 1
            remaining += jump_length
            back[-1] = jump_length
    return steps, back


def sdedit(
    key: PRNGKey,
    denoise_fn: Callable[[Array, Array], Any],
    process: Process,
    x: Array,
    *,
    strength: float = 0.5,
    steps: int = 50,
    grid: str | Grid = "uniform",
    start_noise: Array | None = None,
    **options: Any,
) -> Any:
    """Returns `x` noised up to a level and sampled from there: image-to-image.

    Args:
      key: of the noise.
      denoise_fn, process, grid: as of `sample`.
      x: the data to begin from.
      strength: the share of the grid's steps that are taken, above 0 and at most 1.
      steps: of the whole grid, default 50.
      start_noise: of the shape of x, in place of drawn noise up to the level.
      **options: further arguments of `sample`. A sampler that says the order of each step of the whole grid keeps
        those of the steps that are taken, the first of which have lower ones, as there is less to go by.

    Raises:
      ConfigError: a strength that takes no step.

    Source: Meng et al. 2022, SDEdit.
    """
    grid = make_grid(process, steps, grid) if isinstance(grid, str) else grid
    grid = last_steps(grid, strength)
    noise_key, key = jax.random.split(key)
    alpha, sigma = (jnp.asarray(level[0], x.dtype) for level in (grid.alphas, grid.sigmas))
    if start_noise is None:
        start_noise = jax.random.normal(noise_key, x.shape, x.dtype)
    if start_noise.shape != x.shape:
        raise ConfigError(f"start_noise: expected shape {x.shape}, got {start_noise.shape}")
    noisy = alpha * x + sigma * start_noise
    if getattr(options.get("sampler"), "orders", None) is not None:
        last = options["sampler"].orders[-grid.steps :]
        orders = tuple(min(order, i + 1) for i, order in enumerate(last))
        options["sampler"] = replace(options["sampler"], orders=orders)
    return sample(key, denoise_fn, process, x.shape, grid=grid, init=noisy, **options)


def last_steps(grid: Grid, strength: float) -> Grid:
    """Returns the last `floor(strength N)` steps of a grid."""
    count = int(grid.steps * strength)
    if not (0 < strength <= 1 and count >= 1):
        raise ConfigError(f"strength: expected at most 1 and at least one of {grid.steps} steps, got {strength}")
    return Grid(*(levels[grid.steps - count :] for levels in (grid.times, grid.alphas, grid.sigmas)))


def spherical_interpolation(a: Array, b: Array, t: Any) -> Array:
    """Returns sin((1 - t) w) / sin w a + sin(t w) / sin w b, w the angle of a and b as whole vectors.

    Args:
      a, b: two codes of one shape.
      t: a number, or `[k]` for k points, `[k, *a.shape]`.

    >>> middle = spherical_interpolation(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), 0.5)
    >>> [round(float(x), 4) for x in middle]
    [0.7071, 0.7071]
    """
    cosine = jnp.vdot(a, b) / (jnp.linalg.norm(a.ravel()) * jnp.linalg.norm(b.ravel()))
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    t = jnp.asarray(t, a.dtype)
    near = jnp.abs(jnp.sin(angle)) < 1e-4
    safe = jnp.where(near, 1.0, jnp.sin(angle))
    first = jnp.where(near, 1 - t, jnp.sin((1 - t) * angle) / safe)
    second = jnp.where(near, t, jnp.sin(t * angle) / safe)
    return jnp.multiply.outer(first, a) + jnp.multiply.outer(second, b)


def interpolate(denoise_fn: Callable, process: Process, a: Array, b: Array, t: Any, **options: Any) -> Array:
    """Returns data between two examples: decoded from between their codes.

    Args:
      denoise_fn: `(x, t scalar) -> prediction`.
      process: any process.
      a, b: two examples, without a batch axis.
      t: points from 0 to 1, `[k]`.
      **options: as of `encode`.
    """
    codes = encode(denoise_fn, process, jnp.stack([a, b]), **options)
    return decode(denoise_fn, process, spherical_interpolation(codes[0], codes[1], jnp.asarray(t)), **options)
