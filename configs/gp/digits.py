"""Digits by Gaussian process classification, beside scikit-learn's classifier on the same split; a figure.

aijax run configs/gp/digits.py
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "gp_digits"
    config.seed = 0
    config.data = ConfigDict({"source": "digits"})
    config.examples = 600
    config.methods = ("softmax", "one_vs_rest", "sparse_variational", "scikit_learn")
    config.lengthscale = 3.0
    config.variance = 10.0
    config.sparse_variational = ConfigDict(
        {
            "inducing_points": 100,
            "steps": 300,
            "batch_size": 200,
            "natural_step_size": 0.1,
            "learning_rate": 0.03,
            "quadrature_points": 20,
        }
    )
    return config
