"""Published classes by name, one file a family: their configs, and the names of their tensors."""

from aijax.models.published import (
    bert,
    clip,
    diffusers,
    dino,
    gpt2,
    llama,
    mae,
    npz,
    open_clip,
    t5,
    text_towers,
    timm,
    vit,
)
from aijax.models.published.architecture import Architecture, Fields, same_fields, shape_of

ARCHITECTURES: dict[str, Architecture] = {
    **bert.ARCHITECTURES,
    **clip.ARCHITECTURES,
    **diffusers.ARCHITECTURES,
    **dino.ARCHITECTURES,
    **gpt2.ARCHITECTURES,
    **llama.ARCHITECTURES,
    **mae.ARCHITECTURES,
    **npz.ARCHITECTURES,
    **open_clip.ARCHITECTURES,
    **t5.ARCHITECTURES,
    **text_towers.ARCHITECTURES,
    **vit.ARCHITECTURES,
    **timm.ARCHITECTURES,
}
"""Published class or model type: what is to be known of it. Of those that a module fits, it is saved as the first."""

RECOGNISED = (
    ("vision_cfg", open_clip.NAME), ("num_blocks", timm.MIXER_NAME), ("architecture", timm.VIT_NAME),
    ("img_size", timm.VIT_NAME), ("embed_dim", timm.VIT_NAME), ("depth", timm.VIT_NAME),
)  # fmt: skip
"""Fields of configs that name no class, and the class that they are of; the first that is there counts."""

__all__ = ["ARCHITECTURES", "RECOGNISED", "Architecture", "Fields", "same_fields", "shape_of"]
