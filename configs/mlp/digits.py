"""A multilayer perceptron on the 8x8 handwritten digits: seconds on one core.

Right on 97.2 % of the 360 held-out digits after 3 s of training.

aijax run configs/mlp/digits.py
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "train_classifier"
    config.seed = 0
    config.batch_size = 64
    config.total_epochs = 40
    config.data = ConfigDict({"source": "digits"})
    config.model = ConfigDict({"name": "mlp", "widths": (128, 128)})
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05})
    config.schedule = ConfigDict({"name": "cosine", "warmup_fraction": 0.05})
    config.log_every_steps = 20
    config.evaluate_every_epochs = 10
    config.checkpoint = ConfigDict({"every_fraction": 0.1, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
