"""Gaussian process regression of the diabetes data, RBF with a lengthscale for each input, beside scikit-learn.

aijax run configs/gp/diabetes.py                about 10 CPU seconds

353 patients to train on, 89 to test on. The best of 12 restarts reaches a log marginal likelihood of -370.6, where
scikit-learn comes to as well, and so the scores are the same: test RMSE 0.741, negative log predictive density 1.131
(standardised target), 92.1 % of the targets within two standard deviations. Three of the ten inputs are switched off.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "gp_regression"
    config.seed = 0
    config.data = ConfigDict({"source": "diabetes", "test_fraction": 0.2, "split_seed": 0})
    config.kernel = "RBF"
    config.restarts = 12
    config.compare = True
    return config
