"""The sum over a parameter of products of two examples' derivatives, in the cheapest order.

For the factors of `features.Factors` the kernel's part of one parameter is

    K[i, f, j, F] = sum over b, t, s, d, k of  a1[i, b, t, d] a2[j, b, s, d] c1[i, f, b, t, k] c2[j, F, b, s, k]

(and the diagonal outputs g, the traced outputs h carried along). Three orders are worth considering:

- "rows": sum over t first, which makes the rows of the Jacobian, then a product of matrices;
- "outer": a1 a2 and c1 c2 first, each a Gram matrix over positions, then their sum;
- "mixed": a1 a2, then times c2, then times c1.

Novak, Sohl-Dickstein, Schoenholz 2022, table 1, has "rows" as Jacobian contraction and "outer" as structured
derivatives. Costs are counted in multiply-adds, with the numbers written and read in between at what moving one costs.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aijax.ntk.features import Factors, Feature
from aijax.typing import Array

MOVE = 16.0
"""Multiply-adds in the time of writing and reading one number."""
TRANSPOSE = 4.0
"""Times that `MOVE` is spent on a number whose neighbours are to be others."""
ORDERS = ("rows", "outer", "mixed")
SYMMETRIC_CUTS = 4
"""Blocks of rows of which a symmetric kernel's upper triangle is made."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a parameter's factors: examples, outputs (full, diagonal, traced) and the product's axes."""

    n1: int
    n2: int
    f: int
    g: int
    h: int
    b: int
    t: int
    d: int
    k: int

    @property
    def o(self) -> int:
        """Outputs together."""
        return self.f * self.g * self.h


def cost(order: str, s: Sizes, *, one_hot: bool = False, paired: bool = True) -> tuple[float, float]:
    """Returns `(multiply-adds, numbers held in between)` of an order of contraction.

    Args:
      order: one of `ORDERS`.
      s: the sizes.
      one_hot: the activations are rows looked up, so that their Gram matrix costs a comparison an entry.
      paired: every example of x1 with every one of x2, else each with its own.
    """
    n = s.n1 * s.n2 if paired else s.n1
    pairs = n * s.f * s.o  # of examples and outputs; f * f * g * h of each pair
    gram = n * s.b * s.t * s.t * (1 if one_hot else s.d)
    gram_size = n * s.b * s.t * s.t
    if order == "rows":
        held = (s.n1 + s.n2) * s.o * s.b * s.d * s.k
        work = held * (1 if one_hot else s.t) + pairs * s.b * s.d * s.k
    elif order == "outer":
        held = gram_size + pairs * s.b * s.t * s.t
        work = gram + pairs * s.b * s.t * s.t * s.k
    else:
        between = n * s.o * s.b * s.t * s.k
        held = gram_size + between
        work = gram + between * s.t + pairs * s.b * s.t * s.k + TRANSPOSE * MOVE * between
    return work + MOVE * held, held


def cheapest(s: Sizes, orders: Sequence[str], limit: float, *, one_hot: bool = False, paired: bool = True) -> str:
    """Returns the cheapest order that holds at most `limit` numbers; if none does, the one that holds least."""
    costs = {order: cost(order, s, one_hot=one_hot, paired=paired) for order in orders}
    fitting = [order for order, (_, held) in costs.items() if held <= limit]
    if fitting:
        return min(fitting, key=lambda order: costs[order][0])
    return min(costs, key=lambda order: costs[order][1])


def pair(first: Sequence[Feature], second: Sequence[Feature], orders: Sequence[str], *, paired: bool = True) -> Array:
    """Returns the kernel [g, i, f, j, F] of two batches, summed over parameters and over traced outputs.

    Args:
      first: the features of each parameter for x1.
      second: the same for x2; equal in all but the number of examples.
      orders: "outer" or "mixed" for each parameter that is kept as factors.
      paired: if false, example i is paired with example i alone: [g, i, f, F].
    """
    total = None
    for one, two, order in zip(first, second, orders, strict=True):
        part = part_of(one, two, order, paired)
        total = part if total is None else total + part
    return total


def pair_with_itself(features: Sequence[Feature], orders: Sequence[str], *, paired: bool = True) -> Array:
    """Returns `pair(features, features, ...)`; about half of the symmetric kernel is computed, half is mirrored."""
    if not paired:
        return pair(features, features, orders, paired=False)
    n = jax.tree.leaves(features)[0].shape[0]
    cuts = [round(n * i / SYMMETRIC_CUTS) for i in range(SYMMETRIC_CUTS + 1)] if n >= 2 * SYMMETRIC_CUTS else [0, n]
    above: list[Array] = []
    for start, stop in itertools.pairwise(cuts):
        rows, rest = (jax.tree.map(lambda x, at=at: x[at], features) for at in (slice(start, stop), slice(start, n)))
        above.append(pair(rows, rest, orders))
    lines = []
    for index, block in enumerate(above):
        start, stop = cuts[index], cuts[index + 1]
        left = [
            earlier[:, :, :, start - cuts[i] : stop - cuts[i]].transpose(0, 3, 4, 1, 2)
            for i, earlier in enumerate(above[:index])
        ]
        lines.append(jnp.concatenate([*left, block], axis=3))
    return jnp.concatenate(lines, axis=1)


def part_of(one: Feature, two: Feature, order: str, paired: bool) -> Array:
    """Returns one parameter's part of the kernel."""
    j = "j" if paired else "i"
    out = "gifjF" if paired else "gifF"
    if not isinstance(one, Factors):
        return einsum(f"ifghp,{j}Fghp->{out}", one, two)
    gram = activation_gram(one, two, j)
    lead = f"i{j}bts" if paired else "ibts"
    if order == "outer":
        among = f"b{out}ts" if one.cotangents.shape[5] > 1 else f"{out}bts"
        outer = einsum(f"ifghbtk,{j}Fghbsk->{among}", one.cotangents, two.cotangents)
        return einsum(f"{lead},{among}->{out}", gram, outer)
    across = f"{j}itFghbk" if paired else "itFghbk"
    mixed = einsum(f"{lead},{j}Fghbsk->{across}", gram, two.cotangents)
    return einsum(f"ifghbtk,{across}->{out}", one.cotangents, mixed)


def activation_gram(one: Factors, two: Factors, j: str) -> Array:
    """Returns the Gram matrix of two batches' activations, [i, j, b, t, s] or, for j = "i", [i, b, t, s]."""
    lead = "ijbts" if j == "j" else "ibts"
    if not jnp.issubdtype(one.activations.dtype, jnp.integer):
        return einsum(f"ibtd,{j}bsd->{lead}", one.activations, two.activations)
    rows, others = one.activations[..., :, None], two.activations[..., None, :]
    if j == "j":
        rows, others = rows[:, None], others[None]
    return ((rows == others) & (rows >= 0)).astype(one.cotangents.dtype)


def einsum(spec: str, *operands: Array) -> Array:
    """Returns `jnp.einsum`, summed in float32 or better, with axes of size 1 left out of the product.

    XLA would carry such an axis as one of a batch of products. What is not summed is multiplied element by element.
    """
    inputs, output = spec.split("->")
    terms = inputs.split(",")
    size = {label: n for term, x in zip(terms, operands, strict=True) for label, n in zip(term, x.shape, strict=True)}
    dtype = jnp.promote_types(jnp.result_type(*operands), jnp.float32)
    if 0 in size.values():
        return jnp.zeros([size[label] for label in output], dtype)
    terms = ["".join(label for label in term if size[label] > 1) for term in terms]
    kept = "".join(label for label in output if size[label] > 1)
    operands = [x.reshape([n for n in x.shape if n > 1]) for x in operands]
    if set("".join(terms)) == set(kept):
        product = functools.reduce(
            jnp.multiply, [spread(x, term, kept) for x, term in zip(operands, terms, strict=True)]
        )
        return product.astype(dtype).reshape([size[label] for label in output])
    if len(operands) == 2 and gram_like(*terms, kept):
        rows = [
            x.reshape(-1, math.prod(n for label, n in zip(term, x.shape, strict=True) if label not in kept))
            for x, term in zip(operands, terms, strict=True)
        ]
        result = jnp.matmul(rows[0], rows[1].T, preferred_element_type=dtype)
    else:
        result = jnp.einsum(f"{','.join(terms)}->{kept}", *operands, preferred_element_type=dtype)
    return result.reshape([size[label] for label in output])


def gram_like(one: str, two: str, output: str) -> bool:
    """Returns whether a product is of matrices as they lie: free axes first, then those summed, in one order."""
    free = len(output) - len([label for label in two if label in output])
    summed = one[free:]
    return bool(summed) and one[:free] + two.removesuffix(summed) == output and two.endswith(summed)


def spread(x: Array, term: str, output: str) -> Array:
    """Returns `x` with axes `term` as one that broadcasts against axes `output`."""
    x = x.transpose([term.index(label) for label in output if label in term])
    return jnp.expand_dims(x, [i for i, label in enumerate(output) if label not in term])
