"""Layers: triples `(init_fn, apply_fn, kernel_fn)` of a network that is both finite and infinite.

    init_fn(key, input_shape) -> (output_shape, params)
    apply_fn(params, inputs, **kwargs) -> outputs                                    the finite network
    kernel_fn(x1, x2=None, get=None, **kwargs) -> Kernel, array or named tuple       the infinite one

A layer's own `kernel_fn` maps a `Kernel` to a `Kernel`; `layer` lets it take inputs, answer what is asked for (`get`),
and choose the cheapest covariances that the network's requirements allow.
"""

import collections
import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, did_you_mean
from aijax.ntk.stax.inputs import input_kernel
from aijax.ntk.stax.kernel import Kernel
from aijax.ntk.stax.requirements import Bool, Diagonal, check, common_axis, requirements_of
from aijax.typing import Any, Callable, PRNGKey

Layer = tuple[Callable, Callable, Callable]

FIELDS = tuple(field.name for field in dataclasses.fields(Kernel))


def layer(layer_fn: Callable[..., Layer]) -> Callable[..., Layer]:
    """Returns `layer_fn` whose layers' `kernel_fn` takes inputs as well as kernels.

    The `kernel_fn` of the layers it makes is

        kernel_fn(x1_or_kernel, x2=None, get=None, *, mask_constant=None, diagonal_batch=None, diagonal_spatial=None,
                  batch_axis=None, channel_axis=None, **kwargs)

    `get` is None for the whole `Kernel`, the name of one of its fields in either case, or a tuple of names for a named
    tuple.
    `diagonal_batch` and `diagonal_spatial` override the choice of what covariances hold (see `Kernel`). `batch_axis`
    and `channel_axis` are those of the inputs, where the layers do not say (default 0 and -1). Other keyword arguments,
    pairs of values for x1 and x2, go to all layers.

    Raises:
      ConfigError: an argument that is annotated as `float` and is no number; on a call, an unknown `get`, inputs whose
        shapes do not fit, or a diagonal that is not enough.

    >>> @layer
    ... def Double():
    ...     def init_fn(key, input_shape):
    ...         return input_shape, ()
    ...     def apply_fn(params, inputs, **kwargs):
    ...         return 2 * inputs
    ...     def kernel_fn(kernel, **kwargs):
    ...         return kernel * 2
    ...     return init_fn, apply_fn, kernel_fn
    >>> init_fn, apply_fn, kernel_fn = Double()
    >>> kernel_fn(jnp.ones((1, 3)), get="nngp").item()
    4.0
    """

    signature = inspect.signature(layer_fn)

    @functools.wraps(layer_fn)
    def make(*args, **kwargs) -> Layer:
        _check_numbers(layer_fn.__name__, signature, args, kwargs)
        init_fn, apply_fn, kernel_fn = layer_fn(*args, **kwargs)
        init_fn, apply_fn = _named(init_fn, layer_fn.__name__), _named(apply_fn, layer_fn.__name__)
        return init_fn, apply_fn, _kernel_fn(init_fn, kernel_fn, layer_fn.__name__)

    return make


def standard_normal(key: PRNGKey, shape: tuple[int, ...]) -> jax.Array:
    """Returns independent standard normal numbers of the default float type, from a typed or an old-style key."""
    return jax.random.normal(key, shape, jnp.result_type(float))


def _check_numbers(name: str, signature: inspect.Signature, args: tuple, kwargs: dict) -> None:
    """Refuses what is no number, traced or not, where an argument is annotated as one."""
    try:
        arguments = signature.bind(*args, **kwargs).arguments
    except TypeError:  # the call itself says better what is wrong with it
        return
    for argument, value in arguments.items():
        annotation = signature.parameters[argument].annotation
        optional = annotation == float | None
        if not (annotation is float or optional) or (optional and value is None):
            continue
        if not isinstance(value, int | float | np.generic | np.ndarray | jax.Array):
            raise ConfigError(f"{name}: {argument}={value!r}, expected a number")


def _named(function: Callable, name: str) -> Callable:
    @functools.wraps(function)
    def named(*args, **kwargs):
        return function(*args, **kwargs)

    named.__name__ = named.__qualname__ = name
    return named


def _kernel_fn(init_fn: Callable, inner: Callable, name: str) -> Callable:
    reqs = requirements_of(inner)

    def kernel_fn(
        x1_or_kernel: Any,
        x2: Any = None,
        get: str | tuple[str, ...] | None = None,
        *,
        mask_constant: float | None = None,
        diagonal_batch: bool | None = None,
        diagonal_spatial: bool | None = None,
        batch_axis: int | None = None,
        channel_axis: int | None = None,
        **kwargs,
    ) -> Any:
        get = _checked_get(get)
        if _is_kernel(x1_or_kernel):
            if x2 is not None:
                raise ConfigError(f"{name}: a kernel takes no x2 beside it")
            return _read(_run(x1_or_kernel, **kwargs), get)
        spatial = _resolve(diagonal_spatial, reqs.diagonal_spatial, name)
        batch = reqs.diagonal_batch is not False if diagonal_batch is None else diagonal_batch
        if batch and reqs.diagonal_batch is False:
            raise ConfigError(f"{name}: diagonal_batch=True, but the network needs covariances between examples")
        options = {"diagonal_batch": batch, "diagonal_spatial": spatial, "mask_constant": mask_constant}
        names = FIELDS if get is None else (get,) if isinstance(get, str) else get
        axes = [
            stated if asked is None else asked
            for asked, stated in ((batch_axis, reqs.batch_axis), (channel_axis, reqs.channel_axis))
        ]
        kernel = _inputs(x1_or_kernel, x2, *axes, with_ntk="ntk" in names, **options)
        # axes that are said on the call stand in place of those that the layer states
        said = dict(zip(("batch_axis", "channel_axis"), axes, strict=True))
        return _read(_whole(_run(kernel, dataclasses.replace(reqs, **said), **kwargs)), get)

    def _run(kernel, reqs=reqs, **kwargs):
        check(kernel, reqs, name)
        after = inner(kernel, **kwargs)
        return after if getattr(inner, "tracks_shapes", False) else _with_shapes(after, kernel, init_fn)

    kernel_fn.__name__ = kernel_fn.__qualname__ = name
    kernel_fn.requirements = reqs
    return kernel_fn


def _is_kernel(x: Any) -> bool:
    return _is_kernel(x[0]) if isinstance(x, (list, tuple)) and x else isinstance(x, Kernel)


def _checked_get(get):
    """Returns what is asked for in lower case."""
    if get is None:
        return None
    names = tuple(n.lower() if isinstance(n, str) else n for n in ((get,) if isinstance(get, str) else get))
    for name in names:
        if name not in FIELDS:
            raise ConfigError(f"get: unknown field {name!r}{did_you_mean(str(name), FIELDS)}")
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"get: expected different fields of a Kernel, got {get!r}")
    return names[0] if isinstance(get, str) else names


def _resolve(asked: bool | None, stated: Diagonal | None, name: str) -> bool:
    stated = Diagonal() if stated is None else stated
    if asked is None:
        return stated.suffices
    if asked and stated.input != Bool.YES:
        raise ConfigError(f"{name}: diagonal_spatial=True, but the network needs covariances between positions")
    return asked


def _inputs(x1, x2, batch_axis, channel_axis, **options):
    if not isinstance(x1, (list, tuple)):
        batch_axis, channel_axis = (
            common_axis(batch_axis, 0, "batch_axis", jnp.ndim(x1)),
            common_axis(channel_axis, -1, "channel_axis", jnp.ndim(x1)),
        )
        return input_kernel(x1, x2, batch_axis=batch_axis, channel_axis=channel_axis, **options)
    if x2 is not None and (not isinstance(x2, (list, tuple)) or len(x2) != len(x1)):
        raise ConfigError(f"x2: expected {len(x1)} inputs like x1")
    second = (None,) * len(x1) if x2 is None else x2
    axes = [axis if isinstance(axis, tuple) else (axis,) * len(x1) for axis in (batch_axis, channel_axis)]
    if any(len(axis) != len(x1) for axis in axes):
        raise ConfigError(f"x1: {len(x1)} inputs for {len(axes[0])} parallel layers")
    return type(x1)(_inputs(a, b, *ax, **options) for a, b, *ax in zip(x1, second, *axes, strict=True))


def _with_shapes(after, before, init_fn):
    if isinstance(after, (list, tuple)):
        shapes = [_out_shapes(init_fn, _shapes(before, name)) for name in ("shape1", "shape2")]
        return type(after)(_set_shapes(k, s1, s2) for k, s1, s2 in zip(after, *shapes, strict=True))
    shape1, shape2 = _shapes(before, "shape1"), _shapes(before, "shape2")
    out1 = _out_shapes(init_fn, shape1)
    return _set_shapes(after, out1, out1 if shape1 == shape2 else _out_shapes(init_fn, shape2))


def _set_shapes(kernel, shape1, shape2):
    if isinstance(kernel, (list, tuple)):
        return type(kernel)(_set_shapes(k, s1, s2) for k, s1, s2 in zip(kernel, shape1, shape2, strict=True))
    return kernel.replace(shape1=tuple(shape1), shape2=tuple(shape2), is_input=False)


def _shapes(kernel, name):
    return [_shapes(k, name) for k in kernel] if isinstance(kernel, (list, tuple)) else getattr(kernel, name)


def _out_shapes(init_fn, shape):
    """The output shape that `init_fn` tells, without drawing any parameters."""
    told = {}

    def tell(key):
        told["shape"], params = init_fn(key, shape)
        return params

    jax.eval_shape(tell, jax.eval_shape(lambda: jax.random.key(0)))
    return told["shape"]


def _whole(kernel):
    """The kernel with a tangent kernel of zero written out."""
    if isinstance(kernel, (list, tuple)):
        return type(kernel)(_whole(k) for k in kernel)
    if kernel.ntk is None or jnp.ndim(kernel.ntk):
        return kernel
    return kernel.replace(ntk=jnp.broadcast_to(kernel.ntk, kernel.nngp.shape))


def _read(kernel, get):
    if get is None:
        return kernel
    if isinstance(kernel, (list, tuple)):
        return type(kernel)(_read(k, get) for k in kernel)
    names = (get,) if isinstance(get, str) else tuple(get)
    if "ntk" in names and kernel.ntk is None:
        raise ConfigError("get: 'ntk' of a kernel that was made without one")
    return getattr(kernel, get) if isinstance(get, str) else _tuple_type(names)(*(getattr(kernel, n) for n in names))


@functools.cache
def _tuple_type(names: tuple[str, ...]) -> type:
    return collections.namedtuple("AnalyticKernel", names)
