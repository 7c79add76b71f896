"""Kernels: positive semidefinite functions of two points, as pytrees that add, multiply and compose."""

from aijax.kernels.base import Kernel, Power, Product, Scaled, Sum
from aijax.kernels.stationary import RBF

__all__ = ["RBF", "Kernel", "Power", "Product", "Scaled", "Sum"]
