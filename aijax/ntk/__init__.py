"""Neural tangent kernels: of finite networks, of infinitely wide ones, in batch, and what they predict.

- `empirical_ntk`, `empirical_nngp`: kernels of any function of parameters; `compute_ntk` is the short form.
- `kernel_vector_product` and the spectra: the same without the matrix; `projected_gradients`: by random projection.
- `kernel_blocks`, `open_kernel`: a kernel of any size, over a mesh, on disk; `factored_ntk` makes it cheaper.
- `stax`: kernels of infinitely wide networks, layer by layer; `compute_cntk`: the convolutional one.
- `predict`: what gradient descent makes of a kernel; `infinite_width_prediction` is the short form.
- `linearize`, `taylor_expand`: a function near its parameters.

`stax`, `predict`, `batch`, `Kernel`, `NtkImplementation`, `linearize`, `taylor_expand` and the names that end in `_fn`
have the meaning that neural-tangents documents for them: a script moves by `import aijax.ntk as nt`.
"""

from aijax.ntk import predict, stax
from aijax.ntk.batch import batch
from aijax.ntk.block_programs import FactoredKernel
from aijax.ntk.blocks import kernel_blocks
from aijax.ntk.cntk import cntk_kernel_fn, compute_cntk
from aijax.ntk.empirical import compute_ntk, empirical_nngp, empirical_ntk
from aijax.ntk.empirical_fn import NtkImplementation, empirical_kernel_fn, empirical_nngp_fn, empirical_ntk_fn
from aijax.ntk.expansion import linearize, taylor_expand
from aijax.ntk.factored import factored_ntk
from aijax.ntk.monte_carlo import monte_carlo_kernel_fn
from aijax.ntk.operator import empirical_ntk_vp_fn, kernel_vector_product
from aijax.ntk.predict import infinite_width_prediction
from aijax.ntk.projection import projected_gradients
from aijax.ntk.spectrum import effective_rank, estimate_trace, log_determinant, top_eigenvalues, trace
from aijax.ntk.stax import Kernel
from aijax.ntk.stored import StoredKernel, open_kernel

__all__ = [
    "FactoredKernel", "Kernel", "NtkImplementation", "StoredKernel", "batch", "cntk_kernel_fn", "compute_cntk",
    "compute_ntk", "effective_rank", "empirical_kernel_fn", "empirical_nngp", "empirical_nngp_fn", "empirical_ntk",
    "empirical_ntk_fn", "empirical_ntk_vp_fn", "estimate_trace", "factored_ntk", "infinite_width_prediction",
    "kernel_blocks", "kernel_vector_product", "linearize", "log_determinant", "monte_carlo_kernel_fn", "open_kernel",
    "predict", "projected_gradients", "stax", "taylor_expand", "top_eigenvalues", "trace",
]  # fmt: skip
