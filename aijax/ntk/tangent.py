"""The tangent kernel of one function of parameters: plan, differentiate, pair, arrange.

A function of (params, inputs) has independent examples along declared axes of its inputs and its output, and is then
differentiated for each example alone; or none, and all that it gives counts as the output of one example.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aijax import flops
from aijax.errors import ConfigError
from aijax.ntk import contract
from aijax.ntk.features import Factors, Feature, Plan, plan, row_of, rows
from aijax.ntk.outputs import FULL, Outputs, arrange, without_axis
from aijax.ntk.vector_products import vector_products
from aijax.typing import Array, Params

ORDERS = {
    "auto": contract.ORDERS,
    "structured": ("outer", "mixed"),
    "jacobian": ("rows",),
    "autodiff": ("rows",),
    "vector_products": ("rows",),
}
"""The orders in which a way of contraction may pair a parameter's factors."""
REVERSE_PASS = 2
"""Forward passes that a reverse or a linearised pass costs."""


@dataclasses.dataclass(frozen=True)
class Mapped:
    """The axes of independent examples, of inputs and of outputs: prefixes of their trees; None where there is none."""

    in_axes: Any
    out_axes: Any


@dataclasses.dataclass(frozen=True)
class Tangent:
    """A function with one output, ready to be differentiated.

    Attributes:
      function: `function(params, inputs) -> array`; of one example where examples are mapped.
      mapped: the axes of examples, or None.
      outputs: the axes of the output (of one example where they are mapped).
      examples: position and kind of the axis of examples in the output, or None.
      plan: how it is differentiated.
    """

    function: Callable[[Params, Any], Array]
    mapped: Mapped | None
    outputs: Outputs
    examples: tuple[int, str] | None
    plan: Plan

    @property
    def paired(self) -> bool:
        """Whether every example of x1 meets every one of x2."""
        return self.examples is None or self.examples[1] == FULL

    @property
    def index(self) -> list[int]:
        """The parameters, in the order in which features list them."""
        return sorted(self.plan.of_leaf) + sorted(self.plan.jacobian)


def make_tangent(
    function: Callable[[Params, Any], Array],
    params: Params,
    inputs: Any,
    outputs: Outputs,
    mapped: Mapped | None,
    *,
    structured: bool,
) -> Tangent:
    """Returns a function ready to be differentiated.

    Args:
      function: `function(params, inputs) -> array`, of a batch.
      params: its parameters, or their shapes.
      inputs: its inputs, or their shapes.
      outputs: the axes of its output, that of examples among them.
      mapped: the axes of independent examples, or None.
      structured: whether to look for products that weights enter.
    """
    if mapped is None:
        return Tangent(function, None, outputs, None, plan(function, params, inputs, structured=structured))
    position = mapped.out_axes % len(outputs.shape)
    axes = prefix_axes(mapped.in_axes, inputs)

    def of_example(params, example):
        leaves, tree = jax.tree.flatten(example)
        batch = [x if axis is None else jnp.expand_dims(x, axis) for x, axis in zip(leaves, axes, strict=True)]
        return jnp.squeeze(function(params, jax.tree.unflatten(tree, batch)), position)

    example = jax.tree.unflatten(
        jax.tree.structure(inputs),
        [
            jax.ShapeDtypeStruct(x.shape if axis is None else removed(x.shape, axis), x.dtype)
            for x, axis in zip(jax.tree.leaves(inputs), axes, strict=True)
        ],
    )
    rest, kind = without_axis(outputs, position)
    found = plan(of_example, params, example, structured=structured)
    return Tangent(of_example, Mapped(axes, position), rest, (position, kind), found)


def prefix_axes(axes: Any, tree: Any) -> list[int | None]:
    """Returns the axis of each leaf of a tree, from a prefix of it, in which lists and tuples count as the same."""
    if axes is None or isinstance(axes, int):
        return [axes] * len(jax.tree.leaves(tree))
    of_axes, of_tree = (
        jax.tree.leaves(node, is_leaf=lambda part, node=node: part is not node) for node in (axes, tree)
    )
    if len(of_axes) != len(of_tree) or any(part is axes for part in of_axes):
        raise ConfigError(
            f"vmap_axes: expected numbers of axes in a tree like {jax.tree.structure(tree)}, got {axes!r}"
        )
    return [axis for part in zip(of_axes, of_tree, strict=True) for axis in prefix_axes(*part)]


def removed(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    """Returns a shape without one of its axes."""
    return tuple(size for i, size in enumerate(shape) if i != axis % len(shape))


def ntk(
    first: Tangent,
    second: Tangent,
    params: Params,
    inputs1: Any,
    inputs2: Any,
    *,
    contraction: str,
    memory_limit: int,
) -> Array:
    """Returns the kernel of two batches, its axes arranged.

    Args:
      first: the function, ready to be differentiated on batches like the first.
      second: the same for the second; where examples are mapped it is `first`.
      params: the parameters.
      inputs1: a batch.
      inputs2: another, or None for the first with itself.
      contraction: a key of `ORDERS`.
      memory_limit: bytes that pairing may hold in between.
    """
    symmetric = inputs2 is None
    if not first.index or first.outputs.number == 0 or second.outputs.number == 0:
        return no_kernel(first, second, inputs1, inputs1 if symmetric else inputs2)
    n1 = count_examples(first, inputs1)
    n2 = n1 if symmetric else count_examples(second, inputs2)
    limit = memory_limit / first.plan.program.out_avals[0].dtype.itemsize
    orders = choose_orders(first, n1, n2, contraction, limit)
    if contraction == "vector_products" or (
        contraction == "auto" and cost_of_products(first, n1, n2) < cost_of_features(first, n1, n2, orders)
    ):
        kernel = vector_products(first, second, params, inputs1, inputs1 if symmetric else inputs2, memory_limit)
    elif symmetric:
        found = features(first, params, inputs1, orders)
        kernel = contract.pair_with_itself(found, orders, paired=first.paired)
    else:
        one, two = both_features(first, second, params, inputs1, inputs2, orders)
        kernel = contract.pair(one, two, orders, paired=first.paired)
    return arrange(kernel, first.outputs, second.outputs, first.examples)


def no_kernel(first: Tangent, second: Tangent, inputs1: Any, inputs2: Any) -> Array:
    """Returns the kernel of outputs that no parameter moves, or of which there are none."""
    (f, g, _), (big, _, _) = first.outputs.groups, second.outputs.groups
    n1, n2 = count_examples(first, inputs1), count_examples(second, inputs2)
    dtype = jnp.promote_types(first.plan.program.out_avals[0].dtype, jnp.float32)
    empty = jnp.zeros((g, n1, f, n2, big) if first.paired else (g, n1, f, big), dtype)
    return arrange(empty, first.outputs, second.outputs, first.examples)


def count_examples(tangent: Tangent, inputs: Any) -> int:
    """Returns the number of examples in a batch; 1 where they are not mapped."""
    if tangent.mapped is None:
        return 1
    pairs = zip(jax.tree.leaves(inputs), tangent.mapped.in_axes, strict=True)
    return next(x.shape[axis] for x, axis in pairs if axis is not None)


def features(tangent: Tangent, params: Params, inputs: Any, orders: Sequence[str]) -> list[Feature]:
    """Returns what each example contributes for each parameter of `tangent.index`.

    A parameter whose order is "rows" is given as rows of the Jacobian, any other as factors.
    """
    basis = tangent.outputs.basis(tangent.plan.program.out_avals[0].dtype)

    def of_example(leaves):
        return rows(tangent.plan, params, leaves, basis)

    leaves = jax.tree.leaves(inputs)
    if tangent.mapped is None:
        factors, jacobians = jax.tree.map(lambda x: x[None], of_example(leaves))
    else:
        factors, jacobians = jax.vmap(of_example, in_axes=(tangent.mapped.in_axes,))(leaves)

    def grouped(x):
        return x.reshape(x.shape[0], *tangent.outputs.groups, *x.shape[2:])

    found: list[Feature] = []
    for leaf, order in zip(tangent.index, orders, strict=True):
        if leaf in jacobians:
            found.append(grouped(jacobians[leaf]))
            continue
        activations, cotangents = factors[leaf]
        feature = Factors(activations, grouped(cotangents), tangent.plan.of_leaf[leaf][0].axes[2])
        found.append(row_of(feature) if order == "rows" else feature)
    return found


def both_features(
    first: Tangent, second: Tangent, params: Params, inputs1: Any, inputs2: Any, orders: Sequence[str]
) -> tuple[list[Feature], list[Feature]]:
    """Returns the features of two batches, made in one pass where they can be joined into one batch."""
    leaves1, leaves2 = jax.tree.leaves(inputs1), jax.tree.leaves(inputs2)
    axes = None if first.mapped is None else first.mapped.in_axes
    if axes is None or None in axes or any(x.dtype != y.dtype for x, y in zip(leaves1, leaves2, strict=True)):
        return features(first, params, inputs1, orders), features(second, params, inputs2, orders)
    n = count_examples(first, inputs1)
    joined = [jnp.concatenate([x, y], axis) for x, y, axis in zip(leaves1, leaves2, axes, strict=True)]
    found = features(first, params, joined, orders)
    return jax.tree.map(lambda x: x[:n], found), jax.tree.map(lambda x: x[n:], found)


def choose_orders(tangent: Tangent, n1: int, n2: int, contraction: str, limit: float) -> list[str]:
    """Returns the order of contraction of each parameter of `tangent.index`."""
    of_leaf = tangent.plan.of_leaf
    orders = {
        leaf: contract.cheapest(
            sizes_of(tangent, leaf, n1, n2), ORDERS[contraction], limit, one_hot=uses[0].one_hot, paired=tangent.paired
        )
        for leaf, uses in sorted(of_leaf.items())
    }
    for leaf, uses in of_leaf.items():
        # a bias takes the Gram matrix of cotangents that its product's weight has already
        if len(uses) == 1 == len(of_leaf.get(uses[0].beside, ())) and orders[uses[0].beside] == "outer":
            orders[leaf] = "outer"
    return [*orders.values()] + ["rows"] * len(tangent.plan.jacobian)


def sizes_of(tangent: Tangent, leaf: int, n1: int, n2: int) -> contract.Sizes:
    """Returns the sizes of a parameter's factors; rows of the Jacobian are factors with one position and no `d`."""
    uses = tangent.plan.of_leaf.get(leaf)
    if uses is None:
        return contract.Sizes(n1, n2, *tangent.outputs.groups, 1, 1, 1, tangent.plan.program.in_avals[leaf].size)
    b, _, d, k = uses[0].axes
    return contract.Sizes(n1, n2, *tangent.outputs.groups, b, sum(use.axes[1] for use in uses), d, k)


def cost_of_features(tangent: Tangent, n1: int, n2: int, orders: Sequence[str]) -> float:
    """Returns the multiply-adds of differentiating both batches and of pairing them."""
    passes = 1 + REVERSE_PASS * tangent.outputs.number
    pairing = sum(
        contract.cost(
            order,
            sizes_of(tangent, leaf, n1, n2),
            one_hot=leaf in tangent.plan.of_leaf and tangent.plan.of_leaf[leaf][0].one_hot,
            paired=tangent.paired,
        )[0]
        for leaf, order in zip(tangent.index, orders, strict=True)
    )
    return (n1 + n2) * passes * forward_pass(tangent) + pairing


def cost_of_products(tangent: Tangent, n1: int, n2: int) -> float:
    """Returns the multiply-adds of a product of the kernel with each unit vector of the second batch's outputs."""
    vectors = n2 * tangent.outputs.number
    parameters = sum(aval.size for aval in tangent.plan.program.in_avals)
    against = n1 if tangent.paired else 1
    return vectors * (REVERSE_PASS * (1 + against) * forward_pass(tangent) + contract.MOVE * parameters)


def forward_pass(tangent: Tangent) -> float:
    """Returns the multiply-adds of the function for one example."""
    return flops.count_jaxpr(tangent.plan.program).total / 2
