"""How functions are read as jaxprs and run again, with a stop at each tap that is wanted.

`jit`, `jax.checkpoint` and `lax.scan` are followed. A walk keeps them as they are, or unrolls them, so that who stops
may remember values from one stop to the next.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from aijax.errors import ConfigError, UnsupportedError
from aijax.jaxprs import CALLS, evaluate, opened, scan_parts
from aijax.taps import TAP, asking
from aijax.typing import Any


def trace(apply_fn, patterns, args, kwargs):
    """Returns the program of a function with all its taps, and the structure of its output."""
    apply_fn = unjitted(apply_fn)
    with asking(patterns):
        program, output = jax.make_jaxpr(lambda *args: apply_fn(*args, **kwargs), return_shape=True)(*args)
    return program, jax.tree.structure(output)


def unjitted(apply_fn: Callable) -> Callable:
    """Returns the function that was compiled, if one was: its trace without taps may be remembered."""
    return apply_fn.__wrapped__ if isinstance(apply_fn, jax.stages.Wrapped) else apply_fn


def names_in(jaxpr: Jaxpr) -> list[str]:
    """Returns the names of the taps of a program, in the order of their making."""
    return [name for equation in jaxpr.eqns for name in _names_at(equation)]


def compiled(names: str | Sequence[str]) -> list[re.Pattern]:
    """Returns the patterns, or raises a `ConfigError` that names the one that is none."""
    patterns = []
    for name in [names] if isinstance(names, str) else names:
        try:
            patterns.append(re.compile(name))
        except (re.error, TypeError) as error:
            raise ConfigError(f"names: expected a regular expression, got {name!r}: {error}") from None
    return patterns


@dataclass(frozen=True)
class Walk:
    """Runs a jaxpr, stopping at the taps that are wanted; all else is evaluated as it stands.

    `site(name, value, feed, turn)` gives what is to take the place of a value, and what is noted; feeds are given by
    name as values are noted, and `turn` is `(number, count)` in a scan and else None.
    """

    site: Callable
    wanted: set[str]

    def run(self, jaxpr: Jaxpr, consts: Sequence, inputs: Sequence, feeds: Mapping[str, Sequence], turn: Any):
        """Returns the outputs, and `{name: [what was noted, in the order of making]}`."""
        values = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, inputs, strict=True))
        noted: dict[str, list] = {}

        def read(var):
            return var.val if isinstance(var, Literal) else values[var]

        for equation in jaxpr.eqns:
            here = [read(var) for var in equation.invars]
            if self.stops(equation):
                left = {name: given[len(noted.get(name, ())) :] for name, given in feeds.items()}
                outputs, more = self._follow(equation, here, left, turn)
                for name, found in more.items():
                    noted.setdefault(name, []).extend(found)
            else:
                outputs = self._evaluate(jaxpr, equation, here)
            values.update(zip(equation.outvars, outputs, strict=True))
        return [read(var) for var in jaxpr.outvars], noted

    def _evaluate(self, jaxpr: Jaxpr, equation: JaxprEqn, inputs: Sequence) -> list:
        return evaluate(jaxpr, equation, inputs)

    def stops(self, equation: JaxprEqn) -> bool:
        """Returns whether an equation is a tap that is wanted, or holds one."""
        if equation.primitive is TAP:
            return equation.params["name"] in self.wanted
        return any(self.stops(inner) for body in jaxprs_in_params(equation.params) for inner in body.eqns)

    def _follow(self, equation, inputs, feeds, turn):
        kind, params = equation.primitive.name, equation.params
        if equation.primitive is TAP:
            name = params["name"]
            value, found = self.site(name, inputs[0], feeds[name][0] if name in feeds else None, turn)
            return [value], {name: [found]}
        if kind in ("remat2", "checkpoint"):
            again = jax.checkpoint(
                lambda feeds, *inputs: self.run(*opened(params["jaxpr"]), inputs, feeds, turn),
                prevent_cse=params["prevent_cse"],
                policy=params["policy"],
            )
            return again(feeds, *inputs)
        if kind in CALLS:
            return self.run(*opened(params[CALLS[kind]]), inputs, feeds, turn)
        if kind == "scan":
            return self._scan(equation, inputs, feeds)
        if kind == "cond":
            branches = [self._branch(kind, branch, turn) for branch in params["branches"]]
            return jax.lax.switch(inputs[0], branches, *inputs[1:]), {}
        if kind == "while":
            return self._while(params, inputs, turn), {}
        names = sorted(set(_names_at(equation)) & self.wanted)
        raise UnsupportedError(f"{names[0]}: it lies within {kind}, which is not followed")

    def _scan(self, equation, inputs, feeds):
        params = equation.params
        body, body_consts = opened(params["jaxpr"])
        consts, carries = scan_parts(equation, body)
        constants, carry, stacked = inputs[:consts], inputs[consts : consts + carries], inputs[consts + carries :]
        own = set(names_in(body)) & self.wanted

        def step(carry, xs):
            slices, feeds, number = xs
            turn = number, params["length"]
            outputs, noted = self.run(body, body_consts, [*constants, *carry, *slices], feeds, turn)
            return outputs[:carries], (outputs[carries:], noted)

        xs = stacked, {name: feeds[name] for name in own if name in feeds}, jnp.arange(params["length"])
        options = {name: params[name] for name in ("length", "reverse", "unroll")}
        carry, (outputs, noted) = jax.lax.scan(step, list(carry), xs, **options)
        return [*carry, *outputs], noted

    def _while(self, params, inputs, turn):
        tests, constants = params["cond_nconsts"], params["body_nconsts"]
        test, body = (self._branch("while", params[name], turn) for name in ("cond_jaxpr", "body_jaxpr"))
        first, second, start = inputs[:tests], inputs[tests : tests + constants], inputs[tests + constants :]
        return jax.lax.while_loop(lambda x: test(*first, *x)[0], lambda x: body(*second, *x), list(start))

    def _branch(self, kind: str, body: ClosedJaxpr, turn: Any) -> Callable:
        def run(*inputs):
            outputs, noted = self.run(*opened(body), inputs, {}, turn)
            for name, found in noted.items():
                if jax.tree.leaves(found):
                    raise UnsupportedError(f"{name}: it lies within {kind}, where a value may never be made, or often")
            return outputs

        return run


class UnrolledWalk(Walk):
    """A walk whose `site` may remember values: turns of a scan come one after the other, and checkpoints are opened.

    What a checkpoint would compute again in the backward pass is kept.
    """

    def _follow(self, equation, inputs, feeds, turn):
        kind = equation.primitive.name
        if kind == "scan":
            return self._unrolled(equation, inputs)
        if equation.primitive is TAP:
            return super()._follow(equation, inputs, feeds, turn)
        if kind in CALLS:
            return self.run(*opened(equation.params[CALLS[kind]]), inputs, feeds, turn)
        names = sorted(set(_names_at(equation)) & self.wanted)
        raise UnsupportedError(f"{names[0]}: it lies within {kind}, which is not followed here")

    def _unrolled(self, equation, inputs):
        params = equation.params
        body, body_consts = opened(params["jaxpr"])
        consts, carries = scan_parts(equation, body)
        constants, carry, stacked = inputs[:consts], inputs[consts : consts + carries], inputs[consts + carries :]
        count, rows, noted = params["length"], {}, {}
        for number in reversed(range(count)) if params["reverse"] else range(count):
            slices = [self._row(x, number) for x in stacked]
            outputs, more = self.run(body, body_consts, [*constants, *carry, *slices], {}, (number, count))
            carry, rows[number] = outputs[:carries], outputs[carries:]
            for name, found in more.items():
                noted.setdefault(name, []).extend(found)
        columns = zip(*(rows[number] for number in range(count)), strict=True)
        return [*carry, *(self._stack(column) for column in columns)], noted

    def _row(self, stacked: Any, number: int) -> Any:
        return stacked[number]

    def _stack(self, rows: Sequence) -> Any:
        return jnp.stack(rows)


class Ancestry(UnrolledWalk):
    """A walk over what depends on what: in the place of values are sets, and of an operation the union of its inputs'.

    `site` gives the set that takes the place of the one that arrives at a tap.
    """

    def _evaluate(self, jaxpr, equation, inputs):
        return [_union(inputs)] * len(equation.outvars)

    def _row(self, stacked, number):
        return stacked

    def _stack(self, rows):
        return _union(rows)


def _union(sets: Sequence) -> frozenset:
    return frozenset().union(*(each for each in sets if isinstance(each, frozenset)))


def _names_at(equation: JaxprEqn) -> list[str]:
    if equation.primitive is TAP:
        return [equation.params["name"]]
    return [name for body in jaxprs_in_params(equation.params) for name in names_in(body)]
