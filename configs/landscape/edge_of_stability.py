"""Gradient descent on all examples at once, at three learning rates r: the sharpness rises to 2 / r, and stays there.

A perceptron of 9,000 parameters on 300 standardised digits, 3000 steps, mean squared error; about 20 CPU seconds. It
gave, as Cohen et al. (2021) found on other data:

| r | 2 / r | first reached at step | sharpness r / 2, last quarter | steps at which the loss rose | last loss |
|---|---|---|---|---|---|
| 0.8 | 2.5 | 1350 | 1.001 | 15 % | 4.2e-4 |
| 1.2 | 1.67 | 120 | 1.007 | 39 % | 2.6e-4 |
| 1.6 | 1.25 | 30 | 1.010 | 45 % | 2.8e-4 |

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
