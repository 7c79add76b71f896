"""Taps: values of a function that have a name, so that others can look at them or put others in their place.

    x = tap("residual", x)

is the identity, alone and under every transformation; it compiles to nothing. `aijax.interp.capture` finds it in the
function's jaxpr. Inside of `lax.scan` one tap stands for all turns. Of the derivatives of a tapped value nothing is
tapped.

Modules of Flax need no taps: `capture` names their outputs by their paths. A tap is for what no module returns, such as
the pattern of an attention, and where such a value would not be made otherwise, `asked` says whether it is wanted.
"""

import contextlib
import contextvars
import re
from collections.abc import Iterator, Sequence

import flax.linen as nn
import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from aijax.trees import path_name
from aijax.typing import PyTree

TAP = Primitive("tap")

_ASKED: contextvars.ContextVar[tuple[re.Pattern, ...] | None] = contextvars.ContextVar("asked", default=None)


def tap(name: str, x: PyTree) -> PyTree:
    """Returns `x`, each array of which has a name now: `name`, or in a tree `name/path`.

    >>> import jax.numpy as jnp
    >>> float(tap("twice", 2 * jnp.ones(())))
    2.0
    """

    def mark(path, leaf):
        return TAP.bind(leaf, name="/".join([name, path_name(path)] if path else [name]))

    return jax.tree_util.tree_map_with_path(mark, x)


def tap_in(module: nn.Module, name: str, x: PyTree) -> PyTree:
    """Returns `tap(path of the module/name, x)`."""
    return tap("/".join([*module.path, name]), x)


def asked(module: nn.Module, name: str) -> bool:
    """Returns whether the value `name` of a module is asked for by whoever traces it now."""
    return any(pattern.fullmatch("/".join([*module.path, name])) for pattern in _ASKED.get() or ())


def watched() -> bool:
    """Returns whether whoever traces a function now looks at its values: all that have a name are to be made."""
    return _ASKED.get() is not None


def tap_asked(module: nn.Module, name: str, x: PyTree) -> PyTree:
    """Returns `tap_in(module, name, x)` where that is asked for, and else `x`."""
    return tap_in(module, name, x) if asked(module, name) else x


@contextlib.contextmanager
def asking(patterns: Sequence[re.Pattern]) -> Iterator[None]:
    """Has the functions traced within tap the outputs of their Flax modules, and all that the patterns ask for.

    Who asks within adds patterns; outputs are tapped once.
    """
    outer = _ASKED.get()
    token = _ASKED.set((*(outer or ()), *patterns))
    try:
        with nn.intercept_methods(_tap_output) if outer is None else contextlib.nullcontext():
            yield
    finally:
        _ASKED.reset(token)


def _tap_output(method, args, kwargs, context):
    output = method(*args, **kwargs)
    if context.method_name == "__call__" and context.module.path:
        return tap("/".join(context.module.path), output)
    return output


TAP.def_impl(lambda x, *, name: x)
TAP.def_abstract_eval(lambda x, *, name: x)
mlir.register_lowering(TAP, lambda context, x, *, name: [x])
batching.defvectorized(TAP)
ad.primitive_jvps[TAP] = lambda primals, tangents, *, name: (TAP.bind(*primals, name=name), *tangents)
