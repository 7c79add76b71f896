"""From kernels to trained networks: what a network that its kernel describes predicts after training.

With f the outputs on the training points, y the targets, L a loss and K the kernel (NTK: all parameters are trained;
NNGP: only the last layer is), gradient flow with learning rate eta moves the outputs by

    d f(x) / dt = - eta K(x, X) dL/df(X)                        (Jacot et al. 2018; Lee et al. 2019)

- `gradient_descent_mse`: the mean squared error `L = |f - y|^2 / (2 N)`, N = y.size, in closed form;
- `gradient_descent_mse_ensemble`: the same for a random initialisation, as mean and covariance;
- `gradient_descent`: any loss, with or without momentum, by an ODE solver;
- `gp_inference`: the posterior of the Gaussian process, and the fully trained ensemble;
- `infinite_width_prediction`: the last two in one line from a kernel function;
- `max_learning_rate`: where discrete steps stop to converge.
"""

from aijax.ntk.predict.ensemble import gradient_descent_mse_ensemble, infinite_width_prediction
from aijax.ntk.predict.gaussian import Gaussian
from aijax.ntk.predict.gp import gp_inference
from aijax.ntk.predict.mse import gradient_descent_mse, max_learning_rate
from aijax.ntk.predict.ode import ODEState, gradient_descent

__all__ = [
    "Gaussian", "ODEState", "gp_inference", "gradient_descent", "gradient_descent_mse",
    "gradient_descent_mse_ensemble", "infinite_width_prediction", "max_learning_rate",
]  # fmt: skip
