"""Features whose inner products approximate a kernel: `phi(x).phi(x') ~ k(x, x')`.

A stationary kernel is the mean of cosines over its spectral density (Bochner; Rahimi and Recht 2007):

    k(x, x') = a E[cos(w.(x - x'))] ~ phi(x).phi(x'),   phi(x) = sqrt(a / D) [cos(w_i.x), sin(w_i.x)]_i

with D frequencies w, so that `phi(x).phi(x) = k(x, x)` exactly and the error elsewhere falls as D^(-1/2). Draws:

- RBF: normal. Matern nu: Student t of 2 nu degrees of freedom. Rational quadratic: normal, of a gamma-distributed
  precision. Each is a normal vector by a random length, and `orthogonal` makes the normal vectors of a block orthogonal
  (Yu et al. 2016, arXiv:1610.09072), which lowers the variance.
- Spectral mixture: its normals, and a sign for each coordinate; cosine: signs; periodic: whole multiples of the basic
  frequency, distributed as the difference of two Poisson numbers (Skellam), which is the Jacobi-Anger expansion.
- A product of such kernels has sums of their frequencies; a sum has the features of its terms side by side.

Linear, polynomial and constant kernels have finitely many features, which are exact; the arc-cosine kernel has random
units (Cho and Saul 2009). Any other product has the products of its factors' features. White noise has none: it is on
no two different points. Features are differentiable in the parameters for fixed key, but for the whole numbers of the
periodic kernel.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.kernels.base import Kernel, Power, Product, Scaled, Sum
from aijax.kernels.constant import Constant, White
from aijax.kernels.dot_product import ArcCosine, Linear, Polynomial
from aijax.kernels.periodic import Cosine, Periodic, SpectralMixture
from aijax.kernels.stationary import RBF, Matern12, Matern32, Matern52, RationalQuadratic, each_coordinate
from aijax.kernels.transforms import Columns, LinearMap, Warped
from aijax.linalg.vectors import check_count
from aijax.parameters import noun
from aijax.typing import Any, Array, Callable, Float, PRNGKey


def random_features(
    key: PRNGKey, kernel: Kernel, num_features: int, x: Float[Array, "n d"], *, orthogonal: bool = True
) -> Callable[[Float[Array, "n d"]], Float[Array, "n f"]]:
    """Returns a map of points `[n, d]` to features `[n, f]` whose inner products approximate `kernel(x1, x2)`.

    Args:
      key: for the frequencies.
      kernel: one of those above, or made of them by sums, products, powers, scales and maps of the inputs.
      num_features: for each term that needs random ones; even, as half of them are cosines and half sines.
      x: points of the kind that the features are for; their number and their values are of no account.
      orthogonal: draw frequencies in orthogonal blocks of d.

    Raises:
      ConfigError: a kernel for which no features are known, an odd number.

    >>> from aijax.kernels.stationary import RBF
    >>> x = jnp.zeros((3, 2))
    >>> features = random_features(jax.random.key(0), RBF(), 64, x)(x)
    >>> features.shape, float((features[0] @ features[1]).round(4))
    ((3, 64), 1.0)
    """
    check_count("num_features", num_features, 2)
    if num_features % 2:
        raise ConfigError(f"num_features: expected an even number, got {num_features}")
    x = jnp.asarray(x)
    return _features(kernel, _Draw(key, num_features // 2, orthogonal), x[:, None] if x.ndim == 1 else x)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FourierFeatures:
    """`sqrt(weights / D) [cos, sin](x.frequencies)`; frequencies `[D, d]`, weights `[D]` or a number."""

    frequencies: Array
    weights: Array

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n f"]:
        angles = jnp.matmul(_rows(x), self.frequencies.T, precision="highest")
        scale = jnp.sqrt(self.weights / len(self.frequencies))
        return jnp.concatenate([scale * jnp.cos(angles), scale * jnp.sin(angles)], 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AffineFeatures:
    """`[scale x, offset]`: of `sum_i scale_i^2 x_i x'_i + offset^2`; without the last where offset is None."""

    scale: Array
    offset: Array | None

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n f"]:
        x = _rows(x)
        linear = self.scale * x
        return linear if self.offset is None else jnp.append(linear, jnp.full_like(x[:, :1], self.offset), 1)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["units", "inner", "scale"], meta_fields=["degree"])
@dataclass(frozen=True)
class RectifiedFeatures:
    """`scale max(0, inner(x).units)^degree`; units `[D, d + 1]`."""

    units: Array
    inner: AffineFeatures
    scale: Array
    degree: int

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n f"]:
        image = jnp.matmul(self.inner(x), self.units.T, precision="highest")
        powers = jnp.where(image > 0, image**self.degree, 0)
        return self.scale * powers / len(self.units) ** 0.5


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class JoinedFeatures:
    """Those of all parts side by side: of the sum of their kernels."""

    parts: tuple

    def __call__(self, x: Any) -> Float[Array, "n f"]:
        return jnp.concatenate([part(x) for part in self.parts], 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MultipliedFeatures:
    """All products of one of each part: of the product of their kernels."""

    parts: tuple

    def __call__(self, x: Any) -> Float[Array, "n f"]:
        def pair(a, b):
            return (a[:, :, None] * b[:, None]).reshape(len(a), -1)

        return functools.reduce(pair, [part(x) for part in self.parts])


@functools.partial(jax.tree_util.register_dataclass, data_fields=["inner", "kernel"], meta_fields=["rule"])
@dataclass(frozen=True)
class MappedFeatures:
    """`inner(transform(x))`; `rule` is the name of the kernel's own transform."""

    inner: Any
    kernel: Any
    rule: str

    def __call__(self, x: Any) -> Float[Array, "n f"]:
        return self.inner(_transformed(self.rule, self.kernel, x))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScaledFeatures:
    """`sqrt(variance) inner(x)`."""

    inner: Any
    variance: Any

    def __call__(self, x: Any) -> Float[Array, "n f"]:
        return jnp.sqrt(self.variance) * self.inner(x)


@noun
class FeatureKernel(Kernel):
    """`phi(x).phi(x')`: the kernel of features, of rank as many as there are. features: any map `[n, d] -> [n, f]`
    that is a pytree, such as those of `random_features` and `nystrom_features`."""

    features: Any

    def gram(self, x1, x2=None):
        left = self.features(x1)
        return jnp.matmul(left, (left if x2 is None else self.features(x2)).T, precision="highest")

    def gram_diagonal(self, x):
        return jnp.sum(self.features(x) ** 2, 1)


@dataclass(frozen=True)
class _Draw:
    """What frequencies are drawn with: key, how many, whether in orthogonal blocks."""

    key: PRNGKey
    count: int
    orthogonal: bool

    def part(self, index: int) -> "_Draw":
        return _Draw(jax.random.fold_in(self.key, index), self.count, self.orthogonal)


def _features(kernel, draw, x):
    spectral = _spectral(kernel, draw, x)
    if spectral is not None:
        return spectral
    if isinstance(kernel, Scaled):
        return ScaledFeatures(_features(kernel.kernel, draw, x), kernel.variance)
    if isinstance(kernel, Sum):
        heard = [k for k in kernel.kernels if not isinstance(k, White)]
        return JoinedFeatures(tuple(_features(k, draw.part(i), x) for i, k in enumerate(heard)))
    if isinstance(kernel, Product | Power):
        return _product(_factors(kernel), draw, x)
    if isinstance(kernel, LinearMap | Columns | Warped):
        name = {LinearMap: "_map", Columns: "_select", Warped: "_warp"}[type(kernel)]
        inner = _features(kernel.kernel, draw, jax.eval_shape(functools.partial(_transformed, name, kernel), x))
        return MappedFeatures(inner, kernel, name)
    if isinstance(kernel, Linear):
        return AffineFeatures(jnp.sqrt(each_coordinate("variance", kernel.variance, x)), None)
    if isinstance(kernel, Polynomial):
        affine = AffineFeatures(jnp.sqrt(each_coordinate("gamma", kernel.gamma, x)), jnp.sqrt(kernel.coef0))
        return MultipliedFeatures((affine,) * kernel.degree)
    if isinstance(kernel, ArcCosine):
        metric = jnp.broadcast_to(each_coordinate("weight_variance", kernel.weight_variance, x), x.shape[1:])
        units = _normal(draw, x.shape[1] + 1, x.dtype, 2 * draw.count)
        scale = jnp.sqrt((2, 2, 2 / 3)[kernel.degree] * kernel.variance)
        inner = AffineFeatures(jnp.sqrt(metric), jnp.sqrt(kernel.bias_variance))
        return RectifiedFeatures(units, inner, scale, kernel.degree)
    raise ConfigError(f"kernel: no features are known of {type(kernel).__name__}")


def _spectral(kernel, draw, x):
    """Returns the Fourier features of a kernel with a spectral density, else None."""
    d, dtype = x.shape[-1], x.dtype
    if isinstance(kernel, RBF | Matern12 | Matern32 | Matern52 | RationalQuadratic):
        directions = _normal(draw.part(0), d, dtype, draw.count)
        lengthscale = each_coordinate("lengthscale", kernel.lengthscale, x)
        radius = jnp.sqrt(_precision(kernel, draw.part(1), dtype))[:, None]
        return FourierFeatures(radius * directions / lengthscale, jnp.asarray(kernel.variance, dtype))
    if isinstance(kernel, SpectralMixture):
        return _of_mixture(kernel, draw, x)
    if isinstance(kernel, Cosine):
        signs = jax.random.rademacher(draw.key, (draw.count, d), dtype)
        period = each_coordinate("period", kernel.period, x)
        return FourierFeatures(2 * jnp.pi * signs / period, jnp.asarray(kernel.variance, dtype))
    if isinstance(kernel, Periodic):
        rate = jnp.broadcast_to(each_coordinate("lengthscale", kernel.lengthscale, x) ** -2 / 2, (d,))
        more, less = (jax.random.poisson(draw.part(i).key, rate, (draw.count, d)) for i in range(2))
        period = each_coordinate("period", kernel.period, x)
        return FourierFeatures(2 * jnp.pi * (more - less) / period, jnp.asarray(kernel.variance, dtype))
    if isinstance(kernel, Constant):
        return FourierFeatures(jnp.zeros((1, d), dtype), jnp.asarray(kernel.variance, dtype))
    return None


def _of_mixture(kernel, draw, x):
    """Each mixture gets its share of the frequencies in turn, so that no draw decides between them."""
    d, dtype = x.shape[1], x.dtype
    weights = jnp.asarray(kernel.weights, dtype)
    mixtures = len(weights)
    if draw.count < mixtures:
        raise ConfigError(f"num_features: expected at least {2 * mixtures} for {mixtures} mixtures")
    means, scales = (jnp.asarray(v, dtype).reshape(mixtures, d) for v in (kernel.means, kernel.scales))
    turn = jnp.arange(draw.count) % mixtures
    share = jnp.bincount(turn, length=mixtures) / draw.count
    signs = jax.random.rademacher(draw.part(0).key, (draw.count, d), dtype)
    normals = _normal(draw.part(1), d, dtype, draw.count)
    frequencies = 2 * jnp.pi * (signs * means[turn] + scales[turn] * normals)
    return FourierFeatures(frequencies, (weights / share.astype(dtype))[turn])


def _product(factors, draw, x):
    """Frequencies of factors with a spectral density add up; the features of others multiply."""
    constants = [k for k in factors if isinstance(k, Constant)]
    others = [k for k in factors if not isinstance(k, Constant)]
    variance = math.prod([k.variance for k in constants])
    known = [(_spectral(k, draw.part(i), x), k, i) for i, k in enumerate(others)]
    fourier = [f for f, _, _ in known if f is not None]
    parts = [_features(k, draw.part(i), x) for f, k, i in known if f is None]
    if fourier:
        frequencies = sum(f.frequencies for f in fourier)
        parts.append(FourierFeatures(frequencies, math.prod([f.weights for f in fourier])))
    if not parts:
        return FourierFeatures(jnp.zeros((1, x.shape[1]), x.dtype), jnp.asarray(variance, x.dtype))
    result = parts[0] if len(parts) == 1 else MultipliedFeatures(tuple(parts))
    return ScaledFeatures(result, variance) if constants else result


def _factors(kernel):
    """Returns the kernels whose product a kernel is; a scale is a constant among them."""
    if isinstance(kernel, Product):
        return [factor for k in kernel.kernels for factor in _factors(k)]
    if isinstance(kernel, Power):
        return _factors(kernel.kernel) * kernel.exponent
    if isinstance(kernel, Scaled):
        return [Constant(kernel.variance), *_factors(kernel.kernel)]
    return [kernel]


def _precision(kernel, draw, dtype):
    """Returns draws of s where the spectral density is that of sqrt(s) times a normal vector, `[D]`."""
    if isinstance(kernel, RBF):
        return jnp.ones(draw.count, dtype)
    if isinstance(kernel, RationalQuadratic):
        alpha = jnp.asarray(kernel.alpha, dtype)
        return jax.random.gamma(draw.key, alpha, (draw.count,), dtype) / alpha
    nu = {Matern12: 0.5, Matern32: 1.5, Matern52: 2.5}[type(kernel)]
    return nu / jax.random.gamma(draw.key, nu, (draw.count,), dtype)


def _normal(draw, dimension, dtype, count):
    """Returns standard normal vectors `[count, d]`; orthogonal ones are each of that law, and orthogonal in blocks."""
    normals = jax.random.normal(draw.key, (count, dimension), dtype)
    if not draw.orthogonal:
        return normals
    blocks = -(-count // dimension)
    square = jax.random.normal(draw.part(0).key, (blocks, dimension, dimension), dtype)
    basis, triangle = jnp.linalg.qr(square)
    # signs of the triangle's diagonal make the basis uniform over all rotations
    basis = basis * jnp.sign(jnp.diagonal(triangle, axis1=1, axis2=2))[:, None]
    return jnp.linalg.norm(normals, axis=1, keepdims=True) * basis.reshape(-1, dimension)[:count]


def _transformed(name, kernel, x):
    return getattr(kernel, name)(_rows(x))


def _rows(x):
    return x[:, None] if jnp.ndim(x) == 1 else x
