"""A classifier of images trained in one go: a judge of what a generator makes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aijax import models
from aijax.data import Source, stream
from aijax.errors import ConfigError
from aijax.train.state import init_state
from aijax.train.step import make_step
from aijax.typing import Any, Array, Callable, Mapping


def fit_classifier(
    source: Source,
    *,
    model: Mapping,
    epochs: int,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    seed: int = 0,
    where: str = "classifier",
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Returns `images -> logits [n, k]` and `images -> features [n, d]`, what the logits are linear in.

    It is trained by AdamW with weight decay 0.05 and a cosine of the learning rate. Images are uint8, or from 0 to 1.

    Args:
      source: of images and their k classes.
      model: section of a model that has a `head`, as of `aijax.models.build`.
      epochs: passes over the source.
      batch_size: default 128, at most the size of the source.
      learning_rate: at the start, default 3e-3.
      seed: of parameters and batches.
      where: the section's place in the config, for messages.

    Raises:
      ConfigError: a source without classes, a model that cannot be built.
    """
    if source.classes is None:
        raise ConfigError(f"{where}: a classifier needs classes and the data have none")
    classifier = models.build(model, f"{where}.model", num_classes=len(source.classes))
    batch_size = min(batch_size, len(source))
    steps = max(1, epochs * len(source) // batch_size)
    optimizer = optax.adamw(optax.cosine_decay_schedule(learning_rate, steps), weight_decay=0.05)

    def loss_fn(params, batch, key):
        logits = classifier.apply({"params": params}, as_unit(batch["image"]))
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean(), {}

    step = jax.jit(make_step(loss_fn, optimizer))
    key = jax.random.key(seed)
    image = jax.ShapeDtypeStruct((1, *source.spec["image"].shape), jnp.float32)
    state = init_state(models.init(key, classifier, image), optimizer)
    for _, batch in zip(range(steps), stream(source, batch_size, seed=seed).iterate(0), strict=False):
        state, _ = step(state, batch, key)
    featureless = classifier.clone(num_classes=None)
    body = {name: leaf for name, leaf in state.params.items() if name != "head"}
    return (
        lambda x: classifier.apply({"params": state.params}, as_unit(x)),
        lambda x: featureless.apply({"params": body}, as_unit(x)),
    )


def as_unit(images: Any) -> Array:
    """Returns images as float32 from 0 to 1, from that or uint8.

    >>> as_unit(np.array([255], np.uint8)).tolist()
    [1.0]
    """
    return images / 255 if images.dtype == np.uint8 else jnp.asarray(images, jnp.float32)
