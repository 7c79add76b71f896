"""Where a function uses its parameters linearly, and how to perturb what it makes of them there.

Structured derivatives (Novak, Sohl-Dickstein, Schoenholz 2022, "Fast finite width neural tangent kernel", section 3.3)
rest on this: where a weight W enters a product y = L(a) W (a dense layer, a convolution, a row of an embedding), the
derivative of an output f by W is L(a)^T (df/dy). It is known from the activations `a`, which carry no output axis, and
the cotangents `df/dy`, which carry no axis of the weight; the Jacobian df/dW, with both, is not needed.

A function is read as a jaxpr and run equation by equation. A parameter travels as a `Weight` through what only
rearranges it, and into the product that is its use; there a perturbation is added to the product, whose cotangent is
df/dy, and the activations are noted. Calls are followed (`jit`, `jax.checkpoint`, `lax.scan`). A parameter that is used
in any other way, or twice in different ways, is left to automatic differentiation: its Jacobian is right whatever the
function does with it.

Activations are noted in one form, [b, t, d]: `b` axes that the weight shares with them, `t` positions that share the
weight, `d` contracted. The weight is then [b, d, k] and the product [b, t, k].
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from aijax.jaxprs import CALLS, evaluate, opened, scan_parts
from aijax.ntk.products import Product, product
from aijax.typing import Array

UNCHANGED = {"copy", "copy_p", "sharding_constraint", "name", "convert_element_type", "optimization_barrier", "tap"}
REARRANGED = {
    "reshape": ("new_sizes",),
    "transpose": ("permutation",),
    "squeeze": ("dimensions",),
    "expand_dims": ("dimensions",),
    "rev": ("dimensions",),
    "slice": ("start_indices", "limit_indices", "strides"),
    "broadcast_in_dim": ("shape", "broadcast_dimensions"),
}
"""Primitives that only move (or leave out) the elements of a weight, with the parameters that say how."""


@dataclasses.dataclass(frozen=True)
class Weight:
    """A parameter on its way to where it is used: `value` is `scale` times a rearrangement of parameter `leaf`."""

    leaf: int
    value: Array
    form: tuple = ()
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Use:
    """A product that a weight enters.

    Attributes:
      leaf: the parameter's index.
      form: how the weight was rearranged, and which of its axes play which part; uses of one parameter can be
        contracted together when these agree.
      product: the shape of the product and how to bring its cotangents to [b, t, k].
      scale: the factor between the weight and the parameter.
      loops: for each enclosing scan, outermost first, `(length, stacked)`: whether each turn has a slice of the weight.
      beside: the parameter to whose product this one is added, if it is: both have the same cotangents.
    """

    leaf: int
    form: tuple
    product: Product
    scale: float
    loops: tuple[tuple[int, bool], ...] = ()
    beside: int | None = None

    @property
    def one_hot(self) -> bool:
        """Whether the activations are rows looked up."""
        return self.product.roles[0] == "rows"

    @property
    def axes(self) -> tuple[int, int, int, int]:
        """The sizes (b, t, d, k) with the scans counted in."""
        b, t, d, k = self.product.axes
        own = math.prod(length for length, stacked in self.loops if stacked)
        shared = math.prod(length for length, stacked in self.loops if not stacked)
        return b * own, t * shared, d, k


class Interpreter:
    """Runs a jaxpr whose inputs may be weights, perturbing and noting every use.

    After a run `uses` and `activations` list what was met, in order, the uses of a scan as a nested list whose arrays
    have the scan's axis in front; `refused` holds the parameters that are used in a way that has no rule.
    """

    def __init__(self, perturbations: Sequence[Any] | None = None):
        self.uses: list = []
        self.activations: list = []
        self.refused: set[int] = set()
        self._perturbations = None if perturbations is None else iter(perturbations)
        self._products: dict[int, tuple[Array, int]] = {}  # by their identity, and kept so that it stays theirs

    def run(self, jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        """Returns the outputs of `jaxpr`; an output may be a weight."""
        values = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, inputs, strict=True))

        def read(var):
            return var.val if isinstance(var, Literal) else values[var]

        for equation in jaxpr.eqns:
            outputs = self._equation(jaxpr, equation, [read(var) for var in equation.invars])
            values.update(zip(equation.outvars, outputs, strict=True))
        return [read(var) for var in jaxpr.outvars]

    def _equation(self, jaxpr: Jaxpr, equation: JaxprEqn, inputs: list[Any]) -> list[Any]:
        name = equation.primitive.name
        weights = [x for x in inputs if isinstance(x, Weight)]
        if not weights:
            return evaluate(jaxpr, equation, inputs)
        if name in CALLS:
            return self.run(*opened(equation.params[CALLS[name]]), inputs)
        if name == "scan":
            return self._scan(equation, inputs)
        plain = [plain_value(x) for x in inputs]
        if len(weights) == 1:
            moved = rearranged(equation, inputs, lambda: evaluate(jaxpr, equation, plain)[0])
            if moved is not None:
                return [moved]
            position = next(i for i, x in enumerate(inputs) if isinstance(x, Weight))
            found = product(equation, plain, position)
            if found is not None:
                activations, described = found
                weight = weights[0]
                beside = None
                if described.roles[0] == "bias":
                    _, beside = self._products.get(id(inputs[1 - position]), (None, None))
                form = (*weight.form, described.roles)
                self.uses.append(Use(weight.leaf, form, described, weight.scale, beside=beside))
                self.activations.append(activations)
                (y,) = evaluate(jaxpr, equation, plain)
                y = y if self._perturbations is None else y + next(self._perturbations)
                self._products[id(y)] = y, weight.leaf
                return [y]
        self.refused |= {weight.leaf for weight in weights}
        return evaluate(jaxpr, equation, plain)

    def _scan(self, equation: JaxprEqn, inputs: list[Any]) -> list[Any]:
        """Runs a scan whose body notes its uses: of constants (shared by the turns) and of slices (a turn's own)."""
        params = equation.params
        body, body_consts = opened(params["jaxpr"])
        consts, carries = scan_parts(equation, body)
        constants, carry, stacked = inputs[:consts], inputs[consts : consts + carries], inputs[consts + carries :]
        self.refused |= {x.leaf for x in carry if isinstance(x, Weight)}
        inner_perturbations = None if self._perturbations is None else next(self._perturbations)
        inner: list[Interpreter] = []

        def turn(carry, xs):
            slices, perturbations = xs
            slices = [
                dataclasses.replace(x, value=value, form=(*x.form, "turn")) if isinstance(x, Weight) else value
                for x, value in zip(stacked, slices, strict=True)
            ]
            inner[:] = [Interpreter(perturbations)]
            outputs = inner[0].run(body, body_consts, [*constants, *carry, *slices])
            inner[0].refused |= {x.leaf for x in outputs if isinstance(x, Weight)}
            outputs = [plain_value(x) for x in outputs]
            return outputs[:carries], (outputs[carries:], inner[0].activations)

        carry, (outputs, activations) = jax.lax.scan(
            turn,
            [plain_value(x) for x in carry],
            ([plain_value(x) for x in stacked], inner_perturbations),
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
        own = {x.leaf for x in stacked if isinstance(x, Weight)}
        shared = {x.leaf for x in constants if isinstance(x, Weight)}
        self.refused |= inner[0].refused | (own & shared)
        self.uses.append(map_uses(lambda use: in_loop(use, params["length"], use.leaf in own), inner[0].uses))
        self.activations.append(activations)
        return [*carry, *outputs]


def plain_value(x: Any) -> Array:
    """Returns the array that a weight, or an array, stands for."""
    return x.value if isinstance(x, Weight) else x


def rearranged(equation: JaxprEqn, inputs: list[Any], value: Callable[[], Array]) -> Weight | None:
    """Returns the weight that an equation makes of one by moving its elements or by a constant factor, else None."""
    name = equation.primitive.name
    weight = next(x for x in inputs if isinstance(x, Weight))
    if name in UNCHANGED and len(inputs) == 1:
        if not jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating):
            return None
        return dataclasses.replace(weight, value=value())
    if name in REARRANGED and len(inputs) == 1:
        if name == "broadcast_in_dim" and math.prod(equation.params["shape"]) != weight.value.size:
            return None
        step = (name, *(freeze(equation.params[key]) for key in REARRANGED[name]))
        return dataclasses.replace(weight, value=value(), form=(*weight.form, step))
    if name == "neg":
        return dataclasses.replace(weight, value=value(), scale=-weight.scale)
    if name in ("mul", "div"):
        other = next((var for var in equation.invars if isinstance(var, Literal)), None)
        if other is None or (name == "div" and other is equation.invars[0]):
            return None
        factor = float(other.val) if name == "mul" else 1 / float(other.val)
        return dataclasses.replace(weight, value=value(), scale=weight.scale * factor)
    return None


def in_loop(use: Use, length: int, stacked: bool) -> Use:
    """Returns the use as seen from outside of a scan."""
    return dataclasses.replace(use, loops=((length, stacked), *use.loops))


def map_uses(function: Callable[[Use], Any], uses: Sequence[Any]) -> list[Any]:
    """Returns the nested list of `function(use)`."""
    return [map_uses(function, use) if isinstance(use, list) else function(use) for use in uses]


def flat(nested: Sequence[Any]) -> list[Any]:
    """Returns the leaves of a nested list in order."""
    return [leaf for item in nested for leaf in (flat(item) if isinstance(item, list) else [item])]


def freeze(value: Any) -> Any:
    """Returns a parameter of an equation as something that can be compared and hashed."""
    return tuple(map(freeze, value)) if isinstance(value, list | tuple) else value
