"""The one call of all samplers."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aijax.diffusion.grids import Grid, check_steps, make_grid
from aijax.diffusion.predictions import as_partial, check_output, from_x0, to_eps, to_x0
from aijax.diffusion.process import Process
from aijax.diffusion.samplers.base import Sampler
from aijax.diffusion.samplers.one_step import DDIM
from aijax.diffusion.samplers.plan import Trajectory
from aijax.diffusion.self_conditioning import Remembering
from aijax.errors import ConfigError, DataError, choose
from aijax.typing import Any, Array, Callable, PRNGKey

KINDS = ("x0", "eps", "score", "v", "velocity", "F", "minus F")


def sample(
    key: PRNGKey,
    denoise_fn: Callable[[Array, Array], Any],
    process: Process,
    shape: tuple[int, ...],
    *,
    sampler: Sampler | None = None,
    steps: int = 50,
    grid: str | Grid = "uniform",
    prediction: str = "x0",
    sigma_data: float = 0.5,
    constraint: Callable[[Array], Array] | None = None,
    init: Array | None = None,
    noise: Array | None = None,
    trajectory: bool = False,
    sharding: Any = None,
    on_call: Callable[[int], None] | None = None,
    dtype: Any = None,
) -> Array | tuple[Array, Trajectory]:
    """Returns samples of `shape`, and what happened on the way where `trajectory` asks for it.

    The whole run is one compiled `lax.scan`. It is compiled once for a function and shapes: give the same `denoise_fn`
    each time, or a `jax.tree_util.Partial` of it and its parameters.

    Args:
      key: of the start and of the noise; both depend on it alone, not on how the batch is laid out over devices.
      denoise_fn: `(x [n, ...], t scalar) -> prediction` of the shape of x, or `(prediction, v)` for
        `DDPM(variance="learned")`; of `remember`, a denoiser that is told its last x_0.
      process: any process with known parameters.
      shape: of the samples, `(n, ...)`.
      sampler: a noun of `aijax.diffusion.samplers`; default `DDIM()`.
      steps: of the grid, at least 1; default 50. A `Grid` has its own.
      grid: a spacing of `make_grid` or a `Grid`; default "uniform".
      prediction: what `denoise_fn` predicts: "x0" (default), "eps", "score", "v", "velocity", "F" or "minus F"; see
        `aijax.diffusion.predictions`.
      sigma_data: of prediction "F"; default 0.5.
      constraint: what is done to each prediction of x_0, such as `Clip()`, `DynamicThreshold()` or `Known(values,
        mask)`; default nothing.
      init: the start, of `shape`, in place of a draw of the prior.
      noise: `[calls, *shape]` in place of drawn noise, one array a network call; a call that adds none passes over it.
      trajectory: whether to return a `Trajectory` too (of an adaptive sampler, its `Effort`).
      sharding: of the batch over devices, such as `aijax.parallel.batch_sharding(mesh)`.
      on_call: called on the host with the number of each network call as it begins; for progress.
      dtype: of the state; default: of `init`, else JAX's default float.

    Raises:
      ConfigError: an argument that cannot be used, named with what was expected, before the run.
      DataError: samples that are not finite. Inside `jit`, where values are not known, `checkify.float_checks` of
        `jax.experimental` finds the operation.

    >>> from aijax.diffusion import VP
    >>> denoise = lambda x, t: jnp.zeros_like(x)
    >>> sample(jax.random.key(0), denoise, VP(), (2, 3), steps=4).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    sampler = DDIM() if sampler is None else sampler
    if not isinstance(sampler, Sampler):
        raise ConfigError(f"sampler: expected a noun such as DDIM(), got {sampler!r}")
    if not isinstance(process, Process):
        raise ConfigError(f"process: expected a process such as VP(), got {process!r}")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(process)):
        raise ConfigError("process: a sampler needs its parameters as numbers; close over it in place of passing it in")
    process = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) if hasattr(leaf, "shape") else leaf, process)
    choose(dict.fromkeys(KINDS), prediction, "prediction")
    if isinstance(grid, str):
        check_steps(steps)
        grid = make_grid(process, steps, grid)
    if grid.alphas[0] == 0 and prediction in ("eps", "score"):
        raise ConfigError(f"prediction: '{prediction}' says nothing of x_0 at the start, where alpha is 0; predict 'v'")
    if not isinstance(shape, tuple | list) or not shape or any(size < 1 for size in shape):
        raise ConfigError(f"shape: expected sizes (n, ...) of at least 1, got {shape!r}")
    shape = tuple(shape)
    if dtype is None:
        dtype = jnp.result_type(float) if init is None else init.dtype
    if init is not None and init.shape != shape:
        raise ConfigError(f"init: expected shape {shape}, got {init.shape}")
    prepared = sampler.prepare(process, grid, dtype)
    expected = sampler.noise_shape(prepared, shape)
    if noise is not None and (expected is None or noise.shape != expected):
        wanted = "no noise, which this sampler does not use" if expected is None else f"shape {expected}"
        raise ConfigError(f"noise: expected {wanted}, got {noise.shape}")
    denoise_fn = as_partial(denoise_fn)
    constraint = None if constraint is None else as_partial(constraint)
    learned = getattr(sampler, "variance", None) == "learned"
    options = (getattr(sampler, "reuse_eps", False), learned)
    result = _run(
        key, denoise_fn, constraint, sampler, prepared, init, noise, process.prior.std, sigma_data, shape,
        jnp.dtype(dtype), prediction, options, trajectory, sharding, on_call,
    )  # fmt: skip
    _check_result(*result)
    return result if trajectory else result[0]


@dataclass(frozen=True)
class Predict:
    """`(x, t, alpha, sigma) -> x0, eps, v` of a denoiser that predicts `prediction`; v is None unless learned.

    eps is the denoiser's own, or, where x_0 is changed and eps is not to be reused, follows from the changed x_0. Where
    it `remembers`, the x0 of the last call is to be given too.
    """

    denoise_fn: Callable
    prediction: str
    sigma_data: float = 0.5
    constraint: Callable | None = None
    reuse_eps: bool = False
    learned: bool = False

    @property
    def remembers(self):
        return isinstance(self.denoise_fn, Remembering)

    def __call__(self, x, t, alpha, sigma, *before):
        output, fraction = self.denoise_fn(x, t, *before), None
        if self.learned:
            if not (isinstance(output, tuple) and len(output) == 2):
                raise ConfigError("denoise_fn: expected (prediction, v), as the variance is learned")
            output, fraction = output
            check_output(fraction, x)
        check_output(output, x)
        told = (self.prediction, output, x, alpha, sigma)
        x0 = to_x0(*told, sigma_data=self.sigma_data)
        if self.constraint is None:
            return x0, to_eps(*told, sigma_data=self.sigma_data), fraction
        bounded = self.constraint(x0)
        if self.reuse_eps and not getattr(self.constraint, "consistent", False):
            return bounded, to_eps(*told, sigma_data=self.sigma_data), fraction
        return bounded, from_x0("eps", bounded, x, alpha, sigma), fraction


@functools.partial(
    jax.jit, static_argnames=("shape", "dtype", "prediction", "options", "trajectory", "sharding", "on_call")
)
def _run(
    key, denoise_fn, constraint, sampler, prepared, init, noise, prior_std, sigma_data, shape, dtype, prediction,
    options, trajectory, sharding, on_call,
):  # fmt: skip
    start_key, noise_key = jax.random.split(key)
    x = init if init is not None else prior_std * jax.random.normal(start_key, shape, dtype)
    x = x.astype(dtype)
    if noise is not None:
        noise = noise.astype(dtype)
    if sharding is not None:
        x = jax.lax.with_sharding_constraint(x, sharding)
    report = None if on_call is None else functools.partial(jax.debug.callback, on_call)
    predict = Predict(denoise_fn, prediction, sigma_data, constraint, *options)
    return sampler.run(noise_key, predict, prepared, x, noise=noise, record=trajectory, on_call=report)


def _check_result(x, seen):
    if isinstance(x, jax.core.Tracer):
        return
    if not bool(getattr(seen, "finished", True)):
        raise DataError("sampler: the end was not reached within max_steps; raise it, or rtol and atol")
    if not bool(jnp.isfinite(x).all()):
        raise DataError("denoise_fn: the samples are not finite; it gave NaN or infinity at some step")
