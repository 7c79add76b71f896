"""Kernels: positive semidefinite functions of two points, as pytrees that add, multiply and compose.

kernel = 2.0 * kernels.RBF(lengthscale=[0.5, 2.0]) + kernels.White(0.1)
kernel(x1, x2), kernel(x), kernel.diagonal(x)
"""

from aijax.kernels.base import Kernel, Power, Product, Scaled, Sum
from aijax.kernels.change_point import ChangePoint
from aijax.kernels.constant import Constant, White
from aijax.kernels.derivative import Derivative, with_all_derivatives, with_derivative
from aijax.kernels.distances import squared_distances
from aijax.kernels.dot_product import ArcCosine, Linear, Polynomial
from aijax.kernels.functions import FunctionKernel, as_kernel, from_kernel_fn
from aijax.kernels.multi_output import ICM, LMC, multi_output, with_all_outputs, with_output
from aijax.kernels.oscillator import SHO
from aijax.kernels.periodic import Cosine, Periodic, SpectralMixture
from aijax.kernels.state_space import Markov, markov
from aijax.kernels.stationary import RBF, Matern12, Matern32, Matern52, RationalQuadratic, Wendland
from aijax.kernels.transforms import Columns, LinearMap, Warped

__all__ = [
    "ICM", "LMC", "RBF", "SHO", "ArcCosine", "ChangePoint", "Columns", "Constant", "Cosine", "Derivative",
    "FunctionKernel", "Kernel", "Linear", "LinearMap", "Markov", "Matern12", "Matern32", "Matern52", "Periodic",
    "Polynomial", "Power", "Product", "RationalQuadratic", "Scaled", "SpectralMixture", "Sum", "Warped", "Wendland",
    "White", "as_kernel", "from_kernel_fn", "markov", "multi_output", "squared_distances", "with_all_derivatives",
    "with_all_outputs", "with_derivative", "with_output",
]  # fmt: skip
