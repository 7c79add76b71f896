"""Empirical kernels under the names and argument meanings that neural-tangents documents.

`empirical_ntk_fn(f, ...)` gives `kernel_fn(x1, x2, params, **kwargs)`, where `empirical.empirical_ntk` computes.
What becomes of each axis of f's output is said by the axis (see `outputs.py`), and so is which axes run over
independent examples.
"""

import collections
import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from aijax.errors import ConfigError
from aijax.ntk.arguments import as_axes, check_function
from aijax.ntk.empirical import output_kernel, tangent_kernel
from aijax.ntk.outputs import make_outputs
from aijax.ntk.tangent import Mapped
from aijax.typing import Params


class NtkImplementation(enum.IntEnum):
    """How an empirical NTK is worked out; see `aijax.ntk.empirical` for what each does."""

    AUTO = 0
    JACOBIAN_CONTRACTION = 1
    NTK_VECTOR_PRODUCTS = 2
    STRUCTURED_DERIVATIVES = 3


CONTRACTION = {
    NtkImplementation.AUTO: "auto",
    NtkImplementation.JACOBIAN_CONTRACTION: "jacobian",
    NtkImplementation.NTK_VECTOR_PRODUCTS: "vector_products",
    NtkImplementation.STRUCTURED_DERIVATIVES: "structured",
}


def empirical_ntk_fn(
    f: Callable[..., Any],
    trace_axes: int | Sequence[int] = (-1,),
    diagonal_axes: int | Sequence[int] = (),
    vmap_axes: Any = None,
    implementation: NtkImplementation | int = NtkImplementation.AUTO,
    _j_rules: bool = True,
    _s_rules: bool = True,
    _fwd: bool | None = None,
) -> Callable[..., Any]:
    """Returns `kernel_fn(x1, x2, params, **kwargs)`, the empirical neural tangent kernel of f.

    Args:
      f: pure `f(params, x, **kwargs)`; parameters, inputs and outputs are arrays or trees of them.
      trace_axes: axes of the output over whose equal indices the mean is taken.
      diagonal_axes: axes of the output of which only equal indices are paired.
      vmap_axes: axes of independent examples, `(in_axes, out_axes, {name of a keyword: axes})`; one that is no triple
        stands for inputs and outputs alike. None says that nothing is known: the output is then differentiated whole.
      implementation: an `NtkImplementation`.
      _s_rules: False uses no rule for the products that parameters enter: Jacobians are left to automatic
        differentiation.
      _j_rules, _fwd: for scripts that name them: they choose how the derivative of one primitive is worked out, which
        here is read off its operands, and change nothing.

    Returns:
      A function; x2=None, or a tree of Nones, stands for x1. A keyword `rng` is split into one for each input where
      there are two, and any keyword that is a pair is divided between them. The kernel has the axes of f(x1) and of
      f(x2) side by side, but for the traced and the diagonal ones. A tree of outputs gives a tree of kernels.

    Raises:
      ConfigError: an unknown implementation; what `empirical.empirical_ntk` refuses, when the function is called.

    >>> import jax.numpy as jnp
    >>> kernel_fn = empirical_ntk_fn(lambda params, x: x @ params, trace_axes=(), vmap_axes=0)
    >>> kernel_fn(jnp.eye(3), None, jnp.ones((3, 2))).shape
    (3, 3, 2, 2)
    """
    if implementation not in CONTRACTION:
        raise ConfigError(f"implementation: expected an NtkImplementation or 0 to 3, got {implementation!r}")
    contraction = CONTRACTION[NtkImplementation(implementation)]
    if not _s_rules and contraction != "vector_products":
        contraction = "autodiff"
    kinds = _kinds(f, trace_axes, diagonal_axes)
    triple = isinstance(vmap_axes, tuple) and len(vmap_axes) == 3
    in_axes, out_axes, kwargs_axes = vmap_axes if triple else (vmap_axes, vmap_axes, {})

    def kernel_fn(x1: Any, x2: Any, params: Params, **kwargs: Any) -> Any:
        inputs1, inputs2, static = split_inputs(x1, x2, kwargs)
        mapped = None
        if vmap_axes is not None:
            axes = {name: kwargs_axes if isinstance(kwargs_axes, int) else kwargs_axes.get(name) for name in inputs1[1]}
            mapped = Mapped((in_axes, axes), out_axes)
        return tangent_kernel(
            functools.partial(call, f, static),
            params,
            inputs1,
            inputs2,
            kinds=kinds,
            mapped=mapped,
            contraction=contraction,
            where="f",
        )

    return kernel_fn


def empirical_nngp_fn(
    f: Callable[..., Any], trace_axes: int | Sequence[int] = (-1,), diagonal_axes: int | Sequence[int] = ()
) -> Callable[..., Any]:
    """Returns `kernel_fn(x1, x2, params, **kwargs)`, the products of f's outputs; see `empirical_ntk_fn`."""
    kinds = _kinds(f, trace_axes, diagonal_axes)

    def kernel_fn(x1: Any, x2: Any, params: Params, **kwargs: Any) -> Any:
        inputs1, inputs2, static = split_inputs(x1, x2, kwargs)
        return output_kernel(functools.partial(call, f, static), params, inputs1, inputs2, kinds, "f")

    return kernel_fn


def empirical_kernel_fn(
    f: Callable[..., Any],
    trace_axes: int | Sequence[int] = (-1,),
    diagonal_axes: int | Sequence[int] = (),
    vmap_axes: Any = None,
    implementation: NtkImplementation | int = NtkImplementation.AUTO,
    _j_rules: bool = True,
    _s_rules: bool = True,
    _fwd: bool | None = None,
) -> Callable[..., Any]:
    """Returns `kernel_fn(x1, x2, get, params, **kwargs)`: "nngp", "ntk", or a named tuple of those that are asked for.

    Arguments are those of `empirical_ntk_fn`; `get` None asks for both. A tree of outputs gives a tree of kernels, or
    of named tuples of them.

    >>> import jax.numpy as jnp
    >>> kernel_fn = empirical_kernel_fn(lambda params, x: x @ params)
    >>> kernel_fn(jnp.eye(2), None, ("nngp", "ntk"), jnp.ones((2, 4))).nngp.shape
    (2, 2)
    """
    made = {
        "nngp": empirical_nngp_fn(f, trace_axes, diagonal_axes),
        "ntk": empirical_ntk_fn(f, trace_axes, diagonal_axes, vmap_axes, implementation, _j_rules, _s_rules, _fwd),
    }

    def kernel_fn(x1: Any, x2: Any, get: str | Sequence[str] | None, params: Params, **kwargs: Any) -> Any:
        if get is not None and not isinstance(get, (str, tuple, list)):
            raise ConfigError(f"get: expected 'nngp', 'ntk' or a tuple of them, got {get!r}")
        wanted = tuple(made) if get is None else (get,) if isinstance(get, str) else tuple(get)
        wanted = tuple(name.lower() if isinstance(name, str) else name for name in wanted)
        for name in wanted:
            if name not in made or len(set(wanted)) < len(wanted):
                raise ConfigError(f"get: expected 'nngp', 'ntk' or a tuple of them, got {get!r}")
        kernels = [made[name](x1, x2, params, **kwargs) for name in wanted]
        if isinstance(get, str):
            return kernels[0]
        return jax.tree.map(named(wanted), *kernels)

    return kernel_fn


@functools.cache
def named(fields: tuple[str, ...]) -> type:
    """Returns the type of tuples with these fields, one and the same for the same fields."""
    return collections.namedtuple("EmpiricalKernel", fields)


def _kinds(f, trace_axes, diagonal_axes):
    """Returns what tells the kinds of the axes of an output from its shape."""
    check_function("f", f)
    trace_axes, diagonal_axes = as_axes("trace_axes", trace_axes), as_axes("diagonal_axes", diagonal_axes)
    return functools.partial(make_outputs, trace_axes=trace_axes, diagonal_axes=diagonal_axes)


def call(
    f: Callable[..., Any], static: Mapping[str, Any], params: Params, inputs: tuple[Any, Mapping[str, Any]]
) -> Any:
    """Returns `f(params, x, **kwargs)` for inputs (x, kwargs) and the keywords that are no arrays."""
    x, kwargs = inputs
    return f(params, x, **kwargs, **static)


def split_inputs(x1: Any, x2: Any, kwargs: Mapping[str, Any]) -> tuple[tuple, tuple | None, dict[str, Any]]:
    """Returns `((x1, its keywords), (x2, its keywords) or None, keywords that are no arrays)`."""
    static = {name: value for name, value in kwargs.items() if not all(map(is_array, jax.tree.leaves(value)))}
    x2 = x2 if jax.tree.leaves(x2) else None
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    for name, value in kwargs.items():
        if name in static or value is None:
            static[name] = value
        elif isinstance(value, tuple) and len(value) == 2:
            first[name], second[name] = value
        elif name == "rng" and x2 is not None:
            first[name], second[name] = jax.random.split(value)
        else:
            first[name] = second[name] = value
    return (x1, first), (None if x2 is None else (x2, second)), static


def is_array(x: Any) -> bool:
    """Returns whether `x` is an array, of jax or NumPy."""
    return hasattr(x, "shape") and hasattr(x, "dtype")
