"""Empirical kernels of any function of parameters: the NTK of a finite network and the Gram matrix of its outputs.

The neural tangent kernel of f at the parameters theta (Jacot, Gabriel, Hongler 2018) is

    Theta[i, j, o, p] = sum over theta of  d f_o(x1_i) / d theta * d f_p(x2_j) / d theta

There are four ways to it (Novak, Sohl-Dickstein, Schoenholz 2022, "Fast finite width neural tangent kernel"):

- "jacobian": the Jacobians of both sides, then their product ("autodiff": the same without a rule for any product, all
  by automatic differentiation);
- "vector_products": a product of the kernel and a vector, J(x1) (J(x2)^T v), for each unit vector;
- "structured": for each product that a weight enters, activations and cotangents are paired without the Jacobian;
- "auto": for each parameter the order that costs least by count, and vector products where all of these cost more.

All give the same numbers. Where examples are independent, the outputs of an example are differentiated for it alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from aijax.errors import ConfigError, did_you_mean
from aijax.ntk.arguments import arrays, check_flag
from aijax.ntk.checks import check_alike, check_batch, check_params, output_shapes
from aijax.ntk.contract import einsum
from aijax.ntk.outputs import DIAGONAL, FULL, TRACED, Outputs, arrange
from aijax.ntk.tangent import ORDERS, Mapped, Tangent, count_examples, make_tangent, ntk, prefix_axes
from aijax.typing import Array, Params

MEMORY_LIMIT = 4 << 30
"""Bytes that pairing may hold in between, unless the caller says."""

Kinds = Callable[[tuple[int, ...]], Outputs]
"""Gives the axes of an output of some shape, that of examples among them."""


def empirical_ntk(
    apply_fn: Callable[[Params, Any], Any],
    params: Params,
    x1: Any,
    x2: Any = None,
    *,
    trace_outputs: bool = False,
    diagonal: bool = False,
    contraction: str = "auto",
    batch_independent: bool = True,
    memory_limit: int = MEMORY_LIMIT,
) -> Any:
    """Returns the neural tangent kernel of `apply_fn` between two batches.

    Args:
      apply_fn: any pure `apply_fn(params, x) -> y`; the first axis of `x` and of `y` is the example.
      params: tree of floating-point arrays.
      x1: array [n1, ...], or a tree of such.
      x2: the same with n2 examples; None for the kernel of x1 with itself, of which about half is computed.
      trace_outputs: gives the mean over equal outputs (the trace over the number of outputs) in place of all pairs.
      diagonal: pairs example i of x1 with example i of x2 alone.
      contraction: "auto", "jacobian", "autodiff", "vector_products" or "structured" (see the module).
      batch_independent: says that y[i] depends on x[i] alone, which is checked; false for batch statistics and the
        like: the whole batch is then differentiated at once, at n times the cost.
      memory_limit: bytes that pairing may hold in between; orders of contraction are chosen to keep it where one does.

    Returns:
      For outputs [n, o]: [n1, n2, o, o]; traced [n1, n2]; diagonal [n, o, o]; both [n]. Outputs with more axes have a
      pair of axes for each: [n1, n2, h, h', w, w', o, o']. A tree of outputs gives a tree of kernels, without terms
      between different outputs. Kernels of half-precision functions are float32.

    Raises:
      ConfigError: shapes that do not agree, parameters or outputs that are not floating-point, a function that is not
        pure or cannot be traced, examples that interact though independence was said, an unknown contraction,
        a memory limit that is not positive.

    >>> import jax.numpy as jnp
    >>> f = lambda params, x: x @ params["w"]
    >>> empirical_ntk(f, {"w": jnp.ones((3, 2))}, jnp.eye(3)[:2], trace_outputs=True).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return tangent_kernel(
        apply_fn,
        params,
        x1,
        x2,
        kinds=house_kinds(trace_outputs, diagonal),
        mapped=Mapped(0, 0) if batch_independent else None,
        contraction=contraction,
        memory_limit=memory_limit,
    )


def empirical_nngp(
    apply_fn: Callable[[Params, Any], Any],
    params: Params,
    x1: Any,
    x2: Any = None,
    *,
    trace_outputs: bool = False,
    diagonal: bool = False,
) -> Any:
    """Returns the products of outputs y(x1) y(x2)^T, of which the NNGP kernel is the mean over parameters.

    Arguments, shapes and errors are those of `empirical_ntk`.

    >>> import jax.numpy as jnp
    >>> empirical_nngp(lambda params, x: x @ params, jnp.ones((1, 2)), jnp.ones((3, 1)), trace_outputs=True).shape
    (3, 3)
    """
    return output_kernel(apply_fn, params, x1, x2, house_kinds(trace_outputs, diagonal))


def compute_ntk(apply_fn: Callable[[Params, Any], Any], params: Params, x1: Any, x2: Any = None) -> Any:
    """Returns the empirical tangent kernel [n1, n2, o, o], compiled; `empirical_ntk` with its defaults.

    >>> import jax.numpy as jnp
    >>> compute_ntk(lambda params, x: x @ params, jnp.ones((3, 2)), jnp.eye(3), jnp.eye(3)[:1]).shape
    (3, 1, 2, 2)
    """
    return jax.jit(functools.partial(empirical_ntk, apply_fn))(params, x1, x2)


def house_kinds(trace_outputs: bool, diagonal: bool) -> Kinds:
    """Returns the axes that `trace_outputs` and `diagonal` ask for: the first is the example."""
    check_flag("trace_outputs", trace_outputs)
    check_flag("diagonal", diagonal)

    def kinds(shape):
        if not shape:
            raise ConfigError("apply_fn: expected outputs with a first axis of examples, got a scalar")
        rest = TRACED if trace_outputs else FULL
        return Outputs(shape, (DIAGONAL if diagonal else FULL, *[rest] * (len(shape) - 1)))

    return kinds


def tangent_kernel(
    function: Callable[[Params, Any], Any],
    params: Params,
    inputs1: Any,
    inputs2: Any,
    *,
    kinds: Kinds,
    mapped: Mapped | None,
    contraction: str,
    memory_limit: int = MEMORY_LIMIT,
    where: str = "apply_fn",
) -> Any:
    """Returns the tangent kernel of each output of a function, checked; see `empirical_ntk` for what is refused.

    Args:
      function: `function(params, inputs) -> tree of arrays`.
      params: tree of floating-point arrays.
      inputs1: a batch: a tree of arrays.
      inputs2: another, or None for the first with itself.
      kinds: the kind of each axis of an output.
      mapped: the axes of independent examples, or None.
      contraction: a way of contraction.
      memory_limit: bytes that pairing may hold in between.
      where: what the function is called, for messages.
    """
    if not memory_limit > 0:
        raise ConfigError(f"memory_limit: expected a positive number of bytes, got {memory_limit}")
    params, inputs1, inputs2 = arrays("params", params), arrays("x1", inputs1), arrays("x2", inputs2)
    pairs, tree = tangents(function, params, inputs1, inputs2, kinds, mapped, contraction, where)
    kernels = [
        ntk(first, second, params, inputs1, inputs2, contraction=contraction, memory_limit=memory_limit)
        for first, second in pairs
    ]
    return jax.tree.unflatten(tree, kernels)


def tangents(
    function: Callable[[Params, Any], Any],
    params: Params,
    inputs1: Any,
    inputs2: Any,
    kinds: Kinds,
    mapped: Mapped | None,
    contraction: str,
    where: str,
) -> tuple[list[tuple[Tangent, Tangent]], Any]:
    """Returns each output of a function ready to be differentiated on both batches, and the tree that they make.

    Arguments are those of `tangent_kernel`, and here all of them are checked.
    """
    if contraction not in ORDERS:
        raise ConfigError(f"contraction: unknown value {contraction!r}{did_you_mean(str(contraction), ORDERS)}")
    check_params(params)
    check_alike(inputs1, inputs2, None if mapped is None else prefix_axes(mapped.in_axes, inputs1))
    shapes1 = output_shapes(function, params, inputs1, where)
    shapes2 = shapes1 if inputs2 is None else output_shapes(function, params, inputs2, where)
    if mapped is not None:
        check_batch(function, params, inputs1, mapped, shapes1, where)
    places = [None] * len(jax.tree.leaves(shapes1)) if mapped is None else prefix_axes(mapped.out_axes, shapes1)
    pairs = []
    for index, place in enumerate(places):
        output = functools.partial(output_of, function, index)
        outputs1, outputs2 = (kinds(jax.tree.leaves(shapes)[index].shape) for shapes in (shapes1, shapes2))
        first, second = make_pair(output, params, inputs1, inputs2, (outputs1, outputs2), mapped, place, contraction)
        if inputs2 is not None:
            check_paired(first, second, inputs1, inputs2)
        pairs.append((first, second))
    return pairs, jax.tree.structure(shapes1)


def check_paired(first: Tangent, second: Tangent, inputs1: Any, inputs2: Any) -> None:
    """Refuses outputs that differ in the size of an axis on which equal indices are paired."""
    sizes = [(count_examples(first, inputs1), count_examples(second, inputs2))] if not first.paired else []
    axes = zip(first.outputs.shape, second.outputs.shape, first.outputs.kinds, strict=True)
    sizes += [(a, b) for a, b, kind in axes if kind != FULL]
    for a, b in sizes:
        if a != b:
            raise ConfigError(f"x2: expected {a} along an axis on which equals are paired, as x1 has, got {b}")


def make_pair(output, params, inputs1, inputs2, outputs, mapped, place, contraction) -> tuple[Tangent, Tangent]:
    """Returns the function made ready for both batches; it is planned once where examples are mapped."""

    def make(inputs, axes, structured):
        mapping = None if mapped is None else Mapped(mapped.in_axes, place)
        return make_tangent(output, params, inputs, axes, mapping, structured=structured)

    first = make(inputs1, outputs[0], contraction != "autodiff")
    if mapped is not None or inputs2 is None:
        return first, first
    second = make(inputs2, outputs[1], contraction != "autodiff")
    if first.index == second.index:
        return first, second
    return make(inputs1, outputs[0], False), make(inputs2, outputs[1], False)


def output_of(function: Callable[[Params, Any], Any], index: int, params: Params, inputs: Any) -> Array:
    """Returns one leaf of a function's tree of outputs."""
    return jax.tree.leaves(function(params, inputs))[index]


def output_kernel(
    function: Callable[[Params, Any], Any],
    params: Params,
    inputs1: Any,
    inputs2: Any,
    kinds: Kinds,
    where: str = "apply_fn",
) -> Any:
    """Returns the products of a function's outputs for two batches, for each output (see `empirical_nngp`)."""
    inputs1, inputs2 = arrays("x1", inputs1), arrays("x2", inputs2)
    check_alike(inputs1, inputs2, None)
    for inputs in (inputs1,) if inputs2 is None else (inputs1, inputs2):
        output_shapes(function, params, inputs, where)
    y1 = function(params, inputs1)
    y2 = y1 if inputs2 is None else function(params, inputs2)

    def kernel(y1, y2):
        outputs1, outputs2 = kinds(y1.shape), kinds(y2.shape)
        for axis, kind in enumerate(outputs1.kinds):
            if kind != FULL and y1.shape[axis] != y2.shape[axis]:
                raise ConfigError(
                    f"x2: outputs {y1.shape} and {y2.shape} differ on axis {axis}, where equals are paired"
                )
        one, two = outputs1.grouped(y1), outputs2.grouped(y2)
        return arrange(einsum("fgh,Fgh->gfF", one, two)[:, None, :, None], outputs1, outputs2, None)

    return jax.tree.map(kernel, y1, y2)
