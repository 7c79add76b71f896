"""Inside the vision transformer of digits: attention rollout, neurons, what excites each class.

aijax run configs/vit/digits.py --workdir runs/vit_digits
aijax run configs/interp/vit_digits.py --config.run=runs/vit_digits
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "interp_vit_digits"
    config.seed = 0
    config.run = "runs/vit_digits"
    config.batch_size = 90
    config.control_types = 20
    config.image = ConfigDict({"steps": 128, "learning_rate": 0.1, "total_variation": 0.5, "initial_scale": 0.3})
    return config
