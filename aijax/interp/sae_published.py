"""Autoencoders and transcoders as sae-lens stores them: a config (`cfg.json`) and tensors (`sae_weights.safetensors`).

Its encoder W_enc is [d_in, m], ours has a row for each latent. Configs are of training or of use; what only training
reads (steps of warm-up, the norm at the start) is passed over, and a coefficient that is not told is our default.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from aijax.errors import ConfigError, DataError, choose, did_you_mean
from aijax.interp.sae_architectures import L1, BatchTopK, Gated, JumpReLU, Matryoshka, TopK
from aijax.models.published.architecture import Fields
from aijax.typing import Any, Params

TENSORS = {
    "W_enc": "encoder", "W_dec": "decoder", "b_dec": "decoder_bias", "b_enc": "encoder_bias", "threshold": "threshold",
    "b_gate": "gate_bias", "b_mag": "magnitude_bias", "r_mag": "log_magnitude",
}  # fmt: skip
"""Names of tensors there, and here."""

PASSED_OVER = (
    "activation_fn", "d_in", "d_out", "d_sae", "decoder_init_norm", "device", "dtype", "l0_warm_up_steps",
    "l1_warm_up_steps", "metadata", "sae_lens_training_version", "sae_lens_version", "topk_threshold_lr",
    "use_sparse_activations",
)  # fmt: skip


def from_sae_lens(
    config: Mapping[str, Any], tensors: Mapping[str, Any], *, where: str = "config"
) -> tuple[Any, Params]:
    """Returns the kind and the weights of an autoencoder of sae-lens 6.

    Args:
      config: its fields, `architecture` among them: standard, topk, batchtopk, matryoshka_batchtopk, jumprelu, gated,
        transcoder or jumprelu_transcoder.
      tensors: by the names W_enc, W_dec, b_dec and so on.
      where: what they are, for messages.

    Raises:
      ConfigError, UnsupportedError: a field that is unknown or missing, or a value that is not offered.
      DataError: a tensor that is missing, unknown or of another shape.
    """
    fields = Fields(config, where)
    read = choose(KINDS, fields.take("architecture", str), f"{where}.architecture")
    across = "transcoder" in config["architecture"]
    centre = fields.take("apply_b_dec_to_input", bool, not across)
    if across and centre:
        raise ConfigError(f"{where}.apply_b_dec_to_input: expected False for a transcoder, got True")
    kind = read(fields, centre)
    for name in ("normalize_activations", "reshape_activations"):
        fields.expect(name, "none")
    fields.skip(*PASSED_OVER)
    fields.done()
    return kind, _params(kind, tensors, where)


def _standard(fields, centre):
    return L1(fields.take("l1_coefficient", float, 1.0), power=fields.take("lp_norm", float, 1.0), centre=centre)


def _topk(fields, centre):
    return TopK(fields.take("k", int, 100), **_chosen(fields, centre))


def _batchtopk(fields, centre):
    return BatchTopK(fields.take("k", float, 100.0), **_chosen(fields, centre))


def _matryoshka(fields, centre):
    widths = tuple(fields.take("matryoshka_widths", list))
    latents = fields.config.get("d_sae", widths[-1])
    return Matryoshka(
        k=fields.take("k", float, 100.0),
        widths=widths if widths[-1] == latents else (*widths, latents),
        auxiliary_by_level=fields.take("use_matryoshka_aux_loss", bool, False),
        **_chosen(fields, centre),
    )


def _chosen(fields, centre):
    return {
        "auxiliary_coefficient": fields.take("aux_loss_coefficient", float, 1.0),
        "rescale": fields.take("rescale_acts_by_decoder_norm", bool, False),
        "centre": centre,
    }


def _jumprelu(fields, centre):
    sparsity = fields.take("jumprelu_sparsity_loss_mode", str, "step")
    target = {"target_l0": fields.take("target_l0", float)} if sparsity == "quadratic" else {}
    fields.skip("target_l0")
    return JumpReLU(
        coefficient=fields.take("l0_coefficient", float, 1.0),
        bandwidth=fields.take("jumprelu_bandwidth", float, 0.05),
        sparsity=sparsity,
        tanh_scale=fields.take("jumprelu_tanh_scale", float, 4.0),
        to_input=fields.take("jumprelu_ste_to_input", bool, False),
        dead_coefficient=fields.take("pre_act_loss_coefficient", float, None) or 0.0,
        initial_threshold=fields.take("jumprelu_init_threshold", float, 0.01),
        centre=centre,
        **target,
    )


def _gated(fields, centre):
    return Gated(fields.take("l1_coefficient", float, 1.0), centre=centre)


KINDS = {
    "standard": _standard, "topk": _topk, "batchtopk": _batchtopk, "matryoshka_batchtopk": _matryoshka,
    "jumprelu": _jumprelu, "gated": _gated, "transcoder": _standard, "jumprelu_transcoder": _jumprelu,
}  # fmt: skip


def _params(kind, tensors, where):
    for name in tensors:
        if name not in TENSORS and name != "topk_threshold":
            raise DataError(f"{where}: unknown tensor {name!r}{did_you_mean(name, TENSORS)}")
    params = {ours: jnp.asarray(tensors[name]) for name, ours in TENSORS.items() if name in tensors}
    wanted = {"encoder", "decoder", "decoder_bias", *kind.extra(1, jnp.float32)}
    names = [[name for name, ours in TENSORS.items() if ours in some] for some in (wanted, set(params))]
    if names[0] != names[1]:
        raise DataError(f"{where}: expected the tensors {', '.join(names[0])}, got {', '.join(names[1])}")
    latents, width = params["decoder"].shape
    if params["encoder"].shape[1:] != (latents,) or params["decoder_bias"].shape != (width,):
        shapes = {name: tensors[name].shape for name in ("W_enc", "W_dec", "b_dec")}
        raise DataError(f"{where}: expected W_enc [d, m], W_dec [m, d'] and b_dec [d'], got {shapes}")
    return params | {"encoder": params["encoder"].T}
