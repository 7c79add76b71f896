"""Looking at the values inside of a function by name, putting others in their place, and their gradients.

One mechanism for all models: a value is named by `aijax.taps.tap`, or is the output of a Flax module and named by its
path. The function is read as a jaxpr and run again with what was asked for; nothing else is kept. `jit`,
`jax.checkpoint` and `lax.scan` are followed: a tap in a scan over layers gives its values of all layers, stacked on the
layers' axis. The results are pure functions to be differentiated, mapped, sharded and compiled as any other; under
`jax.jit` they cost what the function costs.

Names are asked for by patterns: regular expressions of a whole name, such as `encoder/block_3/mlp` or `.*/attention`.
One that matches nothing is an error, for a patch that never happens looks like a negative result.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from aijax.errors import ConfigError, UnsupportedError, did_you_mean
from aijax.jaxprs import CALLS, evaluate, opened, scan_parts
from aijax.taps import TAP, asking
from aijax.typing import Any, Array, PyTree


def tap_names(apply_fn: Callable, *args: PyTree, names: str | Sequence[str] = (), **kwargs: Any) -> list[str]:
    """Returns the names of all values that may be asked for, in the order of their making.

    Args:
      apply_fn: such as `apply_fn(params, x)`.
      args, kwargs: its arguments, or their shapes; those by keyword are not traced.
      names: patterns of values that are made only for who asks, such as `.*/pattern` of an attention.

    >>> from aijax.taps import tap
    >>> tap_names(lambda x: tap("square", x**2) + 1, jnp.ones(3))
    ['square']
    """
    program, _ = _trace(apply_fn, _compiled(names), args, kwargs)
    return list(dict.fromkeys(_names(program.jaxpr)))


def capture(apply_fn: Callable[..., PyTree], names: str | Sequence[str]) -> Callable[..., tuple[PyTree, dict]]:
    """Returns a function of the same arguments that gives `(output, {name: value})`.

    The value of a name that comes up more than once is a tuple of all; in a scan it has the turns' axis first.

    Args:
      apply_fn: such as `apply_fn(params, x)`. Arguments by keyword are not traced.
      names: patterns of the wanted values.

    Raises, when it is called:
      ConfigError: a pattern that matches no name.
      UnsupportedError: a value within a `while_loop` or a branch, whose number of turns is not known.

    >>> from aijax.taps import tap
    >>> output, values = capture(lambda x: jnp.sum(tap("square", x**2)), "square")(jnp.arange(3.0))
    >>> float(output), values["square"].tolist()
    (5.0, [0.0, 1.0, 4.0])
    """
    return _transformed(apply_fn, names, lambda name, value, feed, turn: (value, value))


def intervene(apply_fn: Callable[..., PyTree], changes: Mapping[str, Any]) -> Callable[..., PyTree]:
    """Returns the function with other values in the places of some.

    Args:
      apply_fn: such as `apply_fn(params, x)`. Arguments by keyword are not traced.
      changes: pattern to `change(value) -> value` of the same shape and dtype. Where several match, each changes what
        the one before it made. In a scan a change applies to every turn; `AtLayer` changes one.

    Raises, when it is called:
      ConfigError: a pattern that matches no name, a value of another shape or dtype.

    >>> from aijax.taps import tap
    >>> intervene(lambda x: jnp.sum(tap("square", x**2)), {"square": jnp.zeros_like})(jnp.arange(3.0)).item()
    0.0
    """
    rules = [(pattern, change) for pattern, change in zip(_compiled(list(changes)), changes.values(), strict=True)]

    def site(name, value, feed, turn):
        for pattern, change in rules:
            if pattern.fullmatch(name):
                value = _changed(name, value, change, turn)
        return value, None

    changed = _transformed(apply_fn, list(changes), site)
    return lambda *args, **kwargs: changed(*args, **kwargs)[0]


def activation_gradients(
    function: Callable[..., Array], names: str | Sequence[str]
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """Returns a function of the same arguments that gives `(value, {name: gradient by that value})`.

    Args:
      function: a scalar, such as a loss of parameters and a batch.
      names: patterns of the values.

    Raises, when it is called: as `capture`.

    >>> from aijax.taps import tap
    >>> value, slopes = activation_gradients(lambda x: jnp.sum(tap("square", x**2) * x), "square")(jnp.arange(3.0))
    >>> slopes["square"].tolist()
    [0.0, 1.0, 2.0]
    """

    def run(*args, **kwargs):
        _, shapes = jax.eval_shape(lambda *args: capture(function, names)(*args, **kwargs), *args)
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        shifted = _transformed(function, names, lambda name, value, feed, turn: (value + feed, None))
        return jax.value_and_grad(lambda feeds: shifted(*args, feeds=feeds, **kwargs)[0])(zeros)

    return run


@dataclass(frozen=True)
class AtLayer:
    """A change for `intervene` of one turn of a scan over layers.

    >>> from aijax.taps import tap
    >>> def apply_fn(x):
    ...     return jax.lax.scan(lambda x, layer: (tap("layer", x + layer), None), x, jnp.arange(3.0))[0]
    >>> intervene(apply_fn, {"layer": AtLayer(1, jnp.zeros_like)})(5.0).item()
    2.0
    """

    layer: int
    change: Callable[[Array], Array]


def _changed(name, value, change, turn):
    if isinstance(change, AtLayer):
        if turn is None:
            raise ConfigError(
                f"{name}: AtLayer({change.layer}) is for values within a scan over layers, and this one is in none"
            )
        number, count = turn
        if not 0 <= change.layer < count:
            raise ConfigError(f"{name}: AtLayer expects a layer from 0 to {count - 1}, got {change.layer}")
        return jnp.where(number == change.layer, _changed(name, value, change.change, turn), value)
    new = jnp.asarray(change(value))
    if new.shape != value.shape or new.dtype != value.dtype:
        raise ConfigError(
            f"{name}: expected a value {value.dtype}{list(value.shape)}, got {new.dtype}{list(new.shape)}"
        )
    return new


def _transformed(apply_fn, names, site):
    """Returns `run(*args, feeds={}, **kwargs) -> output, values noted`.

    `site(name, value, feed, turn)` gives what is to take the place of a value, and what is noted; feeds are given by
    name as `capture` gives values, and `turn` is `(number, count)` in a scan and else None.
    """
    patterns = _compiled(names)

    def run(*args, feeds=None, **kwargs):
        program, structure = _trace(apply_fn, patterns, args, kwargs)
        found = set(_names(program.jaxpr))
        for pattern in patterns:
            if not any(pattern.fullmatch(name) for name in found):
                hint = did_you_mean(pattern.pattern, found) or "; tap_names lists what there is"
                raise ConfigError(f"names: {pattern.pattern!r} matches no value of the function{hint}")
        wanted = {name for name in found if any(pattern.fullmatch(name) for pattern in patterns)}
        feeds = {name: value if isinstance(value, tuple) else (value,) for name, value in (feeds or {}).items()}
        outputs, noted = _Walk(site, wanted).run(program.jaxpr, program.consts, jax.tree.leaves(args), feeds, None)
        return jax.tree.unflatten(structure, outputs), {
            name: values[0] if len(values) == 1 else tuple(values) for name, values in noted.items()
        }

    return run


@dataclass(frozen=True)
class _Walk:
    """Runs a jaxpr, stopping at the taps that are wanted; all else is evaluated as it stands."""

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
            if self._stops(equation):
                left = {name: given[len(noted.get(name, ())) :] for name, given in feeds.items()}
                outputs, more = self._follow(equation, here, left, turn)
                for name, found in more.items():
                    noted.setdefault(name, []).extend(found)
            else:
                outputs = evaluate(jaxpr, equation, here)
            values.update(zip(equation.outvars, outputs, strict=True))
        return [read(var) for var in jaxpr.outvars], noted

    def _stops(self, equation: JaxprEqn) -> bool:
        if equation.primitive is TAP:
            return equation.params["name"] in self.wanted
        return any(self._stops(inner) for body in jaxprs_in_params(equation.params) for inner in body.eqns)

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
        names = sorted(set(_names_in(equation)) & self.wanted)
        raise UnsupportedError(f"{names[0]}: it lies within {kind}, which is not followed")

    def _scan(self, equation, inputs, feeds):
        params = equation.params
        body, body_consts = opened(params["jaxpr"])
        consts, carries = scan_parts(equation, body)
        constants, carry, stacked = inputs[:consts], inputs[consts : consts + carries], inputs[consts + carries :]
        own = set(_names(body)) & self.wanted

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


def _trace(apply_fn, patterns, args, kwargs):
    """Returns the program of a function with all its taps, and the structure of its output."""
    if isinstance(apply_fn, jax.stages.Wrapped):
        apply_fn = apply_fn.__wrapped__  # whose trace without taps may be remembered
    with asking(patterns):
        program, output = jax.make_jaxpr(lambda *args: apply_fn(*args, **kwargs), return_shape=True)(*args)
    return program, jax.tree.structure(output)


def _names(jaxpr: Jaxpr) -> list[str]:
    return [name for equation in jaxpr.eqns for name in _names_in(equation)]


def _names_in(equation: JaxprEqn) -> list[str]:
    if equation.primitive is TAP:
        return [equation.params["name"]]
    return [name for body in jaxprs_in_params(equation.params) for name in _names(body)]


def _compiled(names: str | Sequence[str]) -> list[re.Pattern]:
    patterns = []
    for name in [names] if isinstance(names, str) else names:
        try:
            patterns.append(re.compile(name))
        except (re.error, TypeError) as error:
            raise ConfigError(f"names: expected a regular expression, got {name!r}: {error}") from None
    return patterns
