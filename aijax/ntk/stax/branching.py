"""Branches: one input to many, and many to one by sum, product or concatenation.

The branches of a sum or a concatenation have independent parameters and, where they are Gaussian, mean zero, so that
their cross covariances vanish: covariances add, or stand side by side. Of a product of independent factors the
covariance is the product of covariances, and by the product rule ntk = Σ_i ntk_i Π_{j≠i} nngp_j.
"""

import functools

import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax.kernel import COVARIANCES, Kernel
from aijax.ntk.stax.layer import Layer, layer
from aijax.ntk.stax.masking import supports_masking
from aijax.typing import Array, Callable


@layer
def FanOut(num: int) -> Layer:
    """Returns the layer that hands its input to `num` branches, as a list.

    Raises:
      ConfigError: fewer than one branch.
    """
    if isinstance(num, bool) or not isinstance(num, int) or num < 1:
        raise ConfigError(f"FanOut: num={num!r}, expected a number of branches from 1")

    def init_fn(key, input_shape):
        return [input_shape] * num, ()

    def apply_fn(params, inputs, **kwargs):
        return [inputs] * num

    def kernel_fn(kernel, **kwargs):
        return [kernel] * num

    return init_fn, apply_fn, kernel_fn


@layer
@supports_masking(remask_kernel=True)
def FanInSum() -> Layer:
    """Returns the layer that adds its inputs, `Σ_i x_i`: all covariances add. The inputs must be Gaussian.

    An output is masked where all inputs are.

    Raises:
      ConfigError: on a call, inputs of different shapes, or that are not Gaussian.
    """

    def init_fn(key, input_shape):
        return _equal_shapes(input_shape, "FanInSum"), ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        return functools.reduce(jnp.add, inputs)

    def kernel_fn(kernels, **kwargs):
        _check_alike(kernels, "FanInSum")
        if len(kernels) > 1:
            _check_gaussian(kernels, "FanInSum")
        covs = {name: _fold(jnp.add, [getattr(k, name) for k in kernels]) for name in COVARIANCES}
        return _merged(kernels, **covs)

    return init_fn, apply_fn, kernel_fn, _mask_where_all


@layer
@supports_masking(remask_kernel=True)
def FanInProd() -> Layer:
    """Returns the layer that multiplies its inputs, `Π_i x_i`. They must have independent parameters.

    An output is masked where any input is.

    Raises:
      ConfigError: on a call, inputs of different shapes.
    """

    def init_fn(key, input_shape):
        return _equal_shapes(input_shape, "FanInProd"), ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        return functools.reduce(jnp.multiply, inputs)

    def kernel_fn(kernels, **kwargs):
        _check_alike(kernels, "FanInProd")
        covs = {n: _fold(jnp.multiply, [getattr(k, n) for k in kernels]) for n in ("nngp", "cov1", "cov2")}
        nngp, ntk = kernels[0].nngp, kernels[0].ntk
        for k in kernels[1:]:
            ntk = None if ntk is None or k.ntk is None else ntk * k.nngp + nngp * k.ntk
            nngp = nngp * k.nngp
        return _merged(kernels, **covs, ntk=ntk, is_gaussian=len(kernels) == 1 and kernels[0].is_gaussian)

    def mask_fn(mask, input_shape):
        return functools.reduce(jnp.logical_or, [m for m in mask if m is not None])

    return init_fn, apply_fn, kernel_fn, mask_fn


@layer
@supports_masking(remask_kernel=True)
def FanInConcat(axis: int = -1) -> Layer:
    """Returns the layer that concatenates its inputs along `axis`.

    Along the channels, `K = Σ_i c_i K_i / Σ_i c_i` with widths c_i, and the channels are no longer alike: a layer with
    random weights must come next. Along a spatial axis or the batch the inputs must be Gaussian; covariances across
    inputs are zero.

    Args:
      axis: axis of the activations.

    Raises:
      ConfigError: on a call, inputs whose other axes differ or that are not Gaussian, or an axis that is not there.
    """

    def init_fn(key, input_shape):
        return _concatenated_shape(input_shape, axis), ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        return jnp.concatenate(inputs, axis)

    def kernel_fn(kernels, **kwargs):
        _check_alike(kernels, "FanInConcat", shapes=False)
        for shape in ("shape1", "shape2"):
            _concatenated_shape([getattr(k, shape) for k in kernels], axis)
        first = kernels[0]
        at = axis % len(first.shape1)
        if at == first.channel_axis:
            return _concatenate_channels(kernels)
        _check_gaussian(kernels, "FanInConcat")
        if at == first.batch_axis:
            return _concatenate_batch(kernels)
        return _concatenate_spatial(kernels, first.spatial_axes.index(at))

    def mask_fn(mask, input_shape):
        wide = []
        for m, shape in zip(mask, input_shape, strict=True):
            m = jnp.zeros((1,) * len(shape), bool) if m is None else m
            others = [other.shape for other in mask if other is not None]
            full = [max(o[a] for o in others) if a != axis % len(shape) else shape[a] for a in range(len(shape))]
            wide.append(jnp.broadcast_to(m, full))
        return jnp.concatenate(wide, axis)

    return init_fn, apply_fn, kernel_fn, mask_fn


def _fold(function: Callable, values: list):
    return None if any(v is None for v in values) else functools.reduce(function, values)


def _merged(kernels: list[Kernel], **changes) -> Kernel:
    first = kernels[0]
    changes.setdefault("is_gaussian", all(k.is_gaussian for k in kernels))
    return first.replace(x1_is_x2=_all_same(kernels), **changes)


def _all_same(kernels: list[Kernel]):
    flags = [k.x1_is_x2 for k in kernels]
    return all(flags) if all(isinstance(f, bool) for f in flags) else functools.reduce(jnp.logical_and, flags)


def _concatenate_channels(kernels: list[Kernel]) -> Kernel:
    widths = [k.shape1[k.channel_axis] for k in kernels]
    total = sum(widths)
    covs = {}
    for name in COVARIANCES:
        values = [getattr(k, name) for k in kernels]
        weighted = [None if v is None else v * (w / total) for v, w in zip(values, widths, strict=True)]
        covs[name] = _fold(jnp.add, weighted)
    return _merged(kernels, **covs, is_gaussian=len(kernels) == 1 and kernels[0].is_gaussian)


def _concatenate_batch(kernels: list[Kernel]) -> Kernel:
    covs = {}
    for name in COVARIANCES:
        values = [getattr(k, name) for k in kernels]
        if any(v is None for v in values):
            covs[name] = None
        elif kernels[0].is_diagonal_batch(name):
            covs[name] = jnp.concatenate(values, 0)
        else:
            covs[name] = _blocks([_full(v, k) for v, k in zip(values, kernels, strict=True)], 0)
    return _merged(kernels, **covs)


def _concatenate_spatial(kernels: list[Kernel], which: int) -> Kernel:
    covs = {}
    for name in COVARIANCES:
        values = [getattr(k, name) for k in kernels]
        if any(v is None for v in values):
            covs[name] = None
            continue
        first = 1 if kernels[0].is_diagonal_batch(name) else 2
        values = [_full(v, k) for v, k in zip(values, kernels, strict=True)]
        if kernels[0].diagonal_spatial:
            covs[name] = jnp.concatenate(values, first + which)
        else:
            covs[name] = _blocks(values, first + 2 * which)
    return _merged(kernels, **covs)


def _full(value: Array, kernel: Kernel) -> Array:
    return value if jnp.ndim(value) else jnp.broadcast_to(value, kernel.nngp.shape)


def _blocks(values: list[Array], axis: int) -> Array:
    """Block-diagonal along `axis` and the axis after it."""
    width = sum(v.shape[axis + 1] for v in values)
    rows, start = [], 0
    for v in values:
        pads = [(0, 0)] * v.ndim
        pads[axis + 1] = (start, width - start - v.shape[axis + 1])
        rows.append(jnp.pad(v, pads))
        start += v.shape[axis + 1]
    return jnp.concatenate(rows, axis)


def _mask_where_all(mask, input_shape):
    if any(m is None for m in mask):
        return jnp.zeros((1,) * len(input_shape[0]), bool)
    return functools.reduce(jnp.logical_and, mask)


def _equal_shapes(shapes, name: str) -> tuple[int, ...]:
    shapes = [tuple(shape) for shape in shapes]
    if len(set(shapes)) != 1:
        raise ConfigError(f"{name}: inputs of shapes {shapes}, expected equal shapes")
    return shapes[0]


def _concatenated_shape(shapes, axis: int) -> tuple[int, ...]:
    shapes = [tuple(shape) for shape in shapes]
    ndim = len(shapes[0])
    if not -ndim <= axis < ndim:
        raise ConfigError(f"FanInConcat: axis={axis}, but the inputs have {ndim} axes")
    at = axis % ndim
    if len({shape[:at] + shape[at + 1 :] for shape in shapes}) != 1 or len({len(s) for s in shapes}) != 1:
        raise ConfigError(f"FanInConcat: inputs of shapes {shapes} differ in another axis than {axis}")
    return (*shapes[0][:at], sum(shape[at] for shape in shapes), *shapes[0][at + 1 :])


def _check_gaussian(kernels: list[Kernel], name: str) -> None:
    if not all(k.is_gaussian for k in kernels):
        got = [k.is_gaussian for k in kernels]
        raise ConfigError(f"{name}: needs Gaussian inputs (end each branch in Dense or Conv), got is_gaussian={got}")


def _check_alike(kernels, name: str, *, shapes: bool = True) -> None:
    if not isinstance(kernels, (list, tuple)) or not kernels:
        raise ConfigError(f"{name}: expected a list of inputs; put FanOut or parallel before it")
    if shapes:
        _equal_shapes([k.shape1 for k in kernels], name)
    for field in ("batch_axis", "channel_axis", "diagonal_batch", "diagonal_spatial"):
        values = [getattr(k, field) for k in kernels]
        if len(set(values)) != 1:
            raise ConfigError(f"{name}: inputs with different {field}: {values}")
