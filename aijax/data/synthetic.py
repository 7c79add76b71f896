"""Images of noise in any number, size and shape: to check, time and measure a run where its data set is not.

Image i is one of a few that are drawn once, and its label is drawn from its number; nothing can be learned from them.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from aijax.data.parts import check_split
from aijax.data.source import Source, shape_of
from aijax.errors import ConfigError

DISTINCT = 64


def synthetic(
    split: str,
    field: str = "config.data",
    *,
    image_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    train_size: int = 1_281_167,
    test_size: int = 50_000,
    seed: int = 0,
) -> Source:
    """Returns uint8 images of noise with labels; the sizes are those of ImageNet-1k unless they are given.

    Args:
      split: "train", "validation" or "test"; the validation is as large as the test.
      field: the config section, for messages.
      image_shape: height, width and channels.
      num_classes: of the labels.
      train_size, test_size: images.
      seed: of the noise.

    Raises:
      ConfigError: a size that is not above 0.

    >>> source = synthetic("test", image_shape=(8, 8, 3), num_classes=5)
    >>> len(source), source[np.array([3, 49_999])]["image"].shape
    (50000, (2, 8, 8, 3))
    """
    check_split(split, field)
    sizes = {"train_size": train_size, "test_size": test_size, "num_classes": num_classes}
    sizes |= {f"image_shape[{axis}]": size for axis, size in enumerate(image_shape)}
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{field}.{name}: expected 1 or more, got {size}")
    return Noise(train_size if split == "train" else test_size, tuple(image_shape), num_classes, seed)


@dataclasses.dataclass(frozen=True, eq=False)
class Noise:
    """What `synthetic` gives."""

    size: int
    image_shape: tuple[int, int, int]
    num_classes: int
    seed: int
    read_threads: int = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        indices = np.asarray(indices)
        return {"image": self._images[indices % DISTINCT], "label": self.labels[indices]}

    @property
    def spec(self) -> dict[str, Any]:
        return {"image": shape_of(self.image_shape, np.uint8), "label": shape_of((), np.int32)}

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.num_classes)))

    @functools.cached_property
    def _images(self) -> np.ndarray:
        return np.random.default_rng(self.seed).integers(0, 256, (DISTINCT, *self.image_shape), np.uint8)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        return np.random.default_rng([self.seed, 1]).integers(0, self.num_classes, self.size).astype(np.int32)
