"""Kernels made of functions: of two points, of two batches (a tangent kernel, say), of strings, graphs or any objects.

    from_kernel_fn(lambda x, z: jnp.exp(-jnp.sum((x - z) ** 2)))                          two vectors
    from_kernel_fn(lambda params, x, z: params["a"] * x @ z, {"a": 1.0})                  with parameters
    from_kernel_fn(functools.partial(stax_kernel_fn, get="nngp"), batched=True)           two batches
    from_kernel_fn(lambda s, t: len(set(s) & set(t)), objects=True)                       two strings

Whether the function is symmetric and positive semidefinite is for its author to know.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.kernels.base import Kernel
from aijax.parameters import noun, static
from aijax.typing import Any, Callable


def from_kernel_fn(
    fn: Callable[..., Any], params: Any = None, *, batched: bool = False, objects: bool = False
) -> "FunctionKernel":
    """Returns a kernel that is worked out by `fn`.

    Args:
      fn: `fn(x, x')`, or `fn(params, x, x')` where there are parameters. Of two points it returns a number. It is
        fixed: a new function compiles anew.
      params: any tree of arrays, which a fit may change; a noun where some are constrained; None where there are none.
      batched: `fn` takes two batches and returns the matrix `[n1, n2]`, as kernel functions of `aijax.ntk` do. One
        whose second batch may be left out (its default is None) is then called so for one set of points.
      objects: points are any Python objects in a list, and `fn` runs in Python, outside of compiled code: for strings,
        graphs, trees. It is called for each pair; of one set, for half of them.

    Points are rows of an array, `[n]` being n vectors of length 1; or, where `batched`, whatever `fn` takes, such as
    images `[n, h, w, c]`; or a tuple or dict of arrays.

    Raises:
      ConfigError: `fn` cannot be called; later, when it returns anything but a number (a matrix where `batched`).

    >>> kernel = from_kernel_fn(lambda x, z: jnp.exp(-jnp.sum((x - z) ** 2)))
    >>> kernel(jnp.zeros((3, 2))).shape
    (3, 3)
    >>> from_kernel_fn(lambda s, t: len(set(s) & set(t)), objects=True)(["an", "ant"]).tolist()
    [[2.0, 2.0], [2.0, 3.0]]
    """
    if not callable(fn):
        raise ConfigError(f"fn: expected a function of two points or two batches, got {fn!r}")
    return FunctionKernel(fn, params, batched, objects)


def as_kernel(kernel: Any) -> Kernel:
    """Returns `kernel`, or where it is a plain function of two points, the kernel of it."""
    if isinstance(kernel, Kernel):
        return kernel
    if not callable(kernel) or isinstance(kernel, type):
        raise ConfigError(f"kernel: expected a kernel of aijax.kernels or a function of two points, got {kernel!r}")
    return from_kernel_fn(kernel)


@noun
class FunctionKernel(Kernel):
    """`fn(x, x')`; see `from_kernel_fn`."""

    fn: Callable[..., Any] = static()
    params: Any = None
    batched: bool = static(False)
    objects: bool = static(False)

    def points(self, x):
        if self.objects:
            if not isinstance(x, list):
                raise ConfigError(f"x: expected a list of objects, as objects=True says, got {type(x).__name__}")
            return x
        x = np.asarray(x) if isinstance(x, list) else x
        if not all(_is_numeric(leaf) for leaf in jax.tree.leaves(x)):
            raise ConfigError("x: expected arrays of numbers; a kernel of other objects is made with objects=True")
        x = jax.tree.map(jnp.asarray, x)
        return x[:, None] if not self.batched and isinstance(x, jax.Array) and x.ndim == 1 else x

    def gram(self, x1, x2=None):
        if self.batched:
            return self._matrix(x1, x2)
        if self.objects:
            return self._each_pair(x1, x2)
        other = x1 if x2 is None else x2
        return jax.vmap(lambda a: jax.vmap(lambda b: self._number(a, b))(other))(x1)

    def gram_diagonal(self, x):
        if self.objects:
            values = [self._matrix([p], None)[0, 0] if self.batched else self._value(p, p) for p in x]
            return _as_vector(values)
        if self.batched:
            return jax.lax.map(lambda p: self._matrix(jax.tree.map(lambda leaf: leaf[None], p), None)[0, 0], x)
        return jax.vmap(lambda point: self._number(point, point))(x)

    def _call(self, a, b):
        return self.fn(a, b) if self.params is None else self.fn(self.params, a, b)

    def _number(self, a, b):
        return self._number_of(self._call(a, b))

    def _number_of(self, value):
        value = jnp.asarray(value)
        if value.size != 1:
            name = getattr(self.fn, "__name__", "fn")
            raise ConfigError(f"{name}: expected a number for two points, got an array of shape {value.shape}")
        return _floating(value.reshape(()))

    def _matrix(self, x1, x2):
        one_set = x2 is None
        value = self._call(x1, x1 if one_set and not _second_may_be_none(self.fn, self.params) else x2)
        expected = (_length(x1), _length(x1 if one_set else x2))
        if getattr(value, "shape", None) != expected:
            got = f"an array of shape {value.shape}" if hasattr(value, "shape") else type(value).__name__
            name = getattr(self.fn, "__name__", "fn")
            raise ConfigError(f"{name}: expected a matrix of shape {expected} for two batches, got {got}")
        return _floating(jnp.asarray(value))

    def _each_pair(self, x1, x2):
        if x2 is not None:
            return _as_vector([self._value(a, b) for a in x1 for b in x2]).reshape(len(x1), len(x2))
        half = _as_vector([self._value(a, b) for i, a in enumerate(x1) for b in x1[: i + 1]])
        i, j = np.indices((len(x1), len(x1)))
        low, high = np.minimum(i, j), np.maximum(i, j)
        return half[high * (high + 1) // 2 + low]

    def _value(self, a, b):
        """The kernel of two objects: a Python number as it is, anything else as `_number` has it."""
        value = self._call(a, b)
        return float(value) if isinstance(value, int | float) else self._number_of(value)


def _as_vector(values):
    if any(isinstance(value, jax.Array) for value in values):
        return jnp.stack([jnp.asarray(value) for value in values])
    return jnp.asarray(np.asarray(values, float))


def _is_numeric(leaf):
    return isinstance(leaf, jax.Array) or (isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "biufc")


def _floating(value):
    return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(jnp.result_type(float))


def _length(x):
    return len(x) if isinstance(x, list) else jax.tree.leaves(x)[0].shape[0]


def _second_may_be_none(fn, params):
    try:
        arguments = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return False
    place = 1 if params is None else 2
    return len(arguments) > place and arguments[place].default is None
