"""A ViT on CIFAR-10; `config.data.path` is the folder with cifar-10-binary.tar.gz, or with train.npz and test.npz.

aijax run configs/vit/cifar10.py --config.data.path=data/cifar10          ViT-S/4 for accelerators
aijax run configs/vit/cifar10.py:tiny --config.data.path=data/cifar10     about 14 CPU minutes
"""

from ml_collections import ConfigDict


def get_config(size="small"):
    sizes = {
        "small": {"variant": "S/4", "pool": "gap", "stochastic_depth_rate": 0.1},
        "tiny": {"patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 4, "mlp_ratio": 2.0, "pool": "gap"},
    }
    if size not in sizes:
        raise ValueError(f"expected one of {', '.join(sizes)}, got {size!r}")
    tiny = size == "tiny"
    config = ConfigDict()
    config.experiment = "train_classifier"
    config.seed = 0
    config.batch_size = 128 if tiny else 512
    config.total_epochs = 8 if tiny else 200
    config.data = ConfigDict({"source": "cifar10", "path": "data/cifar10"})
    config.preprocess = ConfigDict({"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)})
    config.model = ConfigDict({"name": "vit", "stem_widths": (32,) if tiny else (), **sizes[size]})
    config.augment = ConfigDict({"translate": 4, "flip": True})
    if not tiny:
        config.augment.update({"rand_augment_layers": 2, "rand_augment_magnitude": 9.0, "mixup": 0.8, "cutmix": 1.0})
    config.label_smoothing = 0.0 if tiny else 0.1
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "clip_norm": 1.0})
    config.schedule = ConfigDict({"name": "cosine", "warmup_fraction": 0.1})
    config.log_every_steps = 50
    config.evaluate_every_epochs = 1 if tiny else 5
    config.checkpoint = ConfigDict({"every_fraction": 0.1, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
