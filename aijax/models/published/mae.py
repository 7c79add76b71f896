"""The masked autoencoder as transformers has it (He et al. 2022)."""

from collections.abc import Mapping

from aijax.models.layout import Entry, Layout, prefixed, with_ones
from aijax.models.mae import MAE
from aijax.models.published.architecture import Architecture, Fields, shape_of
from aijax.models.published.vision import image_of, positions_entry
from aijax.models.published.vit import BLOCKS, ENCODER, read_vit, write_encoder
from aijax.models.vit import ViT, grid_of
from aijax.typing import Any

PRETRAINING, ENCODER_ONLY = "ViTMAEForPreTraining", "ViTMAEModel"
DECODER = (
    Entry("decoder_embed.*", "embed/*"),
    Entry("mask_token", "mask_token", with_ones(1)),
    positions_entry("decoder_pos_embed"),
    *(
        Entry(e.published.replace("encoder.layer", "decoder_layers"), e.own.replace("encoder/", "layers/"))
        for e in BLOCKS
    ),
    Entry("decoder_norm.*", "layers/norm/*"),
    Entry("decoder_pred.*", "pred/*"),
)
LAYOUT = Layout((*prefixed(ENCODER, "vit.", "encoder/"), *prefixed(DECODER, "decoder.", "decoder/")))
ENCODER_LAYOUT = Layout(ENCODER, ignored=(r"decoder\..*",))
DECODER_FIELDS = (
    "decoder_num_attention_heads", "decoder_hidden_size", "decoder_num_hidden_layers", "decoder_intermediate_size",
    "mask_ratio", "norm_pix_loss",
)  # fmt: skip


def _read_vit(fields: Fields) -> ViT:
    return read_vit(fields, pool="none", freeze_positions=True)


def _read(config: Mapping[str, Any], where: str) -> MAE:
    fields = Fields(config, where)
    width = fields.take("decoder_hidden_size", int, 512)
    model = MAE(
        _read_vit(fields), width, fields.take("decoder_num_hidden_layers", int, 8),
        fields.take("decoder_num_attention_heads", int, 16),
        fields.take("decoder_intermediate_size", int, 2048) / width,
        float(fields.take("mask_ratio", float, 0.75)), fields.take("norm_pix_loss", bool, False), PRETRAINING,
    )  # fmt: skip
    fields.done()
    return model


def _write(model: MAE) -> dict[str, Any]:
    return {
        "architectures": [PRETRAINING], "model_type": "vit_mae", **write_encoder(model.encoder),
        "decoder_hidden_size": model.decoder_dim, "decoder_num_hidden_layers": model.decoder_depth,
        "decoder_num_attention_heads": model.decoder_heads,
        "decoder_intermediate_size": round(model.decoder_mlp_ratio * model.decoder_dim),
        "mask_ratio": model.mask_ratio, "norm_pix_loss": model.normalize_targets,
    }  # fmt: skip


def _inputs(model: MAE, config: Mapping[str, Any]) -> dict[str, Any]:
    images = image_of(model.encoder)["x"]
    rows, columns = grid_of(images.shape[1:3], model.encoder.patch_size, drop_rest=False)
    return {"images": images, "noise": shape_of(1, rows * columns)}


def _read_encoder(config: Mapping[str, Any], where: str) -> ViT:
    fields = Fields(config, where)
    fields.skip(*DECODER_FIELDS)
    model = _read_vit(fields).clone(published_as=ENCODER_ONLY)
    fields.done()
    return model


def _write_encoder(model: ViT) -> dict[str, Any]:
    # without a ratio the published class would hide three quarters of the patches, which our encoder sees
    return {"architectures": [ENCODER_ONLY], "model_type": "vit_mae", **write_encoder(model), "mask_ratio": 0.0}


def _rename(name):
    """The name that the decoder's blocks have in most files: transformers 5 writes them as those of an encoder."""
    return name.replace("decoder.decoder_encoder.layer.", "decoder.decoder_layers.")


MODEL = Architecture(MAE, _read, _write, _inputs, lambda model, config: LAYOUT, _rename)
ARCHITECTURES = {
    PRETRAINING: MODEL,
    ENCODER_ONLY: Architecture(ViT, _read_encoder, _write_encoder, image_of, lambda model, config: ENCODER_LAYOUT),
    "vit_mae": MODEL,
}
