"""Grokking of modular addition (Nanda et al. 2023): a one-layer transformer without norms, full batches, AdamW.

aijax run configs/interp/grokking.py               p = 53, two pairs in five, for CPUs
aijax run configs/interp/grokking.py:published     p = 113, three in ten, d 128 and 40,000 steps, for accelerators
"""

from ml_collections import ConfigDict


def get_config(size="small"):
    if size not in ("small", "published"):
        raise ValueError(f"expected small or published, got {size!r}")
    small = size == "small"
    config = ConfigDict()
    config.experiment = "interp_grokking"
    config.seed = 0
    # all that is trained on at once: numbers of pairs that many devices can share
    config.batch_size = 1120 if small else 3840
    config.total_steps = 6000 if small else 40_000
    config.data = ConfigDict(
        {"source": "modular_addition", "modulus": 53 if small else 113, "train_size": config.batch_size}
    )
    config.model = ConfigDict(
        {
            "name": "lm",
            "width": 64 if small else 128,
            "num_heads": 4,
            "mlp_width": 192 if small else 512,
            "activation": "relu",
            "biases": ("up", "down"),
        }
    )
    config.num_frequencies = 5
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": 1.0,
            "weight_decay_rules": ((".*", 1.0),),
            "b1": 0.9,
            "b2": 0.98,
        }
    )
    config.schedule = ConfigDict({"name": "constant", "warmup_steps": 10})
    config.log_every_steps = 50
    config.evaluate_every_steps = 100 if small else 500
    config.checkpoint = ConfigDict({"every_fraction": 0.25, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
