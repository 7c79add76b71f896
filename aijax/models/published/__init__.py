"""Published classes by name, one file a family: their configs, and the names of their tensors."""

from aijax.models.published import bert, clip, diffusers, dino, gpt2, llama, mae, open_clip, t5, text_towers, vit
from aijax.models.published.architecture import Architecture, Fields, same_fields, shape_of

ARCHITECTURES: dict[str, Architecture] = {
    **bert.ARCHITECTURES,
    **clip.ARCHITECTURES,
    **diffusers.ARCHITECTURES,
    **dino.ARCHITECTURES,
    **gpt2.ARCHITECTURES,
    **llama.ARCHITECTURES,
    **mae.ARCHITECTURES,
    **open_clip.ARCHITECTURES,
    **t5.ARCHITECTURES,
    **text_towers.ARCHITECTURES,
    **vit.ARCHITECTURES,
}
"""Published class or model type: what is to be known of it. Of those that a module fits, it is saved as the first."""

RECOGNISED = (("vision_cfg", open_clip.NAME),)
"""Fields of configs that name no class, and the class that they are of."""

__all__ = ["ARCHITECTURES", "RECOGNISED", "Architecture", "Fields", "same_fields", "shape_of"]
