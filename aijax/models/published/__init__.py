"""Published classes by name, one file a family: their configs, and the names of their tensors."""

from aijax.models.published import bert, diffusers, dino, gpt2, llama, t5, text_towers, vit
from aijax.models.published.architecture import Architecture, Fields, same_fields, shape_of

ARCHITECTURES: dict[str, Architecture] = {
    **bert.ARCHITECTURES,
    **diffusers.ARCHITECTURES,
    **dino.ARCHITECTURES,
    **gpt2.ARCHITECTURES,
    **llama.ARCHITECTURES,
    **t5.ARCHITECTURES,
    **text_towers.ARCHITECTURES,
    **vit.ARCHITECTURES,
}
"""Published class or model type: what is to be known of it. Of those that a module fits, it is saved as the first."""

__all__ = ["ARCHITECTURES", "Architecture", "Fields", "same_fields", "shape_of"]
