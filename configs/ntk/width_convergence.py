"""The NTK of finite networks against that of infinite width, before, in and after training; a figure of three panels.

aijax run configs/ntk/width_convergence.py
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "ntk_width_convergence"
    config.seed = 0
    config.activation = "Erf"
    config.depth = 2
    config.W_std = 1.5
    config.b_std = 0.1
    config.train_points = 10
    config.test_points = 100
    config.widths = (32, 64, 128, 256, 512, 1024, 2048, 4096)
    config.networks = 40
    config.trained_widths = (32, 64, 128, 256, 512, 1024, 2048)
    config.trained_networks = 8
    config.learning_rate_fraction = 0.2
    config.steps = 400
    config.ensemble_width = 512
    config.ensemble_members = 100
    return config
