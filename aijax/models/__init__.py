"""Models: Linen modules that experiments and sciences share, used through their pure `apply`."""

from aijax.models.build import NAMES, build
from aijax.models.cnn import CNN
from aijax.models.init import init
from aijax.models.lm import LanguageModel, generate
from aijax.models.mlp import MLP
from aijax.models.transformer import Block, BlockSpec, Transformer, stack_blocks, unstack_blocks
from aijax.models.vit import ViT, sincos2d, vit

__all__ = [
    "CNN", "MLP", "NAMES", "Block", "BlockSpec", "LanguageModel", "Transformer", "ViT", "build", "generate", "init",
    "sincos2d", "stack_blocks", "unstack_blocks", "vit",
]  # fmt: skip
