"""A small ViT on the 8x8 handwritten digits that come with scikit-learn: nothing to download.

Right on 99.35 % of the 360 held-out digits (seeds 0 to 2: 99.44, 99.44, 99.17) after 41 to 44 CPU s, start and
compilation included; the settings were chosen on other splits.

aijax run configs/vit/digits.py
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "train_classifier"
    config.seed = 0
    config.batch_size = 64
    config.total_epochs = 60
    config.data = ConfigDict({"source": "digits"})
    config.model = ConfigDict(
        {
            "name": "vit",
            "patch_size": 1,
            "embed_dim": 64,
            "depth": 2,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            "pool": "gap",
            "activation": "gelu_tanh",
            "stem_widths": (32, 64),
            "stem_strides": (1, 2),
        }
    )
    config.augment = ConfigDict({"translate": 1, "mixup": 0.2})
    config.optimizer = ConfigDict(
        {"name": "muon", "learning_rate": 5e-3, "weight_decay": 0.05, "consistent_rms": 0.2, "clip_norm": 1.0}
    )
    config.schedule = ConfigDict({"name": "cosine", "warmup_fraction": 0.1})
    config.ema_decay = None
    config.log_every_steps = 20
    config.evaluate_every_epochs = 20
    config.checkpoint = ConfigDict({"every_fraction": 0.25, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
