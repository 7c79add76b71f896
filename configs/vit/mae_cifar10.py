"""A masked autoencoder on CIFAR-10; `config.data.path` is the folder with cifar-10-binary.tar.gz, or with train.npz and
test.npz.

aijax run configs/vit/mae_cifar10.py --config.data.path=data/cifar10            ViT-S/2 for accelerators
aijax run configs/vit/mae_cifar10.py:tiny --config.data.path=data/cifar10       four narrow blocks, for CPUs
aijax run configs/vit/mae_cifar10.py:finetune --config.data.path=data/cifar10 --config.pretrained=RUN/encoder

The last trains a classifier from the encoder that a run of one of the others left in its folder.

The tiny one, on a lossy JPEG copy of the images, seed 0, 4 epochs: a ridge regression on the frozen features tells
49.3 % of the 10,000 test images, 40.5 % on those of the same network untrained. 494 CPU s on two busy cores, both
probes included.
"""

from ml_collections import ConfigDict


def get_config(size="small"):
    sizes = {"small": small, "tiny": tiny, "finetune": finetune}
    if size not in sizes:
        raise ValueError(f"expected small, tiny or finetune, got {size!r}")
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict({"source": "cifar10", "path": "data/cifar10"})
    config.preprocess = ConfigDict({"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)})
    config.log_every_steps = 50
    config.ema_decay = None
    config.checkpoint = ConfigDict({"every_fraction": 0.1, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return sizes[size](config)


def small(config):
    """The recipe of the paper, with patches of 2 x 2 pixels."""
    config.experiment = "pretrain_vision"
    config.batch_size = 1024
    config.total_epochs = 800.0
    config.model = ConfigDict({"name": "vit", "variant": "S/2"})
    config.mae = ConfigDict(
        {"decoder_dim": 256, "decoder_depth": 4, "decoder_heads": 8, "mask_ratio": 0.75, "normalize_targets": True}
    )
    config.augment = ConfigDict({"crop_area": (0.2, 1.0), "flip": True})
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 6e-4,
            "b2": 0.95,
            "weight_decay": 0.05,
            "freeze_rules": ((".*positions", True),),
        }
    )
    config.schedule = ConfigDict({"name": "cosine", "warmup_fraction": 0.05})
    config.compute_dtype = "bfloat16"
    config.report = ("neighbours", "ridge_probe")
    config.evaluate_every_epochs = 20
    return config


def tiny(config):
    """Muon learns fast from few steps; patches of 4 x 4 pixels, 16 of 64 of them seen."""
    config = small(config)
    config.batch_size = 256
    config.total_epochs = 4.0
    config.model = ConfigDict(
        {
            "name": "vit",
            "patch_size": 4,
            "embed_dim": 96,
            "depth": 4,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            "activation": "gelu_tanh",
        }
    )
    config.mae.update({"decoder_dim": 64, "decoder_depth": 1, "decoder_heads": 4, "decoder_mlp_ratio": 2.0})
    config.augment = ConfigDict({"translate": 4, "padding": "reflect", "flip": True})
    config.optimizer = ConfigDict(
        {
            "name": "muon",
            "learning_rate": 5e-3,
            "weight_decay": 0.05,
            "consistent_rms": 0.2,
            "clip_norm": 1.0,
            "freeze_rules": ((".*positions", True),),
        }
    )
    config.schedule = ConfigDict({"name": "cosine", "warmup_fraction": 0.1})
    config.report = ("ridge_probe",)
    del config.compute_dtype, config.evaluate_every_epochs
    return config


def finetune(config):
    """The recipe of the paper for fine-tuning, with a smaller rate for the layers nearer to the image."""
    config.experiment = "train_classifier"
    config.pretrained = ""
    config.batch_size = 512
    config.total_epochs = 100.0
    config.augment = ConfigDict(
        {
            "translate": 4,
            "flip": True,
            "rand_augment_layers": 2,
            "rand_augment_magnitude": 9.0,
            "mixup": 0.8,
            "cutmix": 1.0,
        }
    )
    config.label_smoothing = 0.1
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "layer_decay": 0.75,
            "freeze_rules": ((".*positions", True),),
        }
    )
    config.schedule = ConfigDict({"name": "cosine", "warmup_fraction": 0.05})
    config.evaluate_every_epochs = 5
    return config
