"""Models: Linen modules that experiments and sciences share, used through their pure `apply`."""

from aijax.models.autoencoder import AutoencoderKL, VQModel
from aijax.models.block_spec import BlockSpec
from aijax.models.build import NAMES, build
from aijax.models.clip import CLIP
from aijax.models.cnn import CNN
from aijax.models.dit import DiT
from aijax.models.encoder_decoder import EncoderDecoder
from aijax.models.generation import beam_search, generate
from aijax.models.init import init
from aijax.models.lm import LanguageModel
from aijax.models.mlp import MLP
from aijax.models.mmdit import MMDiT
from aijax.models.positions import sincos2d
from aijax.models.pretrained import load, save
from aijax.models.text import CLIPText, CLIPTextWithProjection, MaskedLanguageModel, TextEncoder
from aijax.models.transformer import Block, Transformer, stack_blocks, unstack_blocks
from aijax.models.unet import UNet, unet
from aijax.models.unet_config import unet_from_config
from aijax.models.vit import ViT, vit

__all__ = [
    "CLIP", "CNN", "MLP", "NAMES", "AutoencoderKL", "Block", "BlockSpec", "CLIPText", "CLIPTextWithProjection", "DiT",
    "EncoderDecoder", "LanguageModel", "MMDiT", "MaskedLanguageModel", "TextEncoder", "Transformer", "UNet",
    "VQModel", "ViT", "beam_search", "build", "generate", "init", "load", "save", "sincos2d", "stack_blocks",
    "unet", "unet_from_config", "unstack_blocks", "vit",
]  # fmt: skip
