"""The empirical tangent kernel split in two, for kernels in blocks: what one example needs, and what a pair needs.

Differentiating an example is most of the work. `kernel_blocks` does it once for each row of blocks when the kernel is a
`FactoredKernel`, and then pairs what was made.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from aijax.errors import ConfigError
from aijax.ntk import contract
from aijax.ntk.arguments import arrays
from aijax.ntk.block_programs import FactoredKernel
from aijax.ntk.empirical import MEMORY_LIMIT, house_kinds, tangents
from aijax.ntk.features import Feature
from aijax.ntk.outputs import FULL, Outputs, arrange
from aijax.ntk.tangent import Mapped, choose_orders, features
from aijax.typing import Params

BLOCK_ROWS = 32
"""Rows of a block for which orders of contraction are chosen: two blocks must agree on them, whatever their sizes."""


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["features"], meta_fields=["orders", "outputs", "position"]
)
@dataclasses.dataclass(frozen=True)
class Differentiated:
    """One output of a batch, differentiated.

    Attributes:
      features: for each parameter, what each example contributes.
      orders: the order in which each is to be contracted.
      outputs: the axes of the output of one example.
      position: where the axis of examples stands among them.
    """

    features: list[Feature]
    orders: tuple[str, ...]
    outputs: Outputs
    position: int


def factored_ntk(
    apply_fn: Callable[[Params, Any], Any],
    *,
    trace_outputs: bool = False,
    contraction: str = "auto",
    memory_limit: int = MEMORY_LIMIT,
) -> FactoredKernel:
    """Returns the `FactoredKernel` of the empirical NTK: `kernel(x1, x2, params)`, for `kernel_blocks`.

    Args:
      apply_fn: as in `empirical_ntk`; examples are independent.
      trace_outputs: as there.
      contraction: "auto", "jacobian" or "structured".
      memory_limit: as there.

    Raises:
      ConfigError: vector products; when it is called, what `empirical_ntk` refuses.

    >>> import jax.numpy as jnp
    >>> from aijax.ntk import kernel_blocks
    >>> kernel = factored_ntk(lambda params, x: x @ params, trace_outputs=True)
    >>> kernel_blocks(kernel, jnp.eye(4), kernel_args=(jnp.ones((4, 2)),), block_size=2).shape
    (4, 4)
    """

    if contraction == "vector_products":
        raise ConfigError("contraction: 'vector_products' has no features of one example; expected another")

    def features_fn(x: Any, params: Params) -> Any:
        params, x = arrays("params", params), arrays("x", x)
        kinds, mapped = house_kinds(trace_outputs, False), Mapped(0, 0)
        pairs, tree = tangents(apply_fn, params, x, None, kinds, mapped, contraction, "apply_fn")
        made = []
        for tangent, _ in pairs:
            limit = memory_limit / tangent.plan.program.out_avals[0].dtype.itemsize
            orders = choose_orders(tangent, BLOCK_ROWS, BLOCK_ROWS, contraction, limit)
            found = features(tangent, params, x, orders)
            made.append(Differentiated(found, tuple(orders), tangent.outputs, tangent.examples[0]))
        return jax.tree.unflatten(tree, made)

    def pair_fn(first: Any, second: Any, params: Params) -> Any:
        del params

        def pair(one: Differentiated, two: Differentiated):
            kernel = contract.pair(one.features, two.features, one.orders)
            return arrange(kernel, one.outputs, two.outputs, (one.position, FULL))

        return jax.tree.map(pair, first, second, is_leaf=lambda x: isinstance(x, Differentiated))

    def diagonal_fn(first: Any, params: Params) -> Any:
        del params

        def pair(one: Differentiated):
            kernel = contract.pair_with_itself(one.features, one.orders)
            return arrange(kernel, one.outputs, one.outputs, (one.position, FULL))

        return jax.tree.map(pair, first, is_leaf=lambda x: isinstance(x, Differentiated))

    return FactoredKernel(features_fn, pair_fn, diagonal_fn)
