"""Digits by Gaussian process classification, beside scikit-learn's classifier on the same split; a figure.

aijax run configs/gp/digits.py                  about 95 CPU seconds

On the 360 test digits, from 400 training digits, or for the sparse variational process from all 1437:

                          error     negative log predictive density
    softmax, Laplace      5.3 %               0.869
    one vs rest, Laplace  4.4 %               0.889
    scikit-learn          4.4 %               0.889
    sparse variational    2.5 %               0.104

One against the rest is scikit-learn's model and gives its scores. Laplace's approximation is much too unsure here, by
softmax as one against the rest; the variational process is not, but it has seen more digits.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "gp_digits"
    config.seed = 0
    config.data = ConfigDict({"source": "digits"})
    config.examples = 400
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
