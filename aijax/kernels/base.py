"""What a kernel is: a symmetric positive semidefinite function of two points, as a pytree.

    kernel(x1, x2)      the Gram matrix k(x1_i, x2_j), [n1, n2]
    kernel(x)           the Gram matrix of one set of points with itself, [n, n]
    kernel.diagonal(x)  k(x_i, x_i), [n]
    k1 + k2, 2.0 * k1, k1 * k2, k1**3

`kernel(x)` is not `kernel(x, x)` written shorter: it says that row i and column i are the same point, so that a term of
white noise is on its diagonal. Points are rows of a floating array `[n, d]`, or `[n]` for scalars, unless the kernel
says otherwise; their dtype is the dtype of the result.

A subclass is a `noun` that defines `gram(x1, x2)`, x2 None for one set, and `gram_diagonal(x)` where it is cheaper than
what `gram` gives. Both get points and parameters made ready.
"""

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.parameters import noun, parameter, static
from aijax.typing import Any, Array, Float


class Kernel:
    """The base of all kernels; a subclass is a `noun` with `gram`, and `gram_diagonal` where it knows better."""

    __array_ufunc__ = None  # NumPy numbers leave `2.0 * kernel` to the kernel

    differentiable = True
    """Whether samples have derivatives in mean square: whether `d2 k / dx dx'` is there at x = x'."""

    def __call__(self, x1: Any, x2: Any = None) -> Float[Array, "n1 n2"]:
        """Returns the Gram matrix of the points x1 with x2, or with themselves where x2 is None."""
        x1, x2 = self.points(x1), None if x2 is None else self.points(x2)
        if x2 is not None and isinstance(x1, jax.Array) and x1.shape[1:] != x2.shape[1:]:
            raise ConfigError(f"x2: expected points of shape {x1.shape[1:]} like those of x1, got {x2.shape[1:]}")
        return _in_dtype_of(x1, self).gram(x1, x2)

    def diagonal(self, x: Any) -> Float[Array, " n"]:
        """Returns `k(x_i, x_i)`, `[n]`."""
        x = self.points(x)
        return _in_dtype_of(x, self).gram_diagonal(x)

    def points(self, x: Any) -> Any:
        """Returns x as what `gram` takes: here rows of a floating array. Kernels on other things override it."""
        return as_points(x)

    def gram(self, x1: Any, x2: Any = None) -> Float[Array, "n1 n2"]:
        raise NotImplementedError

    def gram_diagonal(self, x: Any) -> Float[Array, " n"]:
        return jax.vmap(lambda point: self.gram(jax.tree.map(lambda leaf: leaf[None], point))[0, 0])(x)

    def __add__(self, other: Any) -> "Kernel":
        return Sum((*terms(self, Sum), *terms(other, Sum)))

    def __radd__(self, other: Any) -> "Kernel":
        return Sum((*terms(other, Sum), *terms(self, Sum)))

    def __mul__(self, other: Any) -> "Kernel":
        return Scaled(self, other) if is_number(other) else Product((*terms(self, Product), *terms(other, Product)))

    __rmul__ = __mul__

    def __pow__(self, exponent: int) -> "Kernel":
        return Power(self, exponent)


@noun
class Sum(Kernel):
    """`sum_i k_i(x, x')`."""

    kernels: tuple[Kernel, ...]

    def points(self, x):
        return x

    def gram(self, x1, x2=None):
        return sum(kernel(x1, x2) for kernel in self.kernels)

    def gram_diagonal(self, x):
        return sum(kernel.diagonal(x) for kernel in self.kernels)


@noun
class Product(Kernel):
    """`prod_i k_i(x, x')`."""

    kernels: tuple[Kernel, ...]

    def points(self, x):
        return x

    def gram(self, x1, x2=None):
        result = self.kernels[0](x1, x2)
        for kernel in self.kernels[1:]:
            result = result * kernel(x1, x2)
        return result

    def gram_diagonal(self, x):
        result = self.kernels[0].diagonal(x)
        for kernel in self.kernels[1:]:
            result = result * kernel.diagonal(x)
        return result


@noun
class Scaled(Kernel):
    """`variance k(x, x')`."""

    kernel: Kernel
    variance: Any = parameter(1.0, "positive")

    def points(self, x):
        return x

    def gram(self, x1, x2=None):
        return self.variance * self.kernel(x1, x2)

    def gram_diagonal(self, x):
        return self.variance * self.kernel.diagonal(x)


@noun
class Power(Kernel):
    """`k(x, x')^exponent`, exponent a positive integer."""

    kernel: Kernel
    exponent: int = static(2)

    def check(self):
        if isinstance(self.exponent, bool) or not isinstance(self.exponent, int) or self.exponent < 1:
            raise ConfigError(f"exponent: expected a positive integer, got {self.exponent!r}")

    def points(self, x):
        return x

    def gram(self, x1, x2=None):
        return self.kernel(x1, x2) ** self.exponent

    def gram_diagonal(self, x):
        return self.kernel.diagonal(x) ** self.exponent


def as_points(x: Any) -> Float[Array, "n d"]:
    """Returns x as rows of a floating array; `[n]` is n scalars."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ConfigError(f"x: expected floating points [n, d] or [n], got {x.dtype}; convert them first")
    if x.ndim not in (1, 2):
        raise ConfigError(f"x: expected points [n, d] or [n], got an array of shape {x.shape}")
    return x[:, None] if x.ndim == 1 else x


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (hasattr(value, "ndim") and value.ndim == 0)


def terms(kernel: Any, kind: type) -> tuple[Kernel, ...]:
    """Returns the kernels that `kernel` joins where it is a `kind` (Sum or Product), else itself."""
    if not isinstance(kernel, Kernel):
        raise ConfigError(f"kernel: expected a kernel to add or multiply, got {kernel!r}")
    return kernel.kernels if isinstance(kernel, kind) else (kernel,)


def _in_dtype_of(x, kernel):
    """Returns `kernel` with floating parameters of the dtype of x, where x is a floating array."""
    if not isinstance(x, jax.Array) or not jnp.issubdtype(x.dtype, jnp.floating):
        return kernel

    def convert(leaf):
        other = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype != x.dtype
        return jnp.asarray(leaf, x.dtype) if other else leaf

    return jax.tree.map(convert, kernel)
