"""Images corrupted in common ways and degrees, to measure how a classifier bears what it was not trained on.

Each corruption has five severities. Noise is drawn for each pixel; a blur is a convolution with a Gaussian; contrast
and saturation are lines through a grey image, brightness is added, pixelation makes the image small and large again.

Source: D. Hendrycks, T. Dietterich, Benchmarking neural network robustness to common corruptions and perturbations
(2019), appendix B. The severities are those of ImageNet-C; of the blur, measured as a share of the image, those of
CIFAR-10-C.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.typing import Array, Float, PRNGKey

Images = Float[Array, "b h w c"]


def corrupt(key: PRNGKey, images: Images, name: str, severity: int = 3) -> Images:
    """Returns images in 0..1 corrupted in one way.

    Args:
      key: of the noise.
      images: floating point in 0..1, channels last.
      name: one of `CORRUPTIONS`.
      severity: 1 to 5.

    Raises:
      ConfigError: an unknown name, a severity out of range.

    >>> corrupt(jax.random.key(0), jnp.full((1, 4, 4, 1), 0.5), "brightness", 2)[0, 0, 0].round(2).tolist()
    [0.699999988079071]
    """
    check_corruption(name, severity)
    function, levels = CORRUPTIONS[name]
    return jnp.clip(function(key, images, levels[severity - 1]), 0, 1)


def check_corruption(name: str, severity: int, where: str = "corruption") -> None:
    """Raises a `ConfigError` for an unknown corruption, or a severity that is not 1 to 5."""
    choose(CORRUPTIONS, name, where)
    if severity not in range(1, 6):
        raise ConfigError(f"{where}: expected a severity of 1 to 5, got {severity!r}")


def gaussian_noise(key: PRNGKey, images: Images, deviation: float) -> Images:
    """Adds normal noise."""
    return images + deviation * jax.random.normal(key, images.shape, images.dtype)


def speckle_noise(key: PRNGKey, images: Images, deviation: float) -> Images:
    """Multiplies by one plus normal noise."""
    return images * (1 + deviation * jax.random.normal(key, images.shape, images.dtype))


def shot_noise(key: PRNGKey, images: Images, photons: float) -> Images:
    """Counts a Poisson number of photons, `photons` for white."""
    return jax.random.poisson(key, images * photons).astype(images.dtype) / photons


def impulse_noise(key: PRNGKey, images: Images, share: float) -> Images:
    """Makes a share of the values black or white."""
    chosen_key, white_key = jax.random.split(key)
    white = jax.random.bernoulli(white_key, 0.5, images.shape).astype(images.dtype)
    return jnp.where(jax.random.bernoulli(chosen_key, share, images.shape), white, images)


def gaussian_blur(key: PRNGKey, images: Images, width: float) -> Images:
    """Convolves with a Gaussian whose deviation is `width` times the height; the border goes on outside."""
    return _along(_along(images, 1, width * images.shape[1]), 2, width * images.shape[1])


def pixelate(key: PRNGKey, images: Images, scale: float) -> Images:
    """Makes images smaller by `scale`, and large again without smoothing."""
    b, h, w, c = images.shape
    small = (b, max(1, round(h * scale)), max(1, round(w * scale)), c)
    return jax.image.resize(jax.image.resize(images, small, "linear"), images.shape, "nearest")


def contrast(key: PRNGKey, images: Images, factor: float) -> Images:
    """Draws each channel of an image towards its mean."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + factor * (images - mean)


def brightness(key: PRNGKey, images: Images, amount: float) -> Images:
    """Adds light."""
    return images + amount


def saturation(key: PRNGKey, images: Images, factor: float) -> Images:
    """Draws colours towards grey (below 1) or away from it."""
    grey = images.mean(axis=3, keepdims=True)
    return grey + factor * (images - grey)


CORRUPTIONS: dict[str, tuple[Callable, tuple[float, ...]]] = {
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "gaussian_blur": (gaussian_blur, (0.4 / 32, 0.6 / 32, 0.7 / 32, 0.8 / 32, 1 / 32)),
    "gaussian_noise": (gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "impulse_noise": (impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "pixelate": (pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "saturation": (saturation, (0.3, 0.1, 2.0, 5.0, 20.0)),
    "shot_noise": (shot_noise, (60.0, 25.0, 12.0, 5.0, 3.0)),
    "speckle_noise": (speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6)),
}
"""Each corruption with what it takes at severities 1 to 5."""


def _along(images: Images, axis: int, deviation: float) -> Images:
    """Returns images under a Gaussian along an axis."""
    reach = max(1, round(4 * deviation))
    weights = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1) / deviation) ** 2)
    weights = (weights / weights.sum()).astype(images.dtype)
    padding = [(0, 0)] * 4
    padding[axis] = (reach, reach)
    padded = jnp.pad(images, padding, mode="edge")
    size = images.shape[axis]
    return sum(w * jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i, w in enumerate(weights))
