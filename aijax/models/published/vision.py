"""What configs of vision transformers have in common: images and patches, blocks and classes."""

from aijax.errors import ConfigError
from aijax.models.block_spec import LAYERS
from aijax.models.layout import ROWS, Entry, with_ones
from aijax.models.patches import pair
from aijax.models.published.architecture import Fields, shape_of
from aijax.models.published.transformers import PUBLISHED, take_activation
from aijax.models.vit import ViT
from aijax.typing import Any

BLOCK = "encoder/block_{i}/"
PACKED = tuple(BLOCK + f"attention/{part}/*" for part in ("query", "key", "value"))
"""The projections that some layouts have in one tensor."""
PLACES = r".*position_ids"
"""Numbers of places, which old files have as tensors."""


def positions_entry(name: str, ones: int = 1) -> Entry:
    """Returns the line of a table of positions, those of class tokens before those of patches, after axes of size 1."""
    return Entry(name, ("token_positions", "positions"), ROWS, joined=with_ones(ones))


def take_size(fields: Fields, name: str, default: int) -> int | tuple[int, int]:
    """Returns a field that is one size or a pair: height and width."""
    value = fields.take(name, default=default)
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(side, int) for side in value):
        return value[0] if value[0] == value[1] else tuple(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{fields.where}.{name}: expected a size or a pair of them, got {value!r}")
    return value


def read_images(fields: Fields, *, image_size: int = 224, patch_size: int = 16) -> dict[str, Any]:
    """Returns the fields of a ViT that say what images and patches are."""
    image, patch = take_size(fields, "image_size", image_size), take_size(fields, "patch_size", patch_size)
    rest = any(side % part for side, part in zip(pair(image), pair(patch), strict=True))
    return {
        "img_size": image, "patch_size": patch, "drop_rest": rest,
        "in_channels": fields.take("num_channels", int, 3),
    }  # fmt: skip


def read_blocks(
    fields: Fields,
    *,
    width: int,
    depth: int = 12,
    heads: int = 12,
    mlp: int | None = None,
    activation: str = "gelu",
    eps: float,
    attention_dropout: str = "attention_dropout",
) -> dict[str, Any]:
    """Returns the fields of a ViT that say what blocks are; the arguments are the config's defaults."""
    width = fields.take("hidden_size", int, width)
    found = {
        "embed_dim": width, "depth": fields.take("num_hidden_layers", int, depth),
        "num_heads": fields.take("num_attention_heads", int, heads),
        "activation": take_activation(fields, "hidden_act", activation),
        "norm_epsilon": float(fields.take("layer_norm_eps", float, eps)),
        "attention_dropout_rate": float(fields.take(attention_dropout, float, 0.0)),
    }  # fmt: skip
    return found if mlp is None else found | {"mlp_ratio": fields.take("intermediate_size", int, mlp) / width}


def write_vit(model: ViT, *, mlp: bool = True) -> dict[str, Any]:
    """Returns the fields of a config that all vision transformers have."""
    if model.img_size is None:
        raise ConfigError("img_size: a published vision transformer has it, got None")
    config = {
        "hidden_size": model.embed_dim, "num_hidden_layers": model.depth, "num_attention_heads": model.num_heads,
        "hidden_act": PUBLISHED[model.activation], "layer_norm_eps": model.norm_epsilon,
        "image_size": _plain(model.img_size), "patch_size": _plain(model.patch_size),
        "num_channels": 3 if model.in_channels is None else model.in_channels,
    }  # fmt: skip
    return config | ({"intermediate_size": round(model.mlp_ratio * model.embed_dim)} if mlp else {})


def biases(**have: bool) -> tuple[str, ...]:
    """Returns the layers of a block that have a bias: all but those that are said to have none.

    >>> biases(query=False, key=False, value=False)
    ('out', 'gate', 'up', 'down')
    """
    return tuple(name for name in LAYERS if have.get(name, True))


def image_of(model: ViT, config: Any = None) -> dict[str, Any]:
    """Returns the shape of the input of a vision transformer."""
    return {"x": shape_of(1, *pair(model.img_size), 3 if model.in_channels is None else model.in_channels)}


def labels(fields: Fields) -> int | None:
    """Returns the number of classes of a config, None for none."""
    names, default = fields.take("id2label", dict, None), fields.take("num_labels", int, 2)
    return (default if names is None else len(names)) or None


def write_labels(count: int | None) -> dict[str, Any]:
    """Returns the classes of a config by the names that transformers gives to unnamed ones."""
    names = {str(i): f"LABEL_{i}" for i in range(count or 0)}
    return {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}


def _plain(size):
    return size if isinstance(size, int) else list(size)
