"""Encoded images (JPEG, PNG and whatever Pillow reads) to arrays."""

import io

import numpy as np

from aijax.errors import ConfigError, DataError


def height_and_width(size: int | tuple[int, int], where: str) -> tuple[int, int]:
    """Returns the height and width that a number of pixels, or a pair of them, stands for.

    Args:
      size: pixels.
      where: the field, for messages.

    Raises:
      ConfigError: a number that is not positive.

    >>> height_and_width(32, "config.data.size")
    (32, 32)
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ConfigError(f"{where}: expected pixels, 1 or more, got {size}")
    return height, width


def decode_image(
    encoded: bytes, where: str, mode: str | None = None, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Returns an encoded image as uint8 `[h, w, c]`.

    Args:
      encoded: the bytes of an image file.
      where: the file and record, for messages.
      mode: "RGB" or "L"; None keeps grey images grey and makes the others RGB.
      size: height and width; an image of another size is turned upright, scaled (bilinear, antialiased) until it covers
        them, and cut to its centre. None keeps the image's own size.

    Raises:
      DataError: bytes that are no image, or not all of one.
    """
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(encoded)) as image:
            return to_pixels(image, mode, size)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not a readable image: {str(error).splitlines()[0]}") from error


def to_pixels(image, mode: str | None = None, size: tuple[int, int] | None = None) -> np.ndarray:
    """Returns a Pillow image as uint8 `[h, w, c]`; `mode` and `size` are those of `decode_image`."""
    from PIL import Image, ImageOps

    mode = mode or ("L" if image.mode in ("1", "L") else "RGB")
    if size is not None:
        image = ImageOps.exif_transpose(image)
    if image.mode != mode:
        image = image.convert(mode)
    if size is not None and image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
    pixels = np.array(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
