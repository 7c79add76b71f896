"""Predictor-corrector sampling: Langevin steps at each noise level, then a step to the next (Song et al. 2021).

    x <- x + e score + sqrt(2 e) z,       e = 2 a (snr mean|z| / mean|score|)^2       (algorithms 4 and 5)

with norms of whole samples, averaged over the batch, and a = (alpha / alpha')^2, which is 1 - beta on a table and 1
where variance explodes. The annealed form has e = 2 a (snr sigma)^2 (Song and Ermon 2019).
"""

from dataclasses import replace
from typing import Literal

import jax
import jax.numpy as jnp

from aijax.diffusion.grids import Grid, check_steps
from aijax.diffusion.process import Process, like_rows
from aijax.diffusion.samplers.base import Sampler
from aijax.diffusion.samplers.one_step import ReverseDiffusion
from aijax.diffusion.samplers.plan import Plan, Trajectory, combine, compact
from aijax.errors import ConfigError, choose
from aijax.parameters import noun, static
from aijax.typing import Any, Array, Callable, Float, PRNGKey


@noun
class PredictorCorrector(Sampler):
    """A one-call sampler with Langevin steps before each of its steps: `corrections` + 1 network calls a step.

    Args:
      predictor: a sampler of one call a step without memory; default `ReverseDiffusion()`.
      corrector: "langevin" (default) or "annealed".
      snr: the signal-to-noise ratio that sets the step, default 0.16.
      corrections: Langevin steps at each level, default 1.
    """

    predictor: Sampler = static(None)
    corrector: Literal["langevin", "annealed"] = static("langevin")
    snr: float = static(0.16)
    corrections: int = static(1)

    def check(self):
        if self.predictor is None:
            object.__setattr__(self, "predictor", ReverseDiffusion())
        choose(dict.fromkeys(("langevin", "annealed")), self.corrector, "corrector")
        check_steps(self.corrections, "corrections")
        if not self.snr > 0:
            raise ConfigError(f"snr: expected a positive number, got {self.snr}")

    def prepare(self, process: Process, grid: Grid, dtype: Any) -> tuple[Plan, Array]:
        plan = self.predictor.plan(process, grid)
        deep = [column for column in (plan.update.x0, plan.update.eps) if column is not None and column.shape[1] > 1]
        if plan.keep is not None or deep or len(plan.times) != grid.steps:
            raise ConfigError(f"predictor: expected a sampler of one call a step without memory, got {self.predictor}")
        # 1 where the step ends at no noise: x_0 has no further level whose alpha would scale it
        shrink = (grid.alphas[:-1] / grid.alphas[1:]) ** 2
        return compact(plan, dtype), jnp.asarray(shrink, dtype)

    def noise_shape(self, prepared: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (len(prepared[1]), self.corrections + 1, *shape)

    def run(
        self,
        key: PRNGKey,
        predict: Callable,
        prepared: Any,
        x: Array,
        *,
        noise: Array | None = None,
        record: bool = False,
        on_call: Callable | None = None,
    ) -> tuple[Array, Trajectory | None]:
        """Returns the sample; the noise of each step is that of its corrections, then the predictor's."""
        plan, shrinks = prepared
        remembers = getattr(predict, "remembers", False)

        def step(carry, inputs):
            x, before = carry
            row, shrink, number, given = inputs
            if on_call is not None:
                on_call(number)
            if given is None:
                shape = (self.corrections + 1, *x.shape)
                given = jax.random.normal(jax.random.fold_in(key, number), shape, x.dtype)
            for z in given[:-1]:
                x0, eps, _ = predict(x, row.times, row.alphas, row.sigmas, *before)
                before = (x0,)[:remembers]
                score = -eps / row.sigmas
                if self.corrector == "langevin":
                    x, _ = langevin_step(x, score, z, self.snr, shrink)
                else:
                    x, _ = annealed_langevin_step(x, score, z, self.snr, row.sigmas, shrink)
            x0, eps, _ = predict(x, row.times, row.alphas, row.sigmas, *before)
            new = combine(row.update, x, None, (x0,), (eps,), given[-1])
            return (new, (x0,)[:remembers]), (new, x, x0) if record else None

        start = x, (jnp.zeros_like(x),)[:remembers]
        (x, _), seen = jax.lax.scan(step, start, (replace(plan), shrinks, jnp.arange(len(shrinks)), noise))
        return x, Trajectory(*seen, plan.times, plan.alphas, plan.sigmas) if record else None


def langevin_step(
    x: Float[Array, "n ..."], score: Array, noise: Array, snr: float, shrink: Any = 1.0
) -> tuple[Array, Array]:
    """Returns x after a Langevin step, and its mean without the noise.

    Args:
      x, score, noise: `[n, ...]`, n samples.
      snr: signal-to-noise ratio.
      shrink: a of the module, a scalar or `[n]`; default 1.

    Source: Song et al. 2021, algorithms 4 and 5.
    """
    size = shrink * 2 * (snr * _mean_norm(noise) / _mean_norm(score)) ** 2
    return _step(x, score, noise, size)


def annealed_langevin_step(
    x: Float[Array, "n ..."], score: Array, noise: Array, snr: float, std: Any, shrink: Any = 1.0
) -> tuple[Array, Array]:
    """Returns x after a Langevin step of size 2 a (snr std)^2, and its mean without the noise; see `langevin_step`."""
    return _step(x, score, noise, shrink * 2 * (snr * std) ** 2)


def _step(x, score, noise, size):
    size = like_rows(size, x)
    mean = x + size * score
    return mean + jnp.sqrt(2 * size) * noise, mean


def _mean_norm(x):
    return jnp.sqrt(jnp.sum(x**2, tuple(range(1, x.ndim)))).mean()
