"""Kernels: positive semidefinite functions of two points, as pytrees that add, multiply and compose.

A kernel is a noun: `2.0 * RBF(lengthscale=[0.5, 2.0]) + White(0.1)`. Called with points it gives the Gram matrix.

- Functions of the distance: `RBF`, `Matern12`, `Matern32`, `Matern52`, `RationalQuadratic`, `Wendland`; of differences:
  `Periodic`, `Cosine`, `SpectralMixture`, `SHO`; of the inner product: `Linear`, `Polynomial`, `ArcCosine`.
- `Constant`, `White`, `ChangePoint`; sums, products, powers and multiples by `+`, `*`, `**`.
- Points transformed first: `LinearMap`, `Columns`, `Warped` (deep kernels).
- Any function: `from_kernel_fn`, of two vectors, of two batches (tangent kernels), of strings or graphs.
- `Derivative`: values and partial derivatives together. `ICM`, `LMC`: several outputs; `multi_output` starts them.
"""

from aijax.kernels.base import Kernel, Power, Product, Scaled, Sum
from aijax.kernels.change_point import ChangePoint
from aijax.kernels.constant import Constant, White
from aijax.kernels.derivative import Derivative, with_all_derivatives, with_derivative
from aijax.kernels.distances import squared_distances
from aijax.kernels.dot_product import ArcCosine, Linear, Polynomial
from aijax.kernels.eigenfunctions import Eigenfunctions, eigenfunctions
from aijax.kernels.functions import FunctionKernel, as_kernel, from_kernel_fn
from aijax.kernels.multi_output import ICM, LMC, multi_output, with_all_outputs, with_output
from aijax.kernels.nystrom import NystromFeatures, nystrom, nystrom_features
from aijax.kernels.oscillator import SHO
from aijax.kernels.periodic import Cosine, Periodic, SpectralMixture
from aijax.kernels.products import kernel_product
from aijax.kernels.random_features import FeatureKernel, random_features
from aijax.kernels.separable import separate
from aijax.kernels.state_space import Markov, markov
from aijax.kernels.stationary import RBF, Matern12, Matern32, Matern52, RationalQuadratic, Wendland
from aijax.kernels.transforms import Columns, LinearMap, Warped

__all__ = [
    "ICM", "LMC", "RBF", "SHO", "ArcCosine", "ChangePoint", "Columns", "Constant", "Cosine", "Derivative",
    "Eigenfunctions", "FeatureKernel", "FunctionKernel", "Kernel", "Linear", "LinearMap", "Markov", "Matern12",
    "Matern32", "Matern52", "NystromFeatures", "Periodic", "Polynomial", "Power", "Product", "RationalQuadratic",
    "Scaled", "SpectralMixture", "Sum", "Warped", "Wendland", "White", "as_kernel", "eigenfunctions", "from_kernel_fn",
    "kernel_product", "markov", "multi_output", "nystrom", "nystrom_features", "random_features", "separate",
    "squared_distances", "with_all_derivatives", "with_all_outputs", "with_derivative", "with_output",
]  # fmt: skip
