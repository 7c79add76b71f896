"""Inputs that excite a unit most (Erhan et al. 2009): of a ball or a box to the optimum, and images that can be read.

    x* = argmax_x a(x)   in   |x| <= R,    |x| = R    or    low <= x <= high

The ball is the image of all of space under the smooth x = R sin(|u|) u / |u|, the sphere under x = R u / |u|, so that
L-BFGS finds local maxima of a in u to its tolerance; a box it knows itself. Many starts run together and the best comes
first. An image is found by the gradients of

    E_t [a(t(x))] - lambda_2 mean (x - 1/2)^2 - lambda_TV mean(|dx/dh| + |dx/dw|),        x = sigmoid(C y)

over random views t, which keep it from high frequencies that no natural image has (Mordvintsev et al. 2015). What is
searched is the spectrum of y, each frequency f scaled by 1 / f^decay as those of natural images are, and C is a square
root of the covariance of colours: steps are then alike in all directions (Olah et al. 2017, "Preconditioning").
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.ndimage import map_coordinates

from aijax.descent import descend
from aijax.errors import ConfigError, choose
from aijax.interp.neurons import layer_values
from aijax.known import known
from aijax.lbfgs import SAME_VALUE, SMALL_GRADIENT, lbfgs_race
from aijax.typing import Any, Array, Callable, Float, Int, Params, PRNGKey, PyTree

Activation = Callable[[Array], Array]
View = Callable[[PRNGKey, Array], Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Maxima:
    """Where the restarts of a maximisation came to, the best first; a start that failed has value -inf and comes last.

    Attributes:
      x: `[restarts, *shape]`.
      value: the activation there.
      status: an index of `aijax.lbfgs.REASONS`.
    """

    x: Float[Array, "r ..."]
    value: Float[Array, " r"]
    status: Int[Array, " r"]

    @property
    def converged(self) -> Array:
        """Whether each is a local maximum to the tolerance or to rounding."""
        return (self.status == SMALL_GRADIENT) | (self.status == SAME_VALUE)


def maximize_in_ball(
    key: PRNGKey,
    activation: Activation,
    shape: Sequence[int],
    radius: Float[Array, ""] | float,
    *,
    on_sphere: bool = False,
    restarts: int = 32,
    max_steps: int = 200,
    tolerance: float = 1e-6,
) -> Maxima:
    """Returns local maxima of an activation over |x| <= radius.

    Args:
      key: of the starts.
      activation: a scalar of x, differentiable.
      shape: of x; the norm is over all of its entries.
      radius: above 0.
      on_sphere: |x| = radius instead.
      restarts: how many starts.
      max_steps: of each.
      tolerance: of the gradient in u.

    Raises:
      ConfigError: a radius or a number of restarts that is not positive, an activation that is no scalar.

    >>> jax.eval_shape(lambda key: maximize_in_ball(key, jnp.sum, (5,), 2.0, restarts=3), jax.random.key(0)).x.shape
    (3, 5)
    """
    if known(radius > 0) is False:
        raise ConfigError(f"radius: expected more than 0, got {radius}")

    def place(u):
        return radius * (_direction(u) if on_sphere else _folded(u))

    check_activation(activation, jax.ShapeDtypeStruct(tuple(shape), jnp.result_type(float)), restarts)
    starts = jax.random.normal(key, (restarts, *shape))
    options = {"max_steps": max_steps, "tolerance": tolerance}
    minima = lbfgs_race(lambda u: -activation(place(u)), starts, **options)
    return _sorted(jax.vmap(place)(minima.x), -minima.value, minima.status)


def maximize_in_box(
    key: PRNGKey,
    activation: Activation,
    low: Float[Array, "..."],
    high: Float[Array, "..."],
    *,
    restarts: int = 32,
    max_steps: int = 200,
    tolerance: float = 1e-6,
) -> Maxima:
    """Returns local maxima of an activation over low <= x <= high.

    Args: as `maximize_in_ball`; low, high: of the shape of x.

    Raises:
      ConfigError: a box that is empty or whose edges are of two shapes, and as `maximize_in_ball`.
    """
    low, high = jnp.asarray(low, float), jnp.asarray(high, float)
    if low.shape != high.shape:
        raise ConfigError(f"high: expected the shape of low, {list(low.shape)}, got {list(high.shape)}")
    if not isinstance(low - high, jax.core.Tracer) and not np.all(low < high):
        raise ConfigError("high: expected more than low in each entry")
    check_activation(activation, low, restarts)
    starts = jax.random.uniform(key, (restarts, *low.shape), minval=low, maxval=high)
    options = {"lower": low, "upper": high, "max_steps": max_steps, "tolerance": tolerance}
    minima = lbfgs_race(lambda x: -activation(x), starts, **options)
    return _sorted(minima.x, -minima.value, minima.status)


def maximize_image(
    key: PRNGKey,
    activation: Activation,
    shape: tuple[int, int, int],
    *,
    parametrization: str = "fourier",
    decay: float = 1.0,
    colour_factor: Float[Array, "c c"] | None = None,
    view: View | None = None,
    l2: float = 0.0,
    total_variation: float = 0.0,
    restarts: int = 4,
    steps: int = 256,
    learning_rate: float = 0.05,
    initial_scale: float = 0.01,
) -> Maxima:
    """Returns images, of values from 0 to 1, that excite a unit; `value` is of the whole image, penalties left out.

    Args:
      key: of the starts and the views.
      activation: a scalar of an image `[h, w, c]`.
      shape: of the image.
      parametrization: "fourier" or "pixels".
      decay: power of the frequency by which the spectrum falls.
      colour_factor: C, such as `colour_factor(images)`; None for channels that know nothing of each other.
      view: `view(key, image) -> image`, drawn anew at each step, such as `random_view` with its options bound.
      l2, total_variation: weights of the penalties.
      restarts: images, each from its own noise.
      steps, learning_rate: of Adam.
      initial_scale: of the first noise.

    Raises:
      ConfigError: a shape that is not of an image, an unknown parametrisation, an activation that is no scalar.

    >>> jax.eval_shape(lambda key: maximize_image(key, jnp.mean, (8, 8, 3), restarts=2), jax.random.key(0)).x.shape
    (2, 8, 8, 3)
    """
    if len(shape) != 3:
        raise ConfigError(f"shape: expected height, width and channels, got {tuple(shape)}")
    start, paint = choose({"fourier": _spectrum, "pixels": _pixels}, parametrization, "parametrization")(shape, decay)
    check_activation(activation, jax.ShapeDtypeStruct(tuple(shape), jnp.result_type(float)), restarts)

    def image_of(parameters):
        y = paint(parameters)
        return jax.nn.sigmoid(y if colour_factor is None else y @ colour_factor.T)

    def cost(parameters, key):
        image = image_of(parameters)
        seen = image if view is None else view(key, image)
        variation = jnp.abs(jnp.diff(image, axis=0)).mean() + jnp.abs(jnp.diff(image, axis=1)).mean()
        return l2 * jnp.mean((image - 0.5) ** 2) + total_variation * variation - activation(seen)

    def run(key):
        start_key, view_key = jax.random.split(key)
        noise = initial_scale * jax.random.normal(start_key, start)
        options = {"max_steps": steps, "tolerance": 0.0}
        found = descend(cost, noise, optimizer=optax.adam(learning_rate), key=view_key, **options)
        image = image_of(found.x)
        return image, activation(image), found.status

    return _sorted(*jax.vmap(run)(jax.random.split(key, restarts)))


def neuron_activation(
    apply_fn: Callable[[Params, Array], PyTree],
    params: Params,
    layer_name: str,
    neuron: int,
    *,
    layer: int | None = None,
) -> Activation:
    """Returns `x -> ` the activation of a neuron on one example, the mean over its positions, to be maximised.

    Args:
      apply_fn: `apply_fn(params, batch)`, whose values have names; it is given a batch of one.
      params: of it.
      layer_name, layer: as `aijax.interp.neurons.compute_neuron_activation_patterns` has them.
      neuron: index of the last axis.

    Raises, when it is called:
      ConfigError: a name that is not there or matches several, a neuron or a layer that is not there.

    >>> from aijax.taps import tap
    >>> activation = neuron_activation(lambda w, x: tap("hidden", x @ w), jnp.eye(3), "hidden", 1)
    >>> float(activation(jnp.array([1.0, 2.0, 3.0])))
    2.0
    """

    def activation(x):
        values = layer_values(apply_fn, params, x[None], layer_name, layer)
        if not -values.shape[-1] <= neuron < values.shape[-1]:
            raise ConfigError(f"neuron: expected 0 to {values.shape[-1] - 1} of {layer_name}, got {neuron}")
        return values[..., neuron].mean()

    return activation


def random_view(
    key: PRNGKey,
    image: Float[Array, "h w c"],
    *,
    jitter: float = 0.0,
    scale: float = 0.0,
    degrees: float = 0.0,
) -> Float[Array, "h w c"]:
    """Returns the image moved, scaled and turned about its centre at random (bilinear, the edge repeated outside).

    Args:
      key: of the draws, which are uniform.
      image: floating point.
      jitter: largest move in pixels, each way along each side.
      scale: sides become `exp(u)` times as long, |u| at most this.
      degrees: largest rotation, each way.
    """
    h, w, _ = image.shape
    move_key, scale_key, turn_key = jax.random.split(key, 3)
    move = jitter * jax.random.uniform(move_key, (2,), minval=-1, maxval=1)
    side = jnp.exp(-scale * jax.random.uniform(scale_key, minval=-1, maxval=1))
    angle = jnp.deg2rad(degrees) * jax.random.uniform(turn_key, minval=-1, maxval=1)
    y, x = jnp.arange(h)[:, None] - (h - 1) / 2, jnp.arange(w) - (w - 1) / 2
    rows = side * (jnp.cos(angle) * y - jnp.sin(angle) * x) + (h - 1) / 2 + move[0]
    columns = side * (jnp.sin(angle) * y + jnp.cos(angle) * x) + (w - 1) / 2 + move[1]
    plane = functools.partial(map_coordinates, coordinates=[rows, columns], order=1, mode="nearest")
    return jax.vmap(plane, in_axes=-1, out_axes=-1)(image)


def colour_factor(images: Float[Array, "n h w c"]) -> Float[Array, "c c"]:
    """Returns C with C C^T the covariance of the channels over the pixels of images, scaled to a largest value of 1."""
    values, vectors = jnp.linalg.eigh(jnp.atleast_2d(jnp.cov(images.reshape(-1, images.shape[-1]).T)))
    return vectors * jnp.sqrt(jnp.maximum(values, 0) / values[-1])


def check_activation(activation: Activation, x: Any, restarts: int) -> None:
    """Raises a `ConfigError` for an activation that is no scalar at x, an array or its shape, or for no start."""
    if restarts < 1:
        raise ConfigError(f"restarts: expected 1 or more, got {restarts}")
    found = jax.eval_shape(activation, x)
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        told = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", found)
        raise ConfigError(f"activation: expected a floating scalar, got {told}")


def _sorted(x, value, status):
    value = jnp.where(jnp.isfinite(value), value, -jnp.inf)
    order = jnp.argsort(-value)
    return Maxima(x[order], value[order], status[order])


def _folded(u):
    """sin(|u|) u / |u|, smooth everywhere."""
    square = jnp.sum(u**2)
    near = square < 1e-6
    length = jnp.sqrt(jnp.where(near, 1.0, square))
    return u * jnp.where(near, 1 - square / 6, jnp.sin(length) / length)


def _direction(u):
    return u / jnp.linalg.norm(u)


def _pixels(shape, decay):
    return tuple(shape), lambda pixels: pixels


def _spectrum(shape, decay):
    """The shape of the parameters and what paints of them: the real and imaginary parts of half a spectrum."""
    h, w, c = shape
    frequencies = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w))
    scale = (h * w) ** 0.5 / np.maximum(frequencies, 1 / max(h, w))[..., None] ** decay / 4

    def paint(parts):
        return jnp.fft.irfft2(jax.lax.complex(*parts) * scale, (h, w), axes=(0, 1))

    return (2, h, w // 2 + 1, c), paint
