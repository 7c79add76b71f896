"""Digits by Gaussian processes on the kernels of a CNN, infinite and finite, beside RBF; a figure of two panels.

aijax run configs/gp/ntk_digits.py              about 2.5 CPU minutes

From 50, 200 and 800 of the 8x8 digits, on 500 others, it gave

- NTK of an infinitely wide CNN: 79.4, 96.8 and 99.6 % right; 0.63, 0.14 and 0.025 nats an image;
- its NNGP: 81.2, 96.8 and 99.4 %; 0.57, 0.11 and 0.022 nats;
- empirical NTK of a finite CNN at initialisation: 77.8, 97.0 and 98.6 %; 0.66, 0.12 and 0.032 nats;
- RBF with a fitted lengthscale: 80.8, 97.0 and 99.8 %; 0.57, 0.13 and 0.018 nats.

On images this small and this well centred a kernel of pixels is as good as one of convolutions, and the marginal
likelihood says so: it prefers RBF at every size.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "gp_ntk_digits"
    config.seed = 0
    config.kernels = ("ntk", "nngp", "empirical_ntk", "rbf")
    config.depth = 3
    config.cnn_widths = (64, 64)
    config.rbf_lengthscale = 8.0
    config.noise_variance = 0.01
    config.sizes = (50, 100, 200, 400, 800)
    config.test_images = 500
    config.draws = 1000
    config.block_size = 100
    return config
