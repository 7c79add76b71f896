"""Looking at the values inside of a function by name, putting others in their place, and their gradients.

One mechanism for all models: a value is named by `aijax.taps.tap`, or is the output of a Flax module and named by its
path. The function is read as a jaxpr and run again with what was asked for; nothing else is kept. `jit`,
`jax.checkpoint` and `lax.scan` are followed: a tap in a scan over layers gives its values of all layers, stacked on the
layers' axis. The results are pure functions to be differentiated, mapped, sharded and compiled as any other; under
`jax.jit` they cost what the function costs.

Names are asked for by patterns: regular expressions of a whole name, such as `encoder/block_3/mlp` or `.*/attention`.
One that matches nothing is an error, for a patch that never happens looks like a negative result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, did_you_mean
from aijax.interp.walk import Walk, compiled, names_in, trace
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
    program, _ = trace(apply_fn, compiled(names), args, kwargs)
    return list(dict.fromkeys(names_in(program.jaxpr)))


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
    return transformed(apply_fn, names, lambda name, value, feed, turn: (value, value))


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
    rules = [(pattern, change) for pattern, change in zip(compiled(list(changes)), changes.values(), strict=True)]

    def site(name, value, feed, turn):
        for pattern, change in rules:
            if pattern.fullmatch(name):
                value = _changed(name, value, change, turn)
        return value, None

    changed = transformed(apply_fn, list(changes), site)
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
        shifted = transformed(function, names, lambda name, value, feed, turn: (value + feed, None))
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


def transformed(apply_fn, names, site):
    """Returns `run(*args, feeds={}, **kwargs) -> (output, values noted)`, what the others here are made of.

    `site(name, value, feed, turn)` gives what is to take the place of a value, and what is noted; feeds are given by
    name as `capture` gives values, and `turn` is `(number, count)` in a scan and else None.
    """
    patterns = compiled(names)

    def run(*args, feeds=None, **kwargs):
        program, structure = trace(apply_fn, patterns, args, kwargs)
        found = set(names_in(program.jaxpr))
        for pattern in patterns:
            if not any(pattern.fullmatch(name) for name in found):
                hint = did_you_mean(pattern.pattern, found) or "; tap_names lists what there is"
                raise ConfigError(f"names: {pattern.pattern!r} matches no value of the function{hint}")
        wanted = {name for name in found if any(pattern.fullmatch(name) for pattern in patterns)}
        feeds = {name: value if isinstance(value, tuple) else (value,) for name, value in (feeds or {}).items()}
        outputs, noted = Walk(site, wanted).run(program.jaxpr, program.consts, jax.tree.leaves(args), feeds, None)
        return jax.tree.unflatten(structure, outputs), {
            name: values[0] if len(values) == 1 else tuple(values) for name, values in noted.items()
        }

    return run
