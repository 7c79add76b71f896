"""What a residual stream would say, if the model ended there; and which components said what it says at the end.

A model that ends as `output = f(x_L)` of its last residual stream x_L, with its own final norm, head and whatever else
comes after, is read at another depth l as

    logit lens                 f(x_l)                                   (nostalgebraist 2020)
    direct logit attribution   J w_c,   J = df/dx at x_L                (Elhage et al. 2021; Wang et al. 2022)

with w_c what a component wrote to the stream. The divisor of the final norm is held as it was in the run: f is then
affine, and the attributions of all that is written add up to the logits less their bias.

f is found by putting a value in the place of x_L (`aijax.interp.intervene`), so that any model will do whose last
residual stream has a name; under `jax.jit` nothing that comes before it is computed again.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.interp.capture import capture, intervene
from aijax.typing import Array, PyTree

FINAL_DIVISOR = r"(.*/)?norm/divisor"
"""How the transformers of `aijax.models` call the divisor of their final norm."""


def read_stream(apply_fn: Callable[..., PyTree], last: str) -> Callable[..., PyTree]:
    """Returns `run(stream, *args)`: the output with `stream` in the place of the last residual stream.

    Args:
      apply_fn: such as `apply_fn(params, x)`.
      last: the name of the stream (a pattern, as of `intervene`). In a scan over layers it is that of each layer's
        output.

    Raises, when it is called:
      ConfigError: a name that matches nothing, a stream of another shape or dtype.

    >>> from aijax.taps import tap
    >>> read_stream(lambda x: 3 * tap("last", x + 1), "last")(jnp.ones(2), jnp.zeros(2)).tolist()
    [3.0, 3.0]
    """
    return lambda stream, *args: intervene(apply_fn, {last: lambda value: stream})(*args)


def logit_lens(
    apply_fn: Callable[..., PyTree], streams: str | Sequence[str], last: str
) -> Callable[..., dict[str, PyTree]]:
    """Returns a function of the same arguments that gives `{name: output}`, read at each of the streams.

    Args:
      apply_fn: such as `apply_fn(params, tokens)`.
      streams: names of residual streams (patterns, as of `capture`). In a scan over layers a stream has the layers'
        axis first, and so has its output.
      last: the name of the last stream.

    Raises, when it is called:
      ConfigError: a name that matches nothing, a stream of another shape than the last.

    >>> from aijax.taps import tap
    >>> model = lambda x: 3 * tap("last", tap("first", x + 1) + 1)
    >>> {name: value.tolist() for name, value in logit_lens(model, ["first", "last"], "last")(jnp.zeros(1)).items()}
    {'first': [3.0], 'last': [6.0]}
    """

    def run(*args):
        _, values = capture(apply_fn, streams)(*args)
        shape = stream_shape(apply_fn, last, *args)
        stacked, parts = stack_streams(values, shape)
        outputs = jax.vmap(lambda stream: read_stream(apply_fn, last)(stream, *args))(stacked)
        return parts(outputs)

    return run


def logit_attribution(
    apply_fn: Callable[..., PyTree],
    components: str | Sequence[str],
    last: str,
    *,
    target: Callable[[PyTree], Array] = lambda output: output,
    frozen: str | None = FINAL_DIVISOR,
) -> Callable[..., tuple[dict[str, Array], Array]]:
    """Returns a function of the same arguments that gives `({name: attribution}, rest)`, which add up to the target.

    Args:
      apply_fn: such as `apply_fn(params, tokens)`.
      components: names of what is written to the stream (patterns, as of `capture`), such as `.*/writes_.*` of the
        transformers of `aijax.models`. Values have the stream's shape, or a heads' axis before their last; the heads'
        and the layers' axes come first in an attribution.
      last: the name of the last residual stream.
      target: of the output, an array such as the logit of one token less that of another; the output by default.
      frozen: name of what is held as in the run, the divisor of the final norm; None holds nothing, and what a
        component does to the norm then counts too, to first order.

    Raises, when it is called:
      ConfigError: a name that matches nothing, a component of a shape that is not the stream's.

    >>> from aijax.taps import tap
    >>> model = lambda x: 3 * tap("last", tap("one", 1 + x) + tap("two", 2 * x)) + 1
    >>> parts, rest = logit_attribution(model, ["one", "two"], "last", frozen=None)(jnp.ones(1))
    >>> parts["one"].tolist(), parts["two"].tolist(), rest.tolist()
    ([6.0], [6.0], [1.0])
    """

    def run(*args):
        _, written = capture(apply_fn, components)(*args)
        shape = stream_shape(apply_fn, last, *args)
        held = {} if frozen is None else capture(apply_fn, frozen)(*args)[1]
        changes = {name: lambda value, kept=kept: kept for name, kept in held.items()}
        _, streams = capture(apply_fn, last)(*args)
        stream = _last_of(streams, shape)

        def reach(stream):
            return target(intervene(apply_fn, {last: lambda value: stream, **changes})(*args))

        reached, linear = jax.linearize(reach, stream)
        stacked, parts = stack_streams(written, shape)
        attributions = jax.vmap(linear)(stacked)
        return parts(attributions), reached - jnp.sum(attributions, axis=0)

    return run


def stream_shape(apply_fn: Callable[..., PyTree], last: str, *args: PyTree) -> tuple[int, ...]:
    """Returns the shape of the last residual stream; nothing is computed."""
    shapes = []
    changed = intervene(apply_fn, {last: lambda value: shapes.append(value.shape) or value})
    jax.eval_shape(lambda args: changed(*args), args)
    return shapes[-1]


def stack_streams(values: dict, shape: tuple[int, ...]) -> tuple[Array, Callable[[PyTree], dict]]:
    """Returns values of the shape of a stream, and of others with it, as one array `[s, *shape]`, and a function that
    gives by name what was made of each.

    Args:
      values: by name, as `capture` gives them. Layers are axes before those of the stream, heads an axis before its
        last; both come first in what is given by name.
      shape: of the stream.

    Raises:
      ConfigError: a value of another shape.
    """
    flat, layout = [], []
    for name, value in values.items():
        for number, one in enumerate(value if isinstance(value, tuple) else (value,)):
            lead = _lead_first(name, one, shape)
            flat.append(lead.reshape(-1, *shape))
            layout.append((f"{name}#{number}" if isinstance(value, tuple) else name, lead.shape[: -len(shape)]))

    def parts(outputs):
        found, start = {}, 0
        for (name, lead), block in zip(layout, flat, strict=True):
            rows = slice(start, start + len(block))
            found[name] = jax.tree.map(
                lambda leaf, rows=rows, lead=lead: leaf[rows].reshape(*lead, *leaf.shape[1:]), outputs
            )
            start += len(block)
        return found

    return jnp.concatenate(flat), parts


def _lead_first(name, value, shape):
    if value.shape[-len(shape) :] == shape:
        return value
    heads = value.ndim - 2
    without = value.shape[:heads] + value.shape[heads + 1 :]
    if value.ndim > len(shape) and without[-len(shape) :] == shape:
        return jnp.moveaxis(value, heads, value.ndim - len(shape) - 1)
    raise ConfigError(f"{name}: expected the shape {shape} of the residual stream, or heads in it, got {value.shape}")


def _last_of(streams, shape):
    value = list(streams.values())[-1]
    value = value[-1] if isinstance(value, tuple) else value
    return value.reshape(-1, *shape)[-1]
