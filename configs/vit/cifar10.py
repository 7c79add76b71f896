"""A ViT on CIFAR-10; `config.data.path` is the folder with cifar-10-binary.tar.gz, or with train.npz and test.npz.

aijax run configs/vit/cifar10.py --config.data.path=data/cifar10          ViT-S/4 for accelerators
aijax run configs/vit/cifar10.py:tiny --config.data.path=data/cifar10     three convolutions and three blocks, for CPUs

The tiny one, on a lossy JPEG copy of the images, seed 0: 65.7 % of the 10,000 test images after a third of the run,
73.0 % after two, 75.1 % at the end, after 747 CPU s on two shared cores.
"""

from ml_collections import ConfigDict


def get_config(size="small"):
    if size not in ("small", "tiny"):
        raise ValueError(f"expected small or tiny, got {size!r}")
    config = ConfigDict()
    config.experiment = "train_classifier"
    config.seed = 0
    config.data = ConfigDict({"source": "cifar10", "path": "data/cifar10"})
    config.preprocess = ConfigDict({"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)})
    config.augment = ConfigDict({"translate": 4, "flip": True})
    config.schedule = ConfigDict({"name": "cosine", "warmup_fraction": 0.1})
    config.ema_decay = None
    config.log_every_steps = 50
    config.checkpoint = ConfigDict({"every_fraction": 0.1, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return tiny(config) if size == "tiny" else small(config)


def small(config):
    """ViT-S/4 by the usual recipe."""
    config.batch_size = 512
    config.total_epochs = 200
    config.model = ConfigDict({"name": "vit", "variant": "S/4", "pool": "gap", "stochastic_depth_rate": 0.1})
    config.augment.update({"rand_augment_layers": 2, "rand_augment_magnitude": 9.0, "mixup": 0.8, "cutmix": 1.0})
    config.label_smoothing = 0.1
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "clip_norm": 1.0})
    config.evaluate_every_epochs = 5
    return config


def tiny(config):
    """Convolutions bring 32 x 32 pixels to 4 x 4 patches before the attention, and Muon learns fast from few steps."""
    config.batch_size = 128
    config.total_epochs = 7.0
    config.model = ConfigDict(
        {
            "name": "vit",
            "patch_size": 2,
            "embed_dim": 96,
            "depth": 3,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            "pool": "gap",
            "activation": "gelu_tanh",
            "stem_widths": (24, 48, 96),
            "stem_strides": (1, 2, 2),
        }
    )
    config.label_smoothing = 0.0
    config.optimizer = ConfigDict(
        {"name": "muon", "learning_rate": 5e-3, "weight_decay": 0.05, "consistent_rms": 0.2, "clip_norm": 1.0}
    )
    config.ema_decay = 0.99
    config.evaluate_every_fraction = 0.35
    return config
