"""Kernels: positive semidefinite functions of two points, as pytrees that add, multiply and compose."""

from aijax.kernels.base import Kernel, Power, Product, Scaled, Sum
from aijax.kernels.change_point import ChangePoint
from aijax.kernels.constant import Constant, White
from aijax.kernels.distances import squared_distances
from aijax.kernels.dot_product import ArcCosine, Linear, Polynomial
from aijax.kernels.periodic import Cosine, Periodic, SpectralMixture
from aijax.kernels.stationary import RBF, Matern12, Matern32, Matern52, RationalQuadratic, Wendland

__all__ = [
    "RBF", "ArcCosine", "ChangePoint", "Constant", "Cosine", "Kernel", "Linear", "Matern12", "Matern32", "Matern52",
    "Periodic", "Polynomial", "Power", "Product", "RationalQuadratic", "Scaled", "SpectralMixture", "Sum", "Wendland",
    "White", "squared_distances",
]  # fmt: skip
