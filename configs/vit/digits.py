"""A small ViT on the 8x8 handwritten digits that come with scikit-learn: nothing to download.

Right on 98.9 to 99.7 % of the 360 held-out digits (seeds 0 to 2: 99.7, 99.4, 98.9) after 90 s on two cores, 145 CPU s.

aijax run configs/vit/digits.py
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "train_classifier"
    config.seed = 0
    config.batch_size = 64
    config.total_epochs = 100
    config.data = ConfigDict({"source": "digits"})
    config.model = ConfigDict(
        {
            "name": "vit",
            "patch_size": 2,
            "embed_dim": 64,
            "depth": 4,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            "pool": "gap",
            "stem_widths": (64,),
        }
    )
    config.augment = ConfigDict({"translate": 1, "mixup": 0.2})
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "clip_norm": 1.0})
    config.schedule = ConfigDict({"name": "cosine", "warmup_fraction": 0.1})
    config.ema_decay = None
    config.log_every_steps = 20
    config.evaluate_every_epochs = 10
    config.checkpoint = ConfigDict({"every_fraction": 0.1, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
