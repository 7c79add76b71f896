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
from aijax.ntk.stax.aggregate import Aggregate, AggregateImplementation
from aijax.ntk.stax.attention import AttentionMechanism, GlobalSelfAttention
from aijax.ntk.stax.branching import FanInConcat, FanInProd, FanInSum, FanOut
from aijax.ntk.stax.combinators import parallel, repeat, serial
from aijax.ntk.stax.conv import Conv, ConvLocal, ConvTranspose
from aijax.ntk.stax.dot_general import DotGeneral
from aijax.ntk.stax.dropout import Dropout
from aijax.ntk.stax.indexing import Index, Slice
from aijax.ntk.stax.kernel import Kernel
from aijax.ntk.stax.layer import layer
from aijax.ntk.stax.linear import Dense, Flatten, Identity
from aijax.ntk.stax.masking import MaskedArray, supports_masking, unmask_fn
from aijax.ntk.stax.normalization import LayerNorm
from aijax.ntk.stax.pooling import AvgPool, GlobalAvgPool, GlobalSumPool, SumPool
from aijax.ntk.stax.positions import PositionalEmbedding
from aijax.ntk.stax.quadrature_error import quadrature_error
from aijax.ntk.stax.requirements import Bool, Diagonal, requires
from aijax.ntk.stax.resize import ImageResize
from aijax.ntk.stax.windows import Padding

__all__ = [
    "ABRelu", "Abs", "Aggregate", "AggregateImplementation", "AttentionMechanism", "AvgPool", "Bool", "Conv",
    "ConvLocal", "ConvTranspose", "Cos", "Dense", "Diagonal", "DotGeneral", "Dropout", "Elementwise",
    "ElementwiseNumerical", "Erf", "Exp", "ExpNormalized", "FanInConcat", "FanInProd", "FanInSum", "FanOut",
    "Flatten", "Gabor", "Gaussian", "Gelu", "GlobalAvgPool", "GlobalSelfAttention", "GlobalSumPool", "Hermite",
    "Identity", "ImageResize", "Index", "Kernel", "LayerNorm", "LeakyRelu", "MaskedArray", "Monomial", "Padding",
    "Polynomial", "PositionalEmbedding", "Rbf", "RectifiedMonomial", "Relu", "Sigmoid_like", "Sign", "Sin", "Slice",
    "SumPool", "layer", "parallel", "quadrature_error", "repeat", "requires", "serial", "supports_masking", "unmask_fn",
]  # fmt: skip
