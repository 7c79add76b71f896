"""Kernels that are products over groups of coordinates, `k(x, x') = prod_i k_i(x_i, x'_i)`.

On a grid the Gram matrix of such a kernel is the Kronecker product of those of the axes. An RBF is such a product, a
Matern of the Euclidean distance is not; products of kernels of some columns each are.
"""

import functools

import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.kernels.base import Kernel, Power, Product, Scaled
from aijax.kernels.constant import Constant, White
from aijax.kernels.periodic import Cosine, Periodic
from aijax.kernels.stationary import RBF
from aijax.kernels.transforms import Columns
from aijax.typing import Any

Groups = tuple[tuple[int, ...], ...]


def separate(kernel: Kernel, groups: Groups) -> tuple[Kernel, ...]:
    """Returns one kernel for each group of coordinates, of points that have only those, whose product is `kernel`.

    Known are RBF, Periodic, Cosine, Constant, White, kernels of the columns of one group, and products, powers and
    scalings of them; `separate.register(Type, ...)` is for others.

    Args:
      kernel: of points `[n, d]`.
      groups: which coordinates are in each group: a partition of 0 to d - 1.

    Raises:
      ConfigError: a kernel that is no product over the groups, as far as is known.

    >>> from aijax.kernels.stationary import Matern32
    >>> [type(k).__name__ for k in separate(Columns(Matern32(), (1,)) * Columns(RBF(), (0,)), ((0,), (1,)))]
    ['Product', 'Product']
    """
    return (kernel,) if len(groups) == 1 and groups[0] == tuple(range(len(groups[0]))) else separate_any(kernel, groups)


@functools.singledispatch
def separate_any(kernel: Any, groups: Groups) -> tuple[Kernel, ...]:
    """Returns what `separate` does where there is more than one group; each type of kernel has its own rule."""
    name = type(kernel).__name__
    raise ConfigError(
        f"kernel: {name} of several coordinates is no product over the axes of a grid; expected RBF, Periodic, Cosine, "
        f"or a product such as Columns({name}(...), (0,)) * Columns({name}(...), (1,))"
    )


def _by_coordinate(names):
    def separate_each(kernel, groups):
        def pick(value, group):
            value = jnp.asarray(value)
            return value[jnp.array(group)] if value.ndim == 1 and len(value) > 1 else value

        return tuple(
            type(kernel)(
                **{name: pick(getattr(kernel, name), group) for name in names},
                variance=1.0 if i else kernel.variance,
            )
            for i, group in enumerate(groups)
        )

    return separate_each


separate_any.register(RBF, _by_coordinate(("lengthscale",)))
separate_any.register(Periodic, _by_coordinate(("lengthscale", "period")))
separate_any.register(Cosine, _by_coordinate(("period",)))


@separate_any.register
def _(kernel: Constant, groups):
    return (kernel, *(Constant(1.0) for _ in groups[1:]))


@separate_any.register
def _(kernel: White, groups):
    return (kernel, *(White(1.0) for _ in groups[1:]))


@separate_any.register
def _(kernel: Scaled, groups):
    first, *rest = separate_any(kernel.kernel, groups)
    return (Scaled(first, kernel.variance), *rest)


@separate_any.register
def _(kernel: Product, groups):
    return tuple(Product(factors) for factors in zip(*(separate_any(k, groups) for k in kernel.kernels), strict=True))


@separate_any.register
def _(kernel: Power, groups):
    return tuple(Power(factor, kernel.exponent) for factor in separate_any(kernel.kernel, groups))


@separate_any.register
def _(kernel: Columns, groups):
    inner = [tuple(i for i, column in enumerate(kernel.columns) if column in group) for group in groups]
    present = tuple(positions for positions in inner if positions)
    factors = iter((kernel.kernel,) if len(present) == 1 else separate_any(kernel.kernel, present))

    def one(group, positions):
        local = tuple(group.index(kernel.columns[i]) for i in positions)
        return Columns(next(factors), local) if positions else Constant(1.0)

    return tuple(one(group, positions) for group, positions in zip(groups, inner, strict=True))
