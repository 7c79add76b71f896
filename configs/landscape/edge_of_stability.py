"""x

aijax run configs/landscape/edge_of_stability.py
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "landscape_edge_of_stability"
    config.seed = 0
    config.data = ConfigDict({"source": "digits"})
    config.examples = 300
    config.model = ConfigDict({"name": "mlp", "widths": (64, 64), "activation": "tanh"})
    config.learning_rates = (0.8, 1.2, 1.6)
    config.steps = 3000
    config.measure_every = 30
    return config
