"""Neural tangent kernels: of finite networks, of infinitely wide ones, in batch, and what they predict.

- `empirical_ntk`, `empirical_nngp`: kernels of any function of parameters; `kernel_vector_product` and the spectra:
  without the matrix; `projected_gradients`: estimates by random projection.
- `kernel_blocks`: a kernel of any size, over a mesh, on disk.
- `stax`: kernels of infinitely wide networks, layer by layer.
- `predict`: what gradient descent makes of a kernel.

Names that end in `_fn`, `batch`, `stax` and `predict` have the meaning that neural-tangents documents for them.
"""

from aijax.ntk.empirical import empirical_nngp, empirical_ntk
from aijax.ntk.empirical_fn import NtkImplementation, empirical_kernel_fn, empirical_nngp_fn, empirical_ntk_fn
from aijax.ntk.factored import factored_ntk

__all__ = [
    "NtkImplementation",
    "empirical_kernel_fn",
    "empirical_nngp",
    "empirical_nngp_fn",
    "empirical_ntk",
    "empirical_ntk_fn",
    "factored_ntk",
]
