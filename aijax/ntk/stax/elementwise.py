"""A nonlinearity on a kernel: each covariance goes through the dual of its activation (Daniely et al. 2016).

With q1, q2 the variances of one channel at (x, p) and (x', p') and k their covariance, and (u, v) ~ N(0, [[q1, k],
[k, q2]]),

    nngp <- E[φ(u) φ(v)],        ntk <- ntk E[φ'(u) φ'(v)].

Where both sides are one activation the expectations are those of one variable, which keeps digits that k = q1 = q2
loses in kernels like the arc-cosine's.
"""

import functools

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax.dual import Dual
from aijax.ntk.stax.kernel import Kernel, same_entry
from aijax.ntk.stax.layer import Layer
from aijax.ntk.stax.masking import supports_masking
from aijax.ntk.stax.requirements import Bool, Diagonal, requires
from aijax.typing import Any, Array, Callable


@supports_masking(remask_kernel=True)
def elementwise_layer(dual: Dual) -> Layer:
    """Returns the layer that applies `dual.fn` to every activation; to be returned by a function under `layer`."""

    def init_fn(key, input_shape):
        return input_shape, ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        return dual.fn(inputs)

    compiled = jax.jit(functools.partial(apply_dual, dual))

    @requires(diagonal_spatial=Diagonal(input=Bool.YES, output=Bool.NO))
    def kernel_fn(kernel, **kwargs):
        return compiled(kernel).replace(x1_is_x2=kernel.x1_is_x2)

    return init_fn, apply_fn, kernel_fn


def apply_dual(dual: Dual, kernel: Kernel) -> Kernel:
    """Returns the kernel after the nonlinearity whose dual activation is `dual`.

    Raises:
      ConfigError: channels that are not Gaussian.
    """
    if not kernel.is_gaussian:
        raise ConfigError(
            "a nonlinearity needs Gaussian inputs; put a layer with random weights (Dense, Conv) before it"
        )
    q1, q2 = kernel.variances()
    nngp, ntk = _cross(dual, kernel, q1, q2)
    cov1 = _own(dual, kernel, "cov1", q1)
    cov2 = None if kernel.cov2 is None else _own(dual, kernel, "cov2", q2)
    return kernel.replace(nngp=nngp, ntk=ntk, cov1=cov1, cov2=cov2, is_gaussian=False)


def _cross(dual: Dual, kernel: Kernel, q1: Array, q2: Array) -> tuple[Array, Array | None]:
    nngp, slope = in_halves(dual.kernel, *_between(kernel, q1, q2))
    if kernel.cov2 is None:
        same = same_entry(kernel)
        square, square_slope = (kernel.outer(value, value)[0] for value in dual.diagonal(q1))
        nngp = jnp.where(same, square, nngp)
        slope = jnp.where(same, square_slope, slope)
    return nngp, None if kernel.ntk is None else kernel.ntk * slope


def _between(kernel: Kernel, q1: Array, q2: Array) -> tuple[Array, Array, Array]:
    side1, side2 = kernel.outer(q1, q2)
    return side1, kernel.nngp, side2


def _own(dual: Dual, kernel: Kernel, name: str, q: Array) -> Array:
    square = dual.diagonal(q)[0]
    if kernel.diagonal_batch and (kernel.diagonal_spatial or q.ndim == 1):
        return square
    side1, side2 = kernel.outer(q, q, name)
    value = dual.kernel(side1, getattr(kernel, name), side2)[0]
    return jnp.where(same_entry(kernel, name), kernel.outer(square, square, name)[0], value)


def in_halves(function: Callable, *arrays: Array) -> Any:
    """Returns `function(*arrays)`, elementwise on arrays that broadcast, worked out for two halves in a loop.

    XLA would otherwise fuse layer upon layer into passes that start from the inputs: on a CPU work and compile time
    would grow with the square of the depth.
    """
    shape = jnp.broadcast_shapes(*(a.shape for a in arrays))
    axis = max(range(len(shape)), key=lambda a: min(shape[a], 2))
    size = shape[axis]
    if size < 2:
        return function(*arrays)
    half = -(-size // 2)

    def part(start: Array):
        slices = (jax.lax.dynamic_slice_in_dim(a, start, half, axis) if a.shape[axis] > 1 else a for a in arrays)
        return function(*slices)

    def join(parts: Array) -> Array:
        second = jax.lax.slice_in_dim(parts[1], 2 * half - size, None, axis=axis)
        return jnp.concatenate([parts[0], second], axis)

    return jax.tree.map(join, jax.lax.map(part, jnp.array([0, size - half])))
