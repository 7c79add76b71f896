"""Networks from layers: one after another, side by side, and one repeated."""

import functools

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax.layer import Layer, layer
from aijax.ntk.stax.linear import Identity
from aijax.ntk.stax.requirements import Requirements, in_parallel, in_series, requirements_of
from aijax.typing import Callable


@layer
def serial(*layers: Layer) -> Layer:
    """Returns the layers composed, the first applied first. Parameters are a list, one entry a layer.

    A keyword `rng` of `apply_fn` is split among the layers; other keywords go to all of them.

    Raises:
      ConfigError: something that is not a layer.
    """
    init_fns, apply_fns, kernel_fns = _split(layers, "serial")

    def init_fn(key, input_shape):
        params = []
        for init, k in zip(init_fns, _keys(key, len(layers)), strict=True):
            input_shape, own = init(k, input_shape)
            params.append(own)
        return input_shape, params

    def apply_fn(params, inputs, *, rng=None, **kwargs):
        _check_count(params, layers, "serial")
        for apply, own, k in zip(apply_fns, params, _keys(rng, len(layers)), strict=True):
            inputs = apply(own, inputs, **_with_key(k), **kwargs)
        return inputs

    def kernel_fn(kernel, **kwargs):
        for one in kernel_fns:
            kernel = one(kernel, **kwargs)
        return kernel

    return init_fn, apply_fn, _stating(kernel_fn, in_series(*map(requirements_of, kernel_fns)))


@layer
def parallel(*layers: Layer) -> Layer:
    """Returns the layers side by side: a list of inputs, one for each, goes to a list of outputs.

    Often between `FanOut` and a `FanIn...`. As a network's first layer it takes tuples (or lists) of inputs.

    Raises:
      ConfigError: something that is not a layer; on a call, another number of inputs than of layers.
    """
    init_fns, apply_fns, kernel_fns = _split(layers, "parallel")

    def init_fn(key, input_shape):
        _check_count(input_shape, layers, "parallel")
        made = [f(k, s) for f, k, s in zip(init_fns, _keys(key, len(layers)), input_shape, strict=True)]
        return [shape for shape, _ in made], [params for _, params in made]

    def apply_fn(params, inputs, *, rng=None, **kwargs):
        _check_count(inputs, layers, "parallel")
        _check_count(params, layers, "parallel")
        keys = _keys(rng, len(layers))
        each = zip(apply_fns, params, inputs, keys, strict=True)
        return [apply(own, x, **_with_key(k), **kwargs) for apply, own, x, k in each]

    def kernel_fn(kernels, **kwargs):
        _check_count(kernels, layers, "parallel")
        return [f(kernel, **kwargs) for f, kernel in zip(kernel_fns, kernels, strict=True)]

    return init_fn, apply_fn, _stating(kernel_fn, in_parallel(*map(requirements_of, kernel_fns)))


@layer
def repeat(layer: Layer, n: int) -> Layer:
    """Returns `serial(*[layer] * n)` as a loop that is compiled once; parameters are stacked along a new first axis.

    Args:
      layer: a layer whose outputs have the shape of its inputs.
      n: number of times, from 0.

    Raises:
      ConfigError: a negative n; on a call, a layer that changes the shape of its inputs.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ConfigError(f"repeat: n={n!r}, expected a number of times from 0")
    if n == 0:
        return Identity()
    (init,), (apply,), (own_kernel,) = _split((layer,), "repeat")

    def init_fn(key, input_shape):
        told = {}

        def one(k):
            told["shape"], params = init(k, input_shape)
            return params

        params = jax.vmap(one)(jax.random.split(key, n))
        if n > 1 and _as_tuple(told["shape"]) != _as_tuple(input_shape):
            raise ConfigError(f"repeat: the layer turns shape {input_shape} into {told['shape']}; expected no change")
        return told["shape"], params

    def apply_fn(params, inputs, *, rng=None, **kwargs):
        def step(x, own):
            params, k = own
            return apply(params, x, **_with_key(k), **kwargs), None

        first, rest = (jax.tree.map(lambda p, part=part: p[part], params) for part in (0, slice(1, None)))
        keys = None if rng is None else jax.random.split(rng, n)
        x, _ = step(inputs, (first, None if keys is None else keys[0]))
        return jax.lax.scan(step, x, (rest, None if keys is None else keys[1:]), length=n - 1)[0]

    def kernel_fn(kernel, **kwargs):
        def step(kernel, _):
            return jax.tree.map(jnp.asarray, own_kernel(kernel, **kwargs)), None

        kernel, _ = step(kernel, None)
        for i in range(1, n):
            same = jax.eval_shape(step, kernel, None)[0]
            if _signature(same) == _signature(kernel):
                return jax.lax.scan(step, kernel, None, length=n - i)[0]
            kernel, _ = step(kernel, None)
        return kernel

    return init_fn, apply_fn, _stating(kernel_fn, in_series(*[requirements_of(own_kernel)] * n))


def _split(layers, name: str):
    for one in layers:
        if not isinstance(one, tuple) or len(one) != 3 or not all(map(callable, one)):
            raise ConfigError(f"{name}: expected layers, triples (init_fn, apply_fn, kernel_fn), got {one!r}")
    return tuple(zip(*layers, strict=True)) if layers else ((), (), ())


def _keys(key, count: int):
    return (None,) * count if key is None else jax.random.split(key, max(count, 1))[:count]


def _with_key(key) -> dict:
    return {} if key is None else {"rng": key}


def _check_count(values, layers, name: str) -> None:
    if not isinstance(values, (list, tuple)) or len(values) != len(layers):
        got = len(values) if isinstance(values, (list, tuple)) else type(values).__name__
        raise ConfigError(f"{name}: {len(layers)} layers, but got {got} inputs or parameters")


def _stating(kernel_fn: Callable, reqs: Requirements) -> Callable:
    @functools.wraps(kernel_fn)
    def stated(kernel, **kwargs):
        return kernel_fn(kernel, **kwargs)

    stated.requirements = reqs
    stated.tracks_shapes = True
    return stated


def _as_tuple(shape):
    return tuple(map(_as_tuple, shape)) if isinstance(shape, (list, tuple)) else shape


def _signature(kernel):
    leaves, tree = jax.tree.flatten(kernel)
    return [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves], tree
