"""Floating-point operations of a function, counted on its jaxpr.

XLA's own count sees the body of a scanned loop once, and sees nothing of a program that was not compiled. Here a scan
counts its body as often as it runs, `cond` its most expensive branch, a rematerialised block what it computes again,
`shard_map` its body on every device. Nothing is computed and nothing is compiled.

One multiply-add is 2 FLOPs: a product of matrices [m, k] [k, n] is 2 m k n. A convolution counts the products with
elements that exist, not with padding or with the zeros between dilated elements, so that its two gradients count as
much as itself. An elementwise floating-point operation, whatever it is, is 1 per element; a sum over n elements is
n - 1. Integer operations and movement of data are 0.
"""

import dataclasses
import functools
import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from aijax.typing import Callable

PRODUCTS = ("dot_general", "conv_general_dilated")
IMPLEMENTED = frozenset({"convolve", "convolve_kernel_gradient"})
"""Primitives of `aijax.models.convolution`, counted as the functions that they stand for."""
ELEMENTWISE = frozenset({
    "abs", "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp",
    "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt",
    "igamma", "igammac", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "nextafter", "polygamma", "pow", "regularized_incomplete_beta", "rem", "round", "rsqrt",
    "sign", "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh", "zeta", "bessel_i0e", "bessel_i1e",
})  # fmt: skip
REDUCTIONS = frozenset({"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin"})
CUMULATIVE = frozenset({"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})
UNCOUNTED = frozenset({
    "eig", "eigh", "svd", "schur", "hessenberg", "tridiagonal", "ragged_dot", "ragged_dot_general", "pallas_call",
    "ffi_call", "pure_callback", "dot_product_attention_fwd", "dot_product_attention_bwd",
})  # fmt: skip
"""Primitives with work that has no count here; a program that holds one lists it in `Flops.uncounted`."""


@dataclasses.dataclass(frozen=True)
class Flops:
    """Floating-point operations of one call.

    Attributes:
      by_primitive: operations of each primitive, largest first.
      uncounted: what the count leaves out or cannot know: primitives without a count, and "while" when a loop whose
        number of turns depends on data was counted as one turn.
    """

    by_primitive: dict[str, int]
    uncounted: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All operations."""
        return sum(self.by_primitive.values())

    @property
    def model(self) -> int:
        """Products of matrices and convolutions only: what "model FLOPs" of a utilisation (MFU) means."""
        return sum(self.by_primitive.get(name, 0) for name in PRODUCTS)


def count(function: Callable, *args: Any, **kwargs: Any) -> Flops:
    """Returns the operations of `function(*args, **kwargs)`.

    Args:
      function: anything that `jax.jit` compiles.
      *args: arrays, or shapes (`jax.ShapeDtypeStruct`).
      **kwargs: the same.

    >>> flops = count(lambda w, x: jax.nn.relu(x @ w).sum(), jnp.ones((4, 8)), jnp.ones((2, 4)))
    >>> flops.model, flops.total
    (128, 159)
    """
    return count_jaxpr(jax.make_jaxpr(function)(*args, **kwargs))


def count_jaxpr(jaxpr: ClosedJaxpr) -> Flops:
    """Returns the operations of a jaxpr, without those whose results are not used."""
    flops, uncounted = _count(jaxpr.jaxpr, (True,) * len(jaxpr.jaxpr.outvars))
    by_primitive = {name: number for name, number in flops.most_common() if number}
    return Flops(by_primitive, tuple(sorted(uncounted)))


def _count(jaxpr: Jaxpr, used_outputs: tuple[bool, ...]) -> tuple[Counter, set[str]]:
    """Returns `({primitive: operations}, uncounted)`; equations are visited backwards, from what is used."""
    outputs = zip(jaxpr.outvars, used_outputs, strict=True)
    used = {var for var, wanted in outputs if wanted and not isinstance(var, Literal)}
    total, uncounted = Counter(), set()
    for equation in reversed(jaxpr.eqns):
        mask = tuple(var in used for var in equation.outvars)
        if not any(mask) and not equation.effects:
            continue
        used.update(var for var in equation.invars if not isinstance(var, Literal))
        flops, unknown = _count_equation(equation, mask)
        total.update(flops)
        uncounted |= unknown
    return total, uncounted


def _count_equation(equation: JaxprEqn, mask: tuple[bool, ...]) -> tuple[Counter, set[str]]:
    name, params = equation.primitive.name, equation.params
    if name in UNCOUNTED:
        return Counter(), {name}
    if name in IMPLEMENTED:
        implementation = functools.partial(equation.primitive.impl, **params)
        shapes = [jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in equation.invars]
        return _count_all(jax.make_jaxpr(implementation)(*shapes))
    if name == "while":
        parts = [_count_all(params["cond_jaxpr"]), _count_all(params["body_jaxpr"])]
        flops, uncounted = _sum(parts)
        return flops, uncounted | {"while"}
    if name == "cond":
        branches = [_count_all(branch) for branch in params["branches"]]
        flops = max((flops for flops, _ in branches), key=Counter.total)
        return flops, set().union(*(unknown for _, unknown in branches))
    if name == "scan":
        return _times(params["length"], _count_all(params["jaxpr"]))
    if name == "custom_linear_solve":
        return _count_all(params["jaxprs"].solve)
    if name == "shard_map":
        devices = math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
        return _times(devices, _count(_open(params["jaxpr"]), mask))
    if name.startswith(("reduce", "scatter", "select_and")):
        return Counter({name: _count_primitive(equation)}), set()
    bodies = [_open(value) for value in params.values() if isinstance(value, (Jaxpr, ClosedJaxpr))]
    if bodies:
        whole = [len(body.outvars) != len(mask) for body in bodies]
        return _sum(
            [_count(b, (True,) * len(b.outvars) if all_ else mask) for b, all_ in zip(bodies, whole, strict=True)]
        )
    return Counter({name: _count_primitive(equation)}), set()


def _open(jaxpr: Jaxpr | ClosedJaxpr) -> Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr


def _count_all(jaxpr: Jaxpr | ClosedJaxpr) -> tuple[Counter, set[str]]:
    jaxpr = _open(jaxpr)
    return _count(jaxpr, (True,) * len(jaxpr.outvars))


def _sum(parts: list[tuple[Counter, set[str]]]) -> tuple[Counter, set[str]]:
    total, uncounted = Counter(), set()
    for flops, unknown in parts:
        total.update(flops)
        uncounted |= unknown
    return total, uncounted


def _times(number: int, part: tuple[Counter, set[str]]) -> tuple[Counter, set[str]]:
    flops, uncounted = part
    return Counter({name: number * value for name, value in flops.items()}), uncounted


def _count_primitive(equation: JaxprEqn) -> int:
    """Returns the operations of an equation that holds no other jaxpr."""
    name, params = equation.primitive.name, equation.params
    first = getattr(equation.invars[0], "aval", None) if equation.invars else None
    out = equation.outvars[0].aval
    if not hasattr(first, "dtype") or not jnp.issubdtype(first.dtype, jnp.inexact):
        return 0
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return _multiply_adds(first, math.prod(out.shape) * math.prod(first.shape[axis] for axis in contracted))
    if name == "conv_general_dilated":
        return _multiply_adds(
            first, _convolution_products(first.shape, equation.invars[1].aval.shape, out.shape, params)
        )
    if name in ELEMENTWISE:
        return math.prod(out.shape)
    if name in REDUCTIONS:
        return math.prod(first.shape) - math.prod(out.shape)
    if name in CUMULATIVE:
        return math.prod(first.shape)
    if name.startswith("reduce_window"):
        return math.prod(out.shape) * (math.prod(params["window_dimensions"]) - 1)
    if name in ("scatter-add", "scatter-mul", "scatter-min", "scatter-max", "scatter-sub"):
        return math.prod(equation.invars[2].aval.shape)
    return _count_factorization(name, first.shape, equation)


def _count_factorization(name: str, shape: tuple[int, ...], equation: JaxprEqn) -> int:
    """Returns the leading term of the textbook count (Golub and Van Loan 2013) for a stack of matrices, else 0."""
    if name not in ("cholesky", "lu", "geqrf", "triangular_solve"):
        return 0
    *batch, rows, columns = shape
    if name == "cholesky":
        each = rows**3 / 3
    elif name == "triangular_solve":
        sides = math.prod(equation.invars[1].aval.shape[-2:])
        each = sides * rows
    else:
        m, n = max(rows, columns), min(rows, columns)
        each = (m - n / 3) * n**2 * (1 if name == "lu" else 2)
    return round(math.prod(batch) * each)


def _multiply_adds(aval: Any, number: int) -> int:
    return number * (8 if jnp.issubdtype(aval.dtype, jnp.complexfloating) else 2)


def _convolution_products(lhs: tuple, rhs: tuple, out: tuple, params: dict[str, Any]) -> int:
    """Returns how many products of an input element with a kernel element a convolution takes."""
    numbers = params["dimension_numbers"]
    products = out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * rhs[numbers.rhs_spec[1]]
    for i, (stride, (low, _), spread, dilation) in enumerate(
        zip(params["window_strides"], params["padding"], params["lhs_dilation"], params["rhs_dilation"], strict=True)
    ):
        size, kernel, outputs = (
            shape[spec[2 + i]]
            for shape, spec in ((lhs, numbers.lhs_spec), (rhs, numbers.rhs_spec), (out, numbers.out_spec))
        )
        products *= count_pairs(size, kernel, outputs, stride=stride, low=low, spread=spread, dilation=dilation)
    return products


def count_pairs(
    size: int, kernel: int, outputs: int, *, stride: int = 1, low: int = 0, spread: int = 1, dilation: int = 1
) -> int:
    """Returns how often, along one axis of a convolution, a kernel element meets an input element that exists.

    Args:
      size: of the input.
      kernel: of the kernel.
      outputs: of the output.
      stride: of the window.
      low: padding before the first element.
      spread: distance between input elements (`lhs_dilation`).
      dilation: distance between kernel elements (`rhs_dilation`).

    >>> count_pairs(4, 3, 4, low=1)
    10
    """
    places = (o * stride + k * dilation - low for o in range(outputs) for k in range(kernel))
    return sum(place % spread == 0 and 0 <= place < size * spread for place in places)
