"""The gradient noise scale: how large a batch may be before more examples stop helping.

    B_simple = tr(Sigma) / |G|^2,        B_noise = tr(H Sigma) / (G^T H G),       eps_max = |G|^2 / (G^T H G)

with G the gradient of all, Sigma the covariance of the gradients of single examples and H the Hessian (McCandlish et
al. 2018, equations 2.7 to 2.9). From the mean squared norms of gradients of small and large batches, b and B,

    |G|^2 ~ (B |G_B|^2 - b |G_b|^2) / (B - b),        tr(Sigma) ~ (|G_b|^2 - |G_B|^2) / (1/b - 1/B)      (appendix A.1)

Both are unbiased; their quotient is not, and |G|^2 may come out negative: then the noise drowns the gradient, and
B_simple is not known.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.landscape.batches import as_batches, mean_over
from aijax.landscape.operators import LossFn, check_loss, hessian
from aijax.linalg.vectors import inner
from aijax.typing import Any, Array, Params


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["gradient_square", "trace", "low", "high"], meta_fields=[]
)
@dataclass(frozen=True)
class NoiseScale:
    """Estimates from squared norms of gradients.

    Attributes:
      gradient_square: of |G|^2; negative where the noise drowns the gradient.
      trace: of tr(Sigma).
      low, high: a 95 % interval of B_simple; high is infinite where |G|^2 may be 0.
    """

    gradient_square: Array
    trace: Array
    low: Array
    high: Array

    @property
    def value(self) -> Array:
        """B_simple, in examples; NaN where `gradient_square` is not positive."""
        return jnp.where(self.gradient_square > 0, self.trace / self.gradient_square, jnp.nan)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["gradient_square", "trace", "curvature", "curvature_trace", "examples"],
    meta_fields=[],
)
@dataclass(frozen=True)
class ExactNoiseScale:
    """The noise scale from the gradients of single examples: |G|^2, tr(Sigma), G^T H G, tr(H Sigma), their number."""

    gradient_square: Array
    trace: Array
    curvature: Array
    curvature_trace: Array
    examples: Array

    @property
    def simple(self) -> Array:
        """tr(Sigma) / |G|^2."""
        return self.trace / self.gradient_square

    @property
    def unbiased(self) -> Array:
        """tr(Sigma) / (|G|^2 - tr(Sigma) / n), the gradient's own noise taken from it."""
        return self.trace / (self.gradient_square - self.trace / self.examples)

    @property
    def noise(self) -> Array:
        """tr(H Sigma) / (G^T H G); negative where the gradient points along negative curvature."""
        return self.curvature_trace / self.curvature

    @property
    def largest_step(self) -> Array:
        """|G|^2 / (G^T H G): the learning rate of the best step along the gradient."""
        return self.gradient_square / self.curvature


def exact_noise_scale(loss_fn: LossFn, params: Params, batches: Any) -> ExactNoiseScale:
    """Returns the noise scale from the gradients of all single examples, one product with H for each.

    Args:
      loss_fn: `(params, batch)` to the mean loss of the batch; that of one example is that of a batch of one.
      params: where.
      batches: one batch, or a list of batches.

    Raises:
      ConfigError: a loss that is no scalar or has no second derivative, fewer than two examples.
    """
    batches = as_batches(batches)
    check_loss(loss_fn, params, batches, twice=True)
    matvec = hessian(loss_fn, params, batches)
    n = sum(leaf.shape[0] * leaf.shape[1] for leaf in (jax.tree.leaves(group)[0] for group in batches.groups))
    if n < 2:
        raise ConfigError(f"batches: a covariance needs at least two examples, got {n}")

    @jax.jit
    def work(params, batches, matvec):
        def moments(batch):
            def one(example):
                slope = jax.grad(loss_fn)(params, jax.tree.map(lambda leaf: leaf[None], example))
                return slope, inner(slope, slope), inner(slope, matvec(slope))

            # one after the other: a gradient of each example is all that is held
            size = len(jax.tree.leaves(batch)[0])
            zeros = jax.tree.map(
                lambda a: jnp.zeros(a.shape, a.dtype),
                jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[0], batch)),
            )
            add = lambda total, example: (jax.tree.map(jnp.add, total, one(example)), None)  # noqa: E731
            total, _ = jax.lax.scan(add, zeros, batch)
            return jax.tree.map(lambda leaf: leaf / size, total)

        gradient, square, curved = mean_over(moments, batches)
        whole, bent = inner(gradient, gradient), inner(gradient, matvec(gradient))
        spread = n / (n - 1)
        return ExactNoiseScale(whole, spread * (square - whole), bent, spread * (curved - bent), jnp.asarray(n))

    return work(params, batches, matvec)


def noise_scale(small_squares: Array, large_squares: Array, small: int, large: int) -> NoiseScale:
    """Returns the noise scale from squared norms of gradients of batches of two sizes, as a train loop meets them.

    Args:
      small_squares: |G_b|^2 of batches of `small` examples, `[n]`, or their mean.
      large_squares: |G_B|^2 of batches of `large` examples, `[m]`, or their mean.
      small, large: b and B.

    Raises:
      ConfigError: b not below B.

    Source: McCandlish, Kaplan, Amodei et al. 2018, appendix A.1. The interval treats the means as normal and bounds the
    quotient by Fieller's theorem; it is infinite where only one value of each is given.

    >>> found = noise_scale(jnp.array([3.0, 5.0]), jnp.array([2.0, 2.0]), 1, 4)
    >>> round(float(found.value), 3)
    2.0
    """
    if not 0 < small < large:
        raise ConfigError(
            f"small and large: expected two sizes of batches, the first below the second, got {small} and {large}"
        )
    small_squares, large_squares = jnp.atleast_1d(small_squares), jnp.atleast_1d(large_squares)
    s, b = small_squares.mean(), large_squares.mean()
    gradient_square = (large * b - small * s) / (large - small)
    trace = (s - b) / (1 / small - 1 / large)
    low, high = _fieller(small_squares, large_squares, small, large, trace, gradient_square)
    return NoiseScale(gradient_square, trace, low, high)


def _fieller(small_squares, large_squares, small, large, trace, gradient_square):
    variances = [
        values.var(ddof=1) / len(values) if len(values) > 1 else jnp.asarray(jnp.inf)
        for values in (small_squares, large_squares)
    ]
    weight = 1 / (1 / small - 1 / large)
    top = weight**2 * (variances[0] + variances[1])
    bottom = (large**2 * variances[1] + small**2 * variances[0]) / (large - small) ** 2
    both = -weight * (small * variances[0] + large * variances[1]) / (large - small)
    z = 1.959964
    a, c = gradient_square**2 - z**2 * bottom, trace**2 - z**2 * top
    half = gradient_square * trace - z**2 * both
    root = jnp.sqrt(jnp.maximum(half**2 - a * c, 0))
    bounded = (a > 0) & (gradient_square > 0)
    safe = jnp.where(bounded, a, 1)
    low = jnp.where(bounded, jnp.maximum((half - root) / safe, 0), 0)
    return low, jnp.where(bounded, (half + root) / safe, jnp.inf)
