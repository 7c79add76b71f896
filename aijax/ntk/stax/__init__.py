"""Networks that are finite and infinite at once: layers `(init_fn, apply_fn, kernel_fn)` and how they compose."""

from aijax.ntk.stax.activations import (
    ABRelu,
    Abs,
    Cos,
    Elementwise,
    ElementwiseNumerical,
    Erf,
    Exp,
    ExpNormalized,
    Gabor,
    Gaussian,
    Gelu,
    Hermite,
    LeakyRelu,
    Monomial,
    Polynomial,
    Rbf,
    RectifiedMonomial,
    Relu,
    Sigmoid_like,
    Sign,
    Sin,
)  # fmt: skip
from aijax.ntk.stax.branching import FanInConcat, FanInProd, FanInSum, FanOut
from aijax.ntk.stax.combinators import parallel, repeat, serial
from aijax.ntk.stax.conv import Conv, ConvLocal, ConvTranspose
from aijax.ntk.stax.kernel import Kernel
from aijax.ntk.stax.layer import layer
from aijax.ntk.stax.linear import Dense, Flatten, Identity
from aijax.ntk.stax.masking import MaskedArray, supports_masking, unmask_fn
from aijax.ntk.stax.pooling import AvgPool, GlobalAvgPool, GlobalSumPool, SumPool
from aijax.ntk.stax.requirements import Bool, Diagonal, requires
from aijax.ntk.stax.windows import Padding

__all__ = [
    "ABRelu", "Abs", "AvgPool", "Bool", "Conv", "ConvLocal", "ConvTranspose", "Cos", "Dense", "Diagonal",
    "Elementwise", "ElementwiseNumerical", "Erf", "Exp", "ExpNormalized", "FanInConcat", "FanInProd", "FanInSum",
    "FanOut", "Flatten", "Gabor", "Gaussian", "Gelu", "GlobalAvgPool", "GlobalSumPool", "Hermite", "Identity",
    "Kernel", "LeakyRelu", "MaskedArray", "Monomial", "Padding", "Polynomial", "Rbf", "RectifiedMonomial", "Relu",
    "Sigmoid_like", "Sign", "Sin", "SumPool", "layer", "parallel", "repeat", "requires", "serial", "supports_masking",
    "unmask_fn",
]  # fmt: skip
