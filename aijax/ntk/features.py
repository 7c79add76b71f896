"""What each example contributes to an empirical kernel, before examples are paired.

The kernel is J(x1) J(x2)^T. For a parameter that enters one kind of product (`uses.py`) the row of J that belongs to an
example is kept as its factors, activations a [b, t, d] and cotangents c [outputs, b, t, k], of which the row is
sum_t a c; for any other parameter, and where it is cheaper in what follows, as the row itself.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from aijax.ntk.maxima import with_exact_maxima
from aijax.ntk.uses import Interpreter, Use, Weight, flat, map_uses, plain_value
from aijax.typing import Array, Params

WIDE = 4
"""Inputs over channels of a product from which on XLA:CPU forms rows sooner from cotangents that lie as they are."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a function of parameters and inputs is to be differentiated.

    Attributes:
      program: the function of the leaves of parameters and of inputs, as a jaxpr.
      uses: the nested list of uses of the parameters that have a rule (see `uses.Interpreter`).
      jacobian: indices of the parameters whose Jacobian automatic differentiation gives.
    """

    program: ClosedJaxpr
    uses: list
    jacobian: frozenset[int]

    @property
    def of_leaf(self) -> dict[int, list[Use]]:
        """The uses of each parameter."""
        found: dict[int, list[Use]] = {}
        for use in flat(self.uses):
            found.setdefault(use.leaf, []).append(use)
        return found


@functools.partial(jax.tree_util.register_dataclass, data_fields=["activations", "cotangents"], meta_fields=["inner"])
@dataclasses.dataclass(frozen=True)
class Factors:
    """A parameter's rows of the Jacobian as factors.

    Attributes:
      activations: [n, b, t, d], or indices [n, b, t] of one-hot vectors.
      cotangents: [n, f, g, h, b, t, k], of full, diagonal and traced outputs (see `outputs.Outputs`).
      inner: the size of `d`.
    """

    activations: Array
    cotangents: Array
    inner: int


Feature = Factors | Array
"""Factors, or rows of the Jacobian [n, f, g, h, p]."""


def plan(function: Callable[[Params, Any], Array], params: Params, x: Any, *, structured: bool) -> Plan:
    """Returns how to differentiate `function(params, x)`; with `structured` false all by automatic differentiation.

    Nothing is computed: the function is traced once.
    """
    program = with_exact_maxima(jax.make_jaxpr(function)(params, x))
    leaves = jax.tree.leaves(params)
    if not structured:
        return Plan(program, [], frozenset(range(len(leaves))))
    refused: frozenset[int] = frozenset()
    while True:
        interpreter = Interpreter()

        def trace(leaves, inputs, interpreter=interpreter, refused=refused):
            weights = [leaf if i in refused else Weight(i, leaf) for i, leaf in enumerate(leaves)]
            outputs = interpreter.run(program.jaxpr, program.consts, [*weights, *inputs])
            interpreter.refused |= {output.leaf for output in outputs if isinstance(output, Weight)}
            return [plain_value(output) for output in outputs]

        jax.eval_shape(trace, leaves, jax.tree.leaves(x))
        found = Plan(program, interpreter.uses, refused)
        mixed = {leaf for leaf, uses in found.of_leaf.items() if len({(use.form, use.axes[0]) for use in uses}) > 1}
        if interpreter.refused | mixed <= refused:
            return found
        refused |= interpreter.refused | mixed


def rows(plan: Plan, params: Params, x: Any, basis: Array) -> tuple[dict[int, tuple[Array, Array]], dict[int, Array]]:
    """Returns `({parameter: (activations, cotangents)}, {parameter: Jacobian})` of a planned function.

    Args:
      plan: how to differentiate.
      params: where to differentiate.
      x: the inputs.
      basis: [o, *outputs]: the outputs, as unit vectors, in the order in which cotangents are wanted.

    Returns:
      Activations [b, t, d] (or indices [b, t]), cotangents [o, b, t, k] and Jacobians [o, p].
    """
    leaves, inputs = jax.tree.leaves(params), jax.tree.leaves(x)

    def perturbed(perturbations, differentiated):
        interpreter = Interpreter(perturbations)
        weights = [differentiated[i] if i in differentiated else Weight(i, leaf) for i, leaf in enumerate(leaves)]
        (output,) = interpreter.run(plan.program.jaxpr, plan.program.consts, [*weights, *inputs])
        return output, interpreter.activations

    zeros = map_uses(lambda use: jnp.zeros(loop_shape(use) + use.product.shape, use.product.dtype), plan.uses)
    _, pull, activations = jax.vjp(perturbed, zeros, {i: leaves[i] for i in plan.jacobian}, has_aux=True)
    cotangents, jacobians = jax.vmap(pull)(basis)
    met: dict[int, list] = {}
    for use, a, c in zip(flat(plan.uses), flat(activations), flat(cotangents), strict=True):
        met.setdefault(use.leaf, []).append(aligned(use, a, c))
    factors = {
        leaf: (joined([a for a, _ in pairs], axis=1), joined([c for _, c in pairs], axis=2))
        for leaf, pairs in met.items()
    }
    return factors, {
        leaf: jacobian.reshape(len(basis), math.prod(jacobian.shape[1:])) for leaf, jacobian in jacobians.items()
    }


def joined(parts: Sequence[Array], axis: int) -> Array:
    """Returns arrays joined along an axis; one alone is not copied."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis)


def loop_shape(use: Use) -> tuple[int, ...]:
    """Returns the lengths of the scans around a use."""
    return tuple(length for length, _ in use.loops)


def aligned(use: Use, activations: Array, cotangents: Array) -> tuple[Array, Array]:
    """Returns activations [b, t, ...] and cotangents [o, b, t, k] of a use with the axes of its scans merged.

    A scan over slices of the weight adds to `b`, one that shares it adds to `t`.
    """
    c = use.product.arrange(cotangents)  # [o, *loops, b, t, k]
    if use.one_hot:
        c = c * use.scale
    else:
        activations = activations * use.scale
    loops = len(use.loops)
    stacked = [i for i, (_, own) in enumerate(use.loops) if own]
    shared = [i for i, (_, own) in enumerate(use.loops) if not own]

    def merge(x, lead):
        rest = range(lead + loops + 2, x.ndim)
        order = [*range(lead), *(lead + i for i in stacked), lead + loops, *(lead + i for i in shared)]
        x = x.transpose(*order, lead + loops + 1, *rest)
        b = math.prod(x.shape[lead : lead + len(stacked) + 1])
        t = math.prod(x.shape[lead + len(stacked) + 1 : lead + loops + 2])
        return x.reshape(*x.shape[:lead], b, t, *x.shape[lead + loops + 2 :])

    return merge(activations, 0), merge(c, 1)


def row_of(feature: Factors) -> Array:
    """Returns the rows of the Jacobian [n, f, g, h, p] that factors stand for; p is b k d, of rows looked up b d k."""
    a, c = feature.activations, feature.cotangents
    n, outputs, (b, t, k) = c.shape[0], c.shape[1:4], c.shape[4:]
    d, number = feature.inner, math.prod(outputs)
    if jnp.issubdtype(a.dtype, jnp.integer):
        rows = jnp.where(a < 0, d, a)  # what is out of bounds is dropped
        add = lambda c, rows: jnp.zeros((d, k), c.dtype).at[rows].add(c, mode="drop")  # noqa: E731
        of_example = jax.vmap(jax.vmap(add), in_axes=(0, None))  # over outputs, and over `b`
        return jax.vmap(of_example)(c.reshape(n, number, b, t, k), rows).reshape(n, *outputs, b * d * k)
    if d == 1 == k:  # a gain: a product of matrices, into which XLA does not merge, and repeat, what makes `c`
        return jnp.einsum("nfghbt,nbt->nfghb", c[..., 0], a[..., 0])
    if d == 1:
        return (c * a[:, None, None, None]).sum(5).reshape(n, *outputs, b * k)
    # a product of matrices whose result lies as it is needed, [n, b, (f g h k), d], summed over t: of cotangents with
    # their `t` side by side, or, as for convolutions with more inputs than channels to move, as they lie
    if d > WIDE * k:
        c = c.transpose(0, 4, 5, 1, 2, 3, 6).reshape(n, b, t, number * k)
        made = jax.lax.dot_general(c, a, (((2,), (2,)), ((0, 1), (0, 1))))
    else:
        made = c.transpose(0, 4, 1, 2, 3, 6, 5).reshape(n, b, number * k, t) @ a
    made = made.reshape(n, b, *outputs, k, d)
    return jnp.moveaxis(made, 1, 4).reshape(n, *outputs, b * k * d)
