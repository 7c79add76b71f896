"""The NTK of finite networks against that of infinite width, before, in and after training; a figure of three panels.

aijax run configs/ntk/width_convergence.py      about 2.5 CPU minutes

Points on a circle, two hidden layers of erf, in the NTK parametrisation. It gave:

- At initialisation the distance from the kernel of infinite width falls like width^-0.52 over widths of 32 to 4096
  (theory, Jacot et al. 2018 and Lee et al. 2019: -1/2).
- The change of the kernel in 400 steps of gradient descent falls like width^-0.83 over widths of 32 to 2048 (the bound
  of Lee et al. 2019 is width^-1/2, the rate in the limit width^-1: Huang and Yau 2019).
- 100 trained networks of width 512 lie as `gradient_descent_mse_ensemble` says at the same time: 95.3 % of outputs
  within two standard deviations of its mean (95.4 % expected), a spread of 1.01 times the predicted one, and a mean
  that is off by 0.61 of its standard error.
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
