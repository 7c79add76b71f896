"""Layers that apply one function to every activation; their infinite-width maps are in the `dual_*` modules.

Each is a triple `(init_fn, apply_fn, kernel_fn)` without parameters. Their inputs must be Gaussian in the limit of
infinite width, that is, come from a layer with random weights.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax import dual_polynomial, dual_rectified, dual_smooth
from aijax.ntk.stax.dual_given import given
from aijax.ntk.stax.dual_numerical import numerical
from aijax.ntk.stax.elementwise import elementwise_layer
from aijax.ntk.stax.layer import Layer, layer

SIGMOID_SCALE = 2.4020563531719796
"""(1 + erf(x / 2.402...)) / 2 is within 0.012 of the logistic sigmoid: the scale with the least largest error."""


@layer
def Relu(do_stabilize: bool = False) -> Layer:
    """Returns the layer max(x, 0). `do_stabilize` is taken and not needed: the kernel is exact at any scale.

    >>> kernel_fn = Relu()[2]
    """
    return elementwise_layer(dataclasses.replace(dual_rectified.abrelu(0, 1), fn=jax.nn.relu))


@layer
def ABRelu(a: float, b: float, do_stabilize: bool = False) -> Layer:
    """Returns the layer a min(x, 0) + b max(x, 0). `do_stabilize` is taken and not needed."""
    return elementwise_layer(dual_rectified.abrelu(a, b))


@layer
def LeakyRelu(alpha: float, do_stabilize: bool = False) -> Layer:
    """Returns the layer alpha min(x, 0) + max(x, 0). `do_stabilize` is taken and not needed."""
    return elementwise_layer(dual_rectified.abrelu(alpha, 1))


@layer
def Abs(do_stabilize: bool = False) -> Layer:
    """Returns the layer |x|. `do_stabilize` is taken and not needed."""
    return elementwise_layer(dataclasses.replace(dual_rectified.abrelu(-1, 1), fn=jnp.abs))


@layer
def Sign() -> Layer:
    """Returns the layer sign(x); nothing below it is trained, as its derivative is taken as 0."""
    return elementwise_layer(dual_rectified.sign())


@layer
def RectifiedMonomial(degree: int) -> Layer:
    """Returns the layer x^degree for x >= 0, else 0 (Cho and Saul 2009).

    Raises:
      ConfigError: `degree` is not a non-negative integer.
    """
    return elementwise_layer(dual_rectified.rectified_monomial(degree))


@layer
def Erf(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Layer:
    """Returns the layer a erf(b x) + c."""
    return elementwise_layer(dual_smooth.erf(a, b, c))


@layer
def Sigmoid_like() -> Layer:
    """Returns the layer (1 + erf(x / 2.402...)) / 2, close to the logistic sigmoid."""
    return elementwise_layer(dual_smooth.erf(0.5, 1 / SIGMOID_SCALE, 0.5))


@layer
def Gelu(approximate: bool = False) -> Layer:
    """Returns the layer x Phi(x); with `approximate` `apply_fn` is the tanh approximation, the kernel the same."""
    return elementwise_layer(dual_smooth.gelu(approximate=approximate))


@layer
def Sin(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Layer:
    """Returns the layer a sin(b x + c)."""
    return elementwise_layer(dual_smooth.sin(a, b, c))


@layer
def Cos(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Layer:
    """Returns the layer a cos(b x + c)."""
    return elementwise_layer(dual_smooth.cos(a, b, c))


@layer
def Rbf(gamma: float = 1.0) -> Layer:
    """Returns the layer sqrt(2) sin(sqrt(2 gamma) x + pi / 4), whose kernel is exp(-gamma (q1 + q2 - 2 k)).

    Raises:
      ConfigError: a negative `gamma`.
    """
    if not isinstance(gamma, jax.core.Tracer) and gamma < 0:
        raise ConfigError(f"gamma: expected a number that is not negative, got {gamma}")
    return elementwise_layer(dual_smooth.rbf(gamma))


@layer
def Exp(a: float = 1, b: float = 1) -> Layer:
    """Returns the layer a exp(b x)."""
    return elementwise_layer(dual_smooth.exp(a, b))


@layer
def ExpNormalized(gamma: float = 1, shift: float = -1, do_clip: bool = False) -> Layer:
    """Returns the layer of the kernel sqrt(q1 q2) exp(gamma (cos + shift)); it has no finite-width `apply_fn`.

    Args:
      gamma: steepness.
      shift: added to the correlation.
      do_clip: hold the correlation to [-1, 1].
    """
    return elementwise_layer(dual_smooth.exp_normalized(gamma, shift, clip=do_clip))


@layer
def Gaussian(a: float = 1, b: float = -1) -> Layer:
    """Returns the layer a exp(b x^2)."""
    return elementwise_layer(dual_smooth.gaussian(a, b))


@layer
def Gabor() -> Layer:
    """Returns the layer exp(-x^2) sin(x)."""
    return elementwise_layer(dual_smooth.gabor())


@layer
def Hermite(degree: int) -> Layer:
    """Returns the layer He_n(x) / sqrt(n!), orthonormal for pre-activations of variance 1.

    Raises:
      ConfigError: `degree` is not a non-negative integer.
    """
    return elementwise_layer(dual_polynomial.hermite(degree))


@layer
def Monomial(degree: int) -> Layer:
    """Returns the layer x^degree.

    Raises:
      ConfigError: `degree` is not a non-negative integer.
    """
    return elementwise_layer(dual_polynomial.monomial(degree))


@layer
def Polynomial(coef: Sequence[float]) -> Layer:
    """Returns the layer sum_i coef[i] x^i.

    Raises:
      ConfigError: no coefficient.
    """
    return elementwise_layer(dual_polynomial.polynomial(coef))


@layer
def Elementwise(
    fn: Callable | None = None,
    nngp_fn: Callable | None = None,
    d_nngp_fn: Callable | None = None,
) -> Layer:
    """Returns the layer of any elementwise function, given by itself, by its covariance map, or by both.

    Args:
      fn: x -> phi(x), on arrays; without it there is no finite-width `apply_fn`.
      nngp_fn: (cov12, var1, var2) -> E[phi(u) phi(v)]; by default found from `fn`, with an error that
        `quadrature_error(fn)` measures (1e-6 at most for tanh and the like; see `dual_numerical`).
      d_nngp_fn: (cov12, var1, var2) -> E[phi'(u) phi'(v)]; by default the derivative of `nngp_fn` in its first
        argument (see `dual_given`).

    Raises:
      ConfigError: neither `fn` nor `nngp_fn`, or `d_nngp_fn` without `nngp_fn`.
    """
    if nngp_fn is None and (fn is None or d_nngp_fn is not None):
        raise ConfigError("Elementwise: expected fn or nngp_fn, and nngp_fn wherever d_nngp_fn is given")
    if nngp_fn is None:
        return elementwise_layer(numerical(fn))

    def unknown(x):
        raise NotImplementedError("Elementwise: no fn was given, so there is no layer of finite width")

    return elementwise_layer(given(fn or unknown, nngp_fn, d_nngp_fn))


@layer
def ElementwiseNumerical(fn: Callable, deg: int, df: Callable | None = None) -> Layer:
    """Returns the layer of any elementwise function, its kernel found numerically.

    Args:
      fn: x -> phi(x), on arrays.
      deg: a number of quadrature points, positive; taken for compatibility. Kinks are integrated exactly and the rest
        by a series of fixed length, whose error no choice of `deg` would lower: see `quadrature_error`.
      df: x -> phi'(x); by default by automatic differentiation.

    Raises:
      ConfigError: `deg` is not positive.
    """
    if deg < 1:
        raise ConfigError(f"deg: expected a positive number, got {deg}")
    return elementwise_layer(numerical(fn, df))
