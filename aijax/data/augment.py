"""What happens to a batch of images between the pipeline and the model, as pure functions on the device.

`make_augment` gives the random part, for training only; `make_preprocess` the deterministic part, which training,
evaluation and inference share. A training step computes `preprocess(augment(key, batch))`, everything else
`preprocess(batch)`. Both leave what they do not know of a batch as it is.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from aijax.binding import bind
from aijax.data import geometry, mixing
from aijax.data.rand_augment import rand_augment
from aijax.errors import ConfigError
from aijax.typing import Array, Batch, PRNGKey, Shaped


def make_augment(
    section: Mapping[str, Any], num_classes: int | None, where: str = "config.augment"
) -> Callable[[PRNGKey, Batch], Batch]:
    """Returns `augment(key, batch) -> batch` as a config section describes it: the fields are those of `augment`.

    Args:
      section: field to value; empty augments nothing.
      num_classes: of the labels; needed where labels are mixed.
      where: the section's place in the config, for messages.

    Raises:
      ConfigError: an unknown field, a value of a wrong type or out of range.

    >>> fn = make_augment({"translate": 1, "mixup": 0.2}, num_classes=10)
    >>> batch = {"image": jnp.ones((4, 8, 8, 1)), "label": jnp.arange(4)}
    >>> jax.tree.map(lambda x: x.shape, fn(jax.random.key(0), batch))
    {'image': (4, 8, 8, 1), 'label': (4, 10)}
    """
    bind(augment, section, where, key=None, batch=None, num_classes=num_classes)
    fields = dict(section.items())
    _check(fields, num_classes, where)

    def apply(key: PRNGKey, batch: Batch) -> Batch:
        return augment(key, batch, num_classes=num_classes, **fields)

    return apply


def augment(
    key: PRNGKey,
    batch: Batch,
    *,
    num_classes: int | None = None,
    crop_area: tuple[float, float] | None = None,
    rotate: float = 0.0,
    shear: float = 0.0,
    stretch: float = 0.0,
    translate: int = 0,
    padding: Literal["constant", "reflect", "edge"] = "constant",
    flip: bool = False,
    rand_augment_layers: int = 0,
    rand_augment_magnitude: float = 9.0,
    erase: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> Batch:
    """Returns a batch with its images augmented, as float32 in 0..1, and its labels soft where they are mixed.

    Args:
      key: of all draws.
      batch: `"image"` `[b, h, w, c]` uint8, or floating point in 0..1, and int32 `"label"` `[b]`.
      num_classes: of the labels.
      crop_area: least and largest share of the image that a random resized crop keeps, such as (0.08, 1.0).
      rotate: degrees that an image is turned at most, each way.
      shear: largest shear, each way.
      stretch: a side becomes at most `exp(stretch)` times longer or shorter.
      translate: pixels that an image moves at most, each way; 4 is the usual "pad by 4 and crop" of CIFAR.
      padding: what comes in from outside: zeros ("constant"), the mirrored image ("reflect"), its border ("edge").
      flip: whether half of the images are mirrored left to right.
      rand_augment_layers: operations of RandAugment an image goes through.
      rand_augment_magnitude: 0 to 10.
      erase: probability that a box of an image is erased.
      mixup, cutmix: alpha of the Beta distribution, 0 for none; with both, each batch draws one of them.

    Everything is done in the order of the arguments.
    """
    keys = dict(zip(("crop", "move", "flip", "rand", "erase", "mix"), jax.random.split(key, 6), strict=True))
    keys["bend"] = jax.random.fold_in(key, 6)
    images = batch["image"]
    if crop_area is not None:
        images = geometry.random_resized_crop(keys["crop"], to_unit(images), area=crop_area)
    if rotate or shear or stretch:
        images = geometry.random_affine(keys["bend"], to_unit(images), degrees=rotate, shear=shear, scale=stretch)
    if translate:
        images = geometry.random_crop(keys["move"], images, translate, mode=padding)
    if flip:
        images = geometry.random_flip(keys["flip"], images)
    if rand_augment_layers:
        images = rand_augment(keys["rand"], to_bytes(images), rand_augment_layers, rand_augment_magnitude)
    images = to_unit(images)
    if erase:
        images = geometry.random_erase(keys["erase"], images, erase)
    if not (mixup or cutmix):
        return {**batch, "image": images}
    images, labels = _mix(keys["mix"], images, jax.nn.one_hot(batch["label"], num_classes), mixup, cutmix)
    return {**batch, "image": images, "label": labels}


def make_preprocess(section: Mapping[str, Any], where: str = "config.preprocess") -> Callable[[Batch], Batch]:
    """Returns `preprocess(batch) -> batch` as a config section describes it: the fields are those of `preprocess`.

    Raises:
      ConfigError: an unknown field, a deviation that is not positive, means without deviations.
    """
    bind(preprocess, section, where, batch=None)
    mean, std = section.get("mean"), section.get("std")
    if (mean is None) != (std is None) or (mean is not None and len(mean) != len(std)):
        raise ConfigError(f"{where}.std: expected one deviation a channel beside the mean {mean}, got {std}")
    if std is not None and min(std, default=0) <= 0:
        raise ConfigError(f"{where}.std: expected deviations above 0, got {std}")
    return lambda batch: preprocess(batch, mean=mean, std=std)


def preprocess(batch: Batch, *, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None) -> Batch:
    """Returns a batch with its images as float32, `(x - mean) / std` a channel, where x is in 0..1.

    A batch without images is returned as it is.
    """
    if "image" not in batch:
        return batch
    images = to_unit(batch["image"])
    if mean is not None:
        images = (images - jnp.asarray(mean, images.dtype)) / jnp.asarray(std, images.dtype)
    return {**batch, "image": images}


def to_unit(images: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """Returns uint8 images as float32 in 0..1; images in floating point are returned as they are."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def to_bytes(images: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """Returns floating point images in 0..1 as uint8, rounded; uint8 images are returned as they are."""
    return images if images.dtype == jnp.uint8 else jnp.round(jnp.clip(images, 0, 1) * 255).astype(jnp.uint8)


def _mix(key: PRNGKey, images: Array, labels: Array, mixup: float, cutmix: float) -> tuple[Array, Array]:
    choice_key, key = jax.random.split(key)
    if not cutmix:
        return mixing.mixup(key, images, labels, mixup)
    if not mixup:
        return mixing.cutmix(key, images, labels, cutmix)
    return jax.lax.cond(
        jax.random.bernoulli(choice_key),
        lambda: mixing.mixup(key, images, labels, mixup),
        lambda: mixing.cutmix(key, images, labels, cutmix),
    )


def _check(fields: Mapping[str, Any], num_classes: int | None, where: str) -> None:
    limits = {
        "translate": None,
        "rand_augment_layers": None,
        "rand_augment_magnitude": 10,
        "erase": 1,
        "rotate": 180,
        "shear": None,
    }
    for name, top in {**limits, "stretch": None, "mixup": None, "cutmix": None}.items():
        value = fields.get(name, 0)
        if value < 0 or (top is not None and value > top):
            raise ConfigError(f"{where}.{name}: expected {f'0 to {top}' if top else '0 or more'}, got {value}")
    area = fields.get("crop_area")
    if area is not None and not 0 < area[0] <= area[1] <= 1:
        raise ConfigError(f"{where}.crop_area: expected shares 0 < least <= largest <= 1, got {area}")
    for name in ("mixup", "cutmix"):
        if fields.get(name) and num_classes is None:
            raise ConfigError(f"{where}.{name}: mixes the labels of classes, and this data has none")
